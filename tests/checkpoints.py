"""What several test files need: the recorded checkpoints, and copies of them with a mistake inside."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hostile_pairs import DIGEST, PAIRS, digest, make_pairs
from numbert.engine.tokenization import lay_out, tokenize
from numbert.loaders.source import EMBEDDED_FOLDER
from numbert.loaders.spec import ModelSpec
from numbert.loaders.tokenizer import PairTokenizer
from safetensors import safe_open
from safetensors.numpy import save_file
from tokenizers_of_families import added_tokens

GOLDENS = Path(__file__).parent / "goldens"
FAMILIES = ["roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet", "modernbert", "modernbert-mean"]
FAMILIES += ["deberta-v3", "deberta-v2", "deberta-v1", "albert", "nomic-bert", "gte"]
NAMES = ["cased", "narrow", "odd-heads-float16", "old-names", "sharded-bfloat16", "vocab-txt", "tiny-reranker"]
REMOTE = ["jina-reranker-v1", "jina-reranker-v2", "gte-remote"]  # recorded by record_remote.py; not in transformers
NAMES += [*FAMILIES, *REMOTE, "modular"]
TOKENIZERS = ["modernbert", "gemma"]  # recorded without a model
TOKENIZER_LENGTHS = (16, 64)
Tensors = dict[str, np.ndarray]


class Golden(NamedTuple):
    """A checkpoint, and what transformers makes of `hostile_pairs.PAIRS` with it."""

    folder: Path
    ids: list[list[int]]
    type_ids: list[list[int]]
    logits: np.ndarray  # (N, labels)


def load_golden(name: str) -> Golden:
    """Read what record_goldens.py wrote."""
    embedded = name == "tiny-reranker"
    folder = EMBEDDED_FOLDER if embedded else GOLDENS / name
    content = json.loads((GOLDENS / f"{name}.json" if embedded else folder / "golden.json").read_text())
    assert content["pairs"] == DIGEST, "the pairs have changed: run record_goldens.py"
    rows = content["rows"]
    assert len(rows) == len(PAIRS)
    return Golden(
        folder,
        [[int(token) for token in row["ids"].split()] for row in rows],
        [[0] * row["types"][0] + [1] * row["types"][1] for row in rows],
        np.array([row["logits"] for row in rows]),
    )


class GoldenTokens(NamedTuple):
    """A tokenizer, and what transformers makes of the pairs that are hostile to it."""

    folder: Path
    pairs: list[tuple[str, str]]
    ids: dict[int, list[list[int]]]  # by the longest length


def hostile_to(folder: Path) -> list[tuple[str, str]]:
    """Return some pairs that every tokenizer could get wrong, and some made of this one's added tokens."""
    return [*PAIRS[::9], *make_pairs(30, added_tokens(folder))]


def load_golden_tokens(kind: str) -> GoldenTokens:
    """Read what record_goldens.py wrote."""
    folder = GOLDENS / "tokenizers" / kind
    content, pairs = json.loads((folder / "golden.json").read_text()), hostile_to(folder)
    assert content["pairs"] == digest(pairs), "the pairs have changed: run record_goldens.py"
    ids = {
        int(length): [[int(token) for token in row.split()] for row in content["ids"][length]]
        for length in content["ids"]
    }
    return GoldenTokens(folder, pairs, ids)


def tokens_of(
    pairs: list[tuple[str, str]], tokenizer: PairTokenizer, spec: ModelSpec, max_length: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Return numbert's token ids and token type ids of each pair."""
    batch = lay_out(tokenize(pairs, tokenizer, max_length), tokenizer.template, spec)
    cuts = batch.offsets[1:-1]
    return [part.tolist() for part in np.split(batch.ids, cuts)], [
        part.tolist() for part in np.split(batch.type_ids, cuts)
    ]


def logits_of(model: Any, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Return numbert's logits, always (N, labels)."""
    return model.predict(pairs, activation_fn="identity").reshape(len(pairs), model.num_labels)


def copy_checkpoint(name: str, folder: Path) -> Path:
    """Copy a recorded checkpoint into a new folder that a test may spoil."""
    return Path(shutil.copytree(GOLDENS / name, folder / name, ignore=shutil.ignore_patterns("golden.json")))


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Let a function change the content of a JSON file, in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_tensors(path: Path, change: Callable[[Tensors], object]) -> None:
    """Let a function change the tensors of a safetensors file, in place."""
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    change(tensors)
    save_file(tensors, path)
