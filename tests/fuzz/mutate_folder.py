"""A copy of a checkpoint's folder with something wrong in it: (kind, seed) -> files and a description.

Kinds are named after what is changed. Any file can also be changed byte by byte (`bytes`) or be no file (`place`).
"""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mutate_safetensors
import mutate_settings
import mutate_tokenizer
import vary_settings
from checkpoints import GOLDENS, TOKENIZERS
from hostile import Random, render
from mutate_json import mutate
from numbert.loaders.source import EMBEDDED_FOLDER

SMALL = ["cased", "narrow", "old-names", "vocab-txt", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"]
SMALL += ["mpnet", "modernbert", "modernbert-mean", "modular"]
VARIED = ["deberta-v3", "deberta-v2", "deberta-v1", "albert", "nomic-bert", "gte", "gte-remote"]
VARIED += ["jina-reranker-v1", "jina-reranker-v2"]  # these also with other settings, and the tensors they promise
SMALL += VARIED
WITH_OTHERS_TOKENIZER = [f"narrow+{kind}" for kind in TOKENIZERS]
WITH_TOKENIZER_JSON = [*(name for name in SMALL if name != "vocab-txt"), *WITH_OTHERS_TOKENIZER]
ALL = [*SMALL, *WITH_OTHERS_TOKENIZER, "sharded-bfloat16", "odd-heads-float16", "byte-pairs", "tiny-reranker"]
INDEX = "model.safetensors.index.json"


class Spoiled(NamedTuple):
    """A folder that was changed."""

    folder: Path
    what: str


def spoil(kind: str, seed: int, parent: Path) -> Spoiled:
    """Make the folder of a case inside an empty folder."""
    rng = Random(f"{kind}:{seed}")
    name, what = KINDS[kind](rng, parent)
    return Spoiled(parent / name, f"{name}: {what}")


def copy_model(name: str, parent: Path) -> Path:
    """Copy a recorded checkpoint; one of these names has the tokenizer of another family.

    "byte-pairs" is roberta with vocab.json and merges.txt instead of tokenizer.json; "narrow+gemma" is narrow with a
    tokenizer that is recorded without a model.
    """
    model, _, kind = name.partition("+")
    source = {"tiny-reranker": EMBEDDED_FOLDER, "byte-pairs": GOLDENS / "roberta"}.get(model, GOLDENS / model)
    folder = parent / name
    unwanted = shutil.ignore_patterns("golden.json", "README.md", "LICENSE")
    shutil.copytree(source, folder, ignore=unwanted)
    if kind:
        shutil.copytree(GOLDENS / "tokenizers" / kind, folder, ignore=unwanted, dirs_exist_ok=True)
    if name == "byte-pairs":
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]))
    return folder


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read(path: Path) -> object:
    return json.loads(path.read_text())


def _config(rng: Random, parent: Path) -> tuple[str, str]:
    folder = copy_model(rng.choice(SMALL), parent)
    path = folder / "config.json"
    if rng.random() < 0.5:
        tree, what = mutate_settings.configuration(_read(path), rng)
    else:
        tree, what = mutate(_read(path), rng, _read(GOLDENS / rng.choice(SMALL) / "config.json"))
    path.write_bytes(render(tree))
    return folder.name, what


def _settings(rng: Random, parent: Path) -> tuple[str, str]:
    folder = copy_model(rng.choice(VARIED), parent)
    return folder.name, vary_settings.vary(folder, rng)


def _tokenizer(rng: Random, parent: Path) -> tuple[str, str]:
    folder = copy_model(rng.choice(WITH_TOKENIZER_JSON), parent)
    path = folder / "tokenizer.json"
    if rng.random() < 0.7:
        tree, what = mutate_tokenizer.structure(_read(path), rng)
    else:
        model, _, kind = rng.choice(WITH_TOKENIZER_JSON).partition("+")
        donor = GOLDENS / "tokenizers" / kind if kind else GOLDENS / model
        tree, what = mutate(_read(path), rng, _read(donor / "tokenizer.json"))
    path.write_bytes(render(tree))
    return folder.name, what


def _tokenizer_config(rng: Random, parent: Path) -> tuple[str, str]:
    """Also special_tokens_map.json, which holds the same special tokens."""
    folder = copy_model(rng.choice([*SMALL, *WITH_OTHERS_TOKENIZER, "byte-pairs", "vocab-txt", "vocab-txt"]), parent)
    path = folder / "tokenizer_config.json"
    tree, what = mutate(_read(path), rng, _read(GOLDENS / rng.choice(SMALL) / "tokenizer_config.json"))
    if rng.random() < 0.2:
        path = folder / "special_tokens_map.json"
    path.write_bytes(render(tree))
    return folder.name, f"{path.name}: {what}"


def _words(rng: Random, parent: Path) -> tuple[str, str]:
    """vocab.txt, or vocab.json and merges.txt."""
    folder = copy_model(rng.choice(["vocab-txt", "byte-pairs"]), parent)
    path = folder / ("vocab.txt" if folder.name == "vocab-txt" else rng.choice(["vocab.json", "merges.txt"]))
    if path.suffix == ".json":
        tree, what = mutate(_read(path), rng, None)
        path.write_bytes(render(tree))
    else:
        content, what = mutate_tokenizer.lines(path.read_text("utf-8"), rng)
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
    return folder.name, f"{path.name}: {what}"


def _chain(rng: Random, parent: Path) -> tuple[str, str]:
    """The files of sentence-transformers."""
    if rng.random() < 0.7:
        return _modules(rng, parent)
    folder = copy_model(rng.choice(SMALL), parent)
    makers = {"modules.json": mutate_settings.modules, "sentence_bert_config.json": mutate_settings.sentence_bert}
    makers["config_sentence_transformers.json"] = mutate_settings.sentence_transformers
    trees = {name: makers[name](rng) for name in rng.sample(sorted(makers), rng.choice([1, 1, 2, 3]))}
    for name, tree in trees.items():
        (folder / name).write_bytes(render(tree))
    return folder.name, f"{trees!r:.400}"


def _modules(rng: Random, parent: Path) -> tuple[str, str]:
    """The chain of a model that has one, and what is in the folders of its modules."""
    folder = copy_model("modular", parent)
    what = mutate_settings.chain(folder, rng)
    return folder.name, what


def _weights(rng: Random, parent: Path) -> tuple[str, str]:
    folder = copy_model(rng.choice([*SMALL, "sharded-bfloat16", "odd-heads-float16"]), parent)
    path = rng.choice(sorted(folder.rglob("*.safetensors")))
    content, what = mutate_safetensors.file(path.read_bytes(), rng)
    path.write_bytes(content)
    return folder.name, f"{path.name}: {what}"


def _index(rng: Random, parent: Path) -> tuple[str, str]:
    folder = copy_model("sharded-bfloat16", parent)
    path = folder / INDEX
    tree = _read(path)
    names = sorted(set(tree["weight_map"].values()))
    if rng.random() < 0.4:
        tree, what = mutate(tree, rng, {"weight_map": {}})
    else:
        tensor = rng.choice(list(tree["weight_map"]))
        outside = [
            "../sharded-bfloat16/" + names[0],
            str(folder / names[0]),
            "..",
            "",
            ".",
            "config.json",
            "./" + names[0],
        ]
        new = rng.choice(
            [*names, *outside, *outside, names[0] + "/", names[0] + "\x00", names[0].upper(), "\ud800.safetensors"]
        )
        tree["weight_map"][tensor] = new
        what = f"{tensor} is in {new!r}"
    path.write_bytes(render(tree))
    return folder.name, what


def _bytes(rng: Random, parent: Path) -> tuple[str, str]:
    """Flip bits, cut, insert, repeat, or zero a piece of any file."""
    folder = copy_model(rng.choice([*SMALL * 3, *ALL]), parent)
    path = rng.choice(_files(folder))
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content)) if rng.random() < 0.5 else rng.randrange(min(len(content), 200))
    size = rng.choice([1, 2, 16, 1000])
    change = rng.choice(["flip", "flip", "cut", "insert", "repeat", "zero", "remove"])
    if change == "flip":
        for _ in range(rng.choice([1, 1, 2, 8])):
            content[at] ^= 1 << rng.randrange(8)
            at = rng.randrange(len(content))
    elif change == "cut":
        del content[at:]
    elif change == "insert":
        content[at:at] = rng.randbytes(size)
    elif change == "repeat":
        content[at:at] = content[at : at + size]
    elif change == "zero":
        content[at : at + size] = bytes(size)
    else:
        del content[at : at + size]
    path.write_bytes(content)
    return folder.name, f"{path.name}: {change} at {at}"


def _place(rng: Random, parent: Path) -> tuple[str, str]:
    """Put something in a file's place that is no such file."""
    folder = copy_model(rng.choice([*SMALL, "sharded-bfloat16", "byte-pairs"]), parent)
    absent = [
        "modules.json",
        "config_sentence_transformers.json",
        INDEX,
        "special_tokens_map.json",
        "vocab.txt",
        "merges.txt",
    ]
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    path = rng.choice([*_files(folder) * 2, *folders, *(folder / name for name in absent)])
    change = rng.choice(list(PLACES))
    target = shutil.move(path, parent / "moved") if path.exists() else None
    PLACES[change](path, target, rng)
    return folder.name, f"{path.name} is {change}"


def _other_family(path: Path, target: str | None, rng: Random) -> None:
    source = GOLDENS / rng.choice(SMALL) / path.name
    if source.is_file():
        shutil.copyfile(source, path)


def _socket(path: Path, target: str | None, rng: Random) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):  # the path may be too long for one
        server.bind(str(path))


def _sparse(path: Path, target: str | None, rng: Random) -> None:
    if target and not os.path.isdir(target):
        shutil.copyfile(target, path)
    with path.open("ab") as stream:
        stream.truncate(rng.choice([2**26 + 1, 2**33, 2**40]))


def _back(path: Path, target: str | None, rng: Random) -> None:
    if target:
        path.symlink_to(target)


def _odd_name(path: Path, target: str | None, rng: Random) -> None:
    """Give the file back, and put files of odd names beside it."""
    if target:
        shutil.move(target, path)
    for name in (b"\xff\xfe.bin", b"model-9-of-9.safetensors", b"pytorch_model.bin", "\u202e\n.json".encode()):
        with contextlib.suppress(OSError):  # not every file system takes every name
            Path(os.fsdecode(os.fsencode(path.parent) + b"/" + name)).write_bytes(b"\x80\x04.")


def _device(name: str) -> Callable[[Path, str | None, Random], None]:
    return lambda path, target, rng: path.symlink_to(name)


PLACES: dict[str, Callable[[Path, str | None, Random], object]] = {
    "missing": lambda path, target, rng: None,
    "empty": lambda path, target, rng: path.write_bytes(b""),
    "a folder": lambda path, target, rng: path.mkdir(),
    "a pipe": lambda path, target, rng: os.mkfifo(path),
    "a socket": _socket,
    "a link to itself": lambda path, target, rng: path.symlink_to(path.name),
    "a link to nothing": lambda path, target, rng: path.symlink_to("nothing"),
    "a link out of the folder": _back,
    "that of another family": _other_family,
    "sparse and huge": _sparse,
    "beside odd names": _odd_name,
    "a web page": lambda path, target, rng: path.write_bytes(b"<!DOCTYPE html><html>" + b" " * rng.choice([0, 10**6])),
    "a Git LFS pointer": lambda path, target, rng: path.write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid x"
    ),
    "random bytes": lambda path, target, rng: path.write_bytes(rng.randbytes(rng.choice([7, 8, 9, 1000]))),
    **{name: _device(name) for name in ("/dev/zero", "/dev/null", "/dev/urandom", "/proc/self/mem", "/proc/self/maps")},
}
KINDS: dict[str, Callable[[Random, Path], tuple[str, str]]] = {
    "config": _config, "settings": _settings, "tokenizer": _tokenizer, "tokenizer_config": _tokenizer_config,
    "words": _words, "modules": _chain,
    "weights": _weights, "index": _index, "bytes": _bytes, "place": _place,
}  # fmt: skip
