"""Write a model's folder again, so that numbert and sentence-transformers load the same model from it."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

COPIED = ("README.md", "LICENSE", "tokenizer.json", "vocab.txt", "special_tokens_map.json", "vocab.json", "merges.txt")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
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
    target.mkdir(parents=True, exist_ok=True)
    for pattern in (*COPIED, *WEIGHTS):
        for path in sorted(source.glob(pattern)):
            _put(target / path.name, lambda place, path=path: shutil.copyfile(path, place))  # type: ignore[misc]
    tokenizer = source / "tokenizer_config.json"
    tokenizer_settings = json.loads(tokenizer.read_bytes()) if tokenizer.is_file() else {}
    config = json.loads((source / "config.json").read_bytes())
    config.pop("sbert_ce_default_activation_function", None)
    config["sentence_transformers"] = {"activation_fn": settings["activation_fn"]}
    for name, content in (
        ("tokenizer_config.json", {**tokenizer_settings, "model_max_length": max_length}),
        ("config.json", config),
        ("modules.json", MODULES),
        ("sentence_bert_config.json", MODULE_SETTINGS),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder", **settings}),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        _put(target / name, lambda place, text=text: place.write_text(text + "\n", "utf-8"))  # type: ignore[misc]


def _put(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside the target, then move it there in one step."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
