"""Cases that were wrong once, by name: they are run first, and do not change when the mutations do."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import render
from mutate_folder import Spoiled, copy_model

Tree = dict[str, Any]


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


def _first_text_twice(tree: Tree) -> None:
    pair = tree["post_processor"]["pair"]
    pair.insert(1, pair[1])


def _modules(*names: str) -> Callable[[Path], object]:
    chain = [{"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.models.{n}"} for i, n in enumerate(names)]
    return lambda path: path.write_text(json.dumps(chain))


CASES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "sound": ("narrow", "config.json", lambda path: None),
    "further-dense": ("narrow", "modules.json", _modules("Transformer", "Dense")),
    "no-transformer": ("narrow", "modules.json", _modules("Pooling")),
    "text-doubled-33-times": ("narrow", "tokenizer.json", _doubling(33)),
    "text-doubled-12-times": ("narrow", "tokenizer.json", _doubling(12)),
    "dropout": ("roberta", "tokenizer.json", _with("model", "dropout", value=0.5)),
    "first-text-twice": ("narrow", "tokenizer.json", _edit(_first_text_twice)),
    "labels-contradict": ("roberta", "config.json", _with("num_labels", value=1)),
    "512-buckets": ("mpnet", "config.json", _with("relative_attention_num_buckets", value=512)),
    "integer-of-5000-digits": ("narrow", "config.json", _with("hidden_size", value="\x01RAW:" + "1" * 5000)),
    "nested-200000-times": ("narrow", "config.json", _with("x", value="\x01RAW:" + "[" * 200_000)),
    "pipe-for-modules": ("narrow", "modules.json", _instead(os.mkfifo)),
    "endless-weights": ("narrow", "model.safetensors", _instead(lambda path: path.symlink_to("/dev/zero"))),
}
