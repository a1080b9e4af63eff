"""Cases that were wrong once, by name: they are run first, and do not change when the mutations do."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile import render
from mutate_folder import ALL, Spoiled, copy_model
from mutate_safetensors import put_together, take_apart

Tree = dict[str, Any]
FIRST, WORDS = "bert.encoder.layer.0", "bert.embeddings.word_embeddings.weight"


def spoil(name: str, parent: Path) -> Spoiled:
    """Make the folder of a case."""
    model, file, change = CASES[name]
    folder = copy_model(model, parent)
    change(folder / file)
    return Spoiled(folder, name)


def _edit(change: Callable[[Tree], object]) -> Callable[[Path], None]:
    """Return an action that changes a JSON file in place."""

    def action(path: Path) -> None:
        tree = json.loads(path.read_text())
        change(tree)
        path.write_bytes(render(tree))

    return action


def _with(*keys: str, value: Any) -> Callable[[Path], None]:
    """Return an action that sets one value, however deep it lies."""

    def change(tree: Tree) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return _edit(change)


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return an action that puts something else in a file's place."""

    def action(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return action


def _doubling(count: int) -> Any:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return _with("normalizer", value={"type": "Sequence", "normalizers": [step] * count})


def _tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Return an action that changes one float32 tensor."""

    def action(path: Path) -> None:
        tensors, metadata = take_apart(path.read_bytes())
        for i, tensor in enumerate(tensors):
            if tensor.name == name:
                new = change(np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)).astype("<f4")
                tensors[i] = tensor._replace(data=new.tobytes(), shape=new.shape)
        path.write_bytes(put_together(tensors, metadata))

    return action


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def _512_buckets(path: Path) -> None:
    """Let MPNet have more buckets than its logarithm is made for, and so many positions that it matters."""
    _with("relative_attention_num_buckets", value=512)(path)
    _with("max_position_embeddings", value=330)(path)
    _with("model_max_length", value=300)(path.with_name("tokenizer_config.json"))
    weights = path.with_name("model.safetensors")
    _tensor("mpnet.encoder.relative_attention_bias.weight", lambda bias: np.tile(bias, (16, 1)))(weights)
    _tensor("mpnet.embeddings.position_embeddings.weight", lambda rows: np.tile(rows, (5, 1)))(weights)


def _first_text_twice(tree: Tree) -> None:
    pair = tree["post_processor"]["pair"]
    pair.insert(1, pair[1])


def _modules(*names: str) -> Callable[[Path], object]:
    chain = [
        {"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.models.{n}"} for i, n in enumerate(names)
    ]
    return lambda path: path.write_text(json.dumps(chain))


CASES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    **{f"sound-{model}": (model, "config.json", lambda path: None) for model in ALL},
    **{  # kernels of their own, which a worker must have before it is timed
        f"sound-{kind}-only": ("deberta-v3", "config.json", _with("pos_att_type", value=[kind]))
        for kind in ("c2p", "p2c")
    },
    "unused-positions": ("deberta-v2", "config.json", _with("position_biased_input", value=False)),
    "further-dense": ("narrow", "modules.json", _modules("Transformer", "Dense")),
    **{
        f"{pooling}-of-modules": ("modular", "1_Pooling/config.json", _with("pooling_mode", value=pooling))
        for pooling in ("cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    },
    "dense-without-activation": ("modular", "2_Dense/config.json", _edit(lambda tree: tree.pop("activation_function"))),
    "no-transformer": ("narrow", "modules.json", _modules("Pooling")),
    "text-doubled-33-times": ("narrow", "tokenizer.json", _doubling(33)),
    "text-doubled-12-times": ("narrow", "tokenizer.json", _doubling(12)),
    "dropout": ("roberta", "tokenizer.json", _with("model", "dropout", value=0.5)),
    "first-text-twice": ("narrow", "tokenizer.json", _edit(_first_text_twice)),
    "labels-contradict": ("roberta", "config.json", _with("num_labels", value=1)),
    "512-buckets": ("mpnet", "config.json", _512_buckets),
    "integer-of-5000-digits": ("narrow", "config.json", _with("hidden_size", value="\x01RAW:" + "1" * 5000)),
    "nested-200000-times": ("narrow", "config.json", _with("x", value="\x01RAW:" + "[" * 200_000)),
    "pipe-for-modules": ("narrow", "modules.json", _instead(os.mkfifo)),
    "huge-key-bias": (
        "narrow",
        "model.safetensors",
        _tensor(f"{FIRST}.attention.self.key.bias", lambda bias: bias + 1e10),
    ),
    "finite-sum-overflows": (
        "narrow",
        "model.safetensors",
        _tensor(f"{FIRST}.output.dense.bias", lambda b: b * 0 + 3.4e38),
    ),
    "lowest-bias-before-gelu": (
        "albert",
        "model.safetensors",
        _tensor("albert.encoder.albert_layer_groups.1.albert_layers.1.ffn.bias", lambda bias: bias * 0 - 3.4e38),
    ),
    "embedding-beyond-float32": ("narrow", "model.safetensors", _tensor(WORDS, lambda words: words * 1e30)),
    "folded-value-bias": (
        "narrow",
        "model.safetensors",
        _tensor(f"{FIRST}.attention.self.value.bias", lambda b: b + 3.4e38),
    ),
    "huge-file-that-is-not-needed": ("narrow", "vocab.txt", _huge),
    "endless-weights": ("narrow", "model.safetensors", _instead(lambda path: path.symlink_to("/dev/zero"))),
}
