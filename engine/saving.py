"""Write a model's folder again, so that numbert and sentence-transformers load the same model from it."""

import functools
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..loaders.files import ModelFiles
from ..loaders.tensors import INDEX, weight_files

COPIED = ("README.md", "LICENSE", "tokenizer.json", "vocab.txt", "special_tokens_map.json", "vocab.json", "merges.txt")
READ_BEFORE_OTHERS = ("model.safetensors", INDEX, "tokenizer.json", "vocab.txt", "merges.txt")
# What sentence-transformers builds of a folder: one module, transformers' model with its head.
MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
MODULE_SETTINGS = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}
TORCH_PATHS = {
    "identity": "torch.nn.modules.linear.Identity",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "tanh": "torch.nn.modules.activation.Tanh",
    "softmax": "torch.nn.modules.activation.Softmax",
}


def save_folder(source: Path, target: Path, settings: Mapping[str, Any], max_length: int) -> None:
    """Copy the files of a model and write down what was set since it was loaded.

    Every file is written beside its place and then put there, so that a full disk leaves no half file and what was
    there before stays.

    Parameters
    ----------
    source, target : Path
        Folders; they may be the same.
    settings : mapping
        For config_sentence_transformers.json: "activation_fn", "prompts", "default_prompt_name".
    max_length : int
        For tokenizer_config.json.
    """
    tokenizer = source / "tokenizer_config.json"
    tokenizer_settings = json.loads(tokenizer.read_bytes()) if tokenizer.is_file() else {}
    config = json.loads((source / "config.json").read_bytes())
    config.pop("sbert_ce_default_activation_function", None)
    config["sentence_transformers"] = {"activation_fn": settings["activation_fn"]}
    written = {
        "tokenizer_config.json": {**tokenizer_settings, "model_max_length": max_length},
        "config.json": config,
        "modules.json": MODULES,
        "sentence_bert_config.json": MODULE_SETTINGS,
        "config_sentence_transformers.json": {"model_type": "CrossEncoder", **settings},
    }
    texts = {name: json.dumps(content, indent=2, ensure_ascii=False).encode() for name, content in written.items()}
    with ModelFiles(source) as files:
        weights = [source / name for name in weight_files(files)]
    copied = [source / name for name in (*COPIED, INDEX) if (source / name).is_file()] + weights
    if (source / "model.safetensors").is_file():
        copied = [path for path in copied if path.name != INDEX]
    target.mkdir(parents=True, exist_ok=True)
    for path in copied:
        _put(target / path.name, functools.partial(shutil.copyfile, path))
    for name, content in texts.items():
        _put(target / name, functools.partial(_write, content))
    # What another model left here would be read instead of, or together with, what was written.
    for name in {*READ_BEFORE_OTHERS} - {path.name for path in copied}:
        (target / name).unlink(missing_ok=True)


def _write(content: bytes, place: Path) -> None:
    place.write_bytes(content + b"\n")


def _put(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside the target, then move it there in one step."""
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        write(beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
