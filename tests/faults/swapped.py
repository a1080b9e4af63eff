"""Load a model again and again while another process replaces its files: each load gives one model's score, or refuses.

    python tests/faults/swapped.py --loads 300 --seed 1

Models A and B differ in configuration, tokenizer and weights, so that the score tells which of each was read. Where
whole models take each other's place at once, a mixture never lies on the disk. Where files are replaced one by one, a
folder is half of one and half of the other in between; a load may see that state if it lasts, so it is counted by
itself, and every other combination is a mixture.
"""

# ruff: noqa: T201 - it prints what it finds
import argparse
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numbert import CrossEncoder
from numbert.loaders.errors import NumbertError
from safetensors.numpy import load_file, save_file

SOURCE = Path(__file__).resolve().parent.parent / "goldens" / "narrow"
FILES = ("config.json", "tokenizer.json", "model.safetensors")  # in the order in which they are replaced
PAIR = ("How many people?", "Seven people live here.")
LONGEST_PAUSE = 0.1  # seconds


# ---- the process that writes


def rename(source: Path, place: Path) -> None:
    new = place.with_suffix(".new")
    shutil.copyfile(source, new)
    os.replace(new, place)


def rename_link(source: Path, place: Path) -> None:
    """Let a file come back that was there before: neither its number nor its time of writing is another."""
    new = place.with_suffix(".new")
    new.unlink(missing_ok=True)
    os.link(source, new)
    os.replace(new, place)


def overwrite(source: Path, place: Path) -> None:
    content = source.read_bytes()
    with place.open("r+b") as file:
        file.write(content)
        file.truncate()


def swap_folder_link(source: Path, place: Path) -> None:
    new = place.with_suffix(".new")
    new.symlink_to(source)
    os.replace(new, place)


def swap_folder(source: Path, place: Path) -> None:
    """Move the folder out of its place and another one there."""
    other = place.with_suffix(f".{'b' if source.name == 'a' else 'a'}")
    os.replace(place, other)
    os.replace(place.with_suffix(f".{source.name}"), place)


ONE_BY_ONE = {"rename": rename, "rename a link": rename_link, "overwrite": overwrite}
WAYS = {
    **{f"all files: {name}": (FILES, way) for name, way in ONE_BY_ONE.items()},
    **{f"weights: {name}": (FILES[2:], way) for name, way in ONE_BY_ONE.items()},
    "folder: another link": ((), swap_folder_link),
    "folder: rename": ((), swap_folder),
}


def write(name: str, pauses: bool, home: Path, seed: int) -> None:
    """Put B in the place of A and A in the place of B until the process is ended."""
    chance = random.Random(seed)
    files, way = WAYS[name]
    for number, source in enumerate(itertools.cycle((home / "b", home / "a"))):
        if files:
            for file in files:
                way(source / file, home / "model" / file)
        else:
            way(source, home / "model")
        if number == 1:
            print("has begun", flush=True)
        if pauses:
            time.sleep(chance.uniform(0, LONGEST_PAUSE))


# ---- the process that loads


def make_models(home: Path) -> None:
    """Make A, and of it B: other words have the ids, and numbers of the configuration and the weights are others."""
    for name in "ab":
        shutil.copytree(SOURCE, home / name, ignore=shutil.ignore_patterns("golden.json"))
    config = json.loads((home / "b" / "config.json").read_text())
    config["layer_norm_eps"] = 5e-3
    (home / "b" / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((home / "b" / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    words = [word for word in vocabulary if word not in special]
    ids = [vocabulary[word] for word in words]
    vocabulary.update(zip(words, ids[1:] + ids[:1], strict=True))
    (home / "b" / "tokenizer.json").write_text(json.dumps(tokenizer))
    weights = {key: tensor * np.float32(-0.75) for key, tensor in load_file(home / "b" / FILES[2]).items()}
    save_file(weights, home / "b" / FILES[2])


def score(folder: Path) -> bytes:
    return CrossEncoder(folder, num_threads=1).predict(PAIR, activation_fn="identity").tobytes()


def known_scores(home: Path) -> dict[bytes, str]:
    """Return what each combination of files scores, by the bits: AAA is A, BAA is A with B's configuration."""
    scores = {}
    for combination in itertools.product("ab", repeat=len(FILES)):
        folder = home / "combination"
        shutil.copytree(home / "a", folder)
        for file, model in zip(FILES, combination, strict=True):
            shutil.copyfile(home / model / file, folder / file)
        scores[score(folder)] = "".join(combination).upper()
        shutil.rmtree(folder)
    assert len(scores) == 2 ** len(FILES), "two combinations have the same score: a mixture would not be seen"
    return scores


def prepare(home: Path, name: str) -> None:
    """Put A in the place where models are loaded from."""
    if name == "folder: another link":
        (home / "model").symlink_to(home / "a")
    else:
        shutil.copytree(home / "a", home / "model")
    if name == "folder: rename":
        shutil.copytree(home / "b", home / "model.b")


def classify(name: str, found: str) -> str:
    files, _ = WAYS[name]
    if found in (("AAA", "AAB") if len(files) == 1 else ("AAA", "BBB")):
        return "right"
    on_disk = ("BAA", "BBA", "ABB", "AAB") if len(files) == len(FILES) else ()
    return "half replaced" if found in on_disk else "mixture"


def run(name: str, pauses: bool, loads: int, seed: int) -> Counter[str]:
    """Load while the other process writes; count what came of it."""
    ends = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_models(home)
        scores = known_scores(home)
        prepare(home, name)
        command = [sys.executable, __file__, "--write", name, "--home", folder, "--seed", str(seed)]
        writer = subprocess.Popen([*command, "--pauses"] if pauses else command, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()  # that it has begun
        try:
            for number in range(loads):
                try:
                    found = scores.get(score(home / "model"), "of no combination")
                except NumbertError as error:
                    ends[type(error).__name__] += 1
                    continue
                end = classify(name, found)
                ends[end] += 1
                if end != "right":
                    print(f"    load {number}: {end}: {found}", flush=True)
                assert writer.poll() is None, "the process that writes has ended"
        finally:
            writer.kill()
            writer.communicate()
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loads", type=int, default=300, help="in all")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--way", choices=list(WAYS), action="append", help="only this one")
    parser.add_argument("--write", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--pauses", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write, arguments.pauses, arguments.home, arguments.seed)
    total = Counter[str]()
    print(f"seed {arguments.seed}")
    ways = [(name, pauses) for name in arguments.way or WAYS for pauses in (False, True)]
    for number, (name, pauses) in enumerate(ways):
        loads = arguments.loads * (number + 1) // len(ways) - arguments.loads * number // len(ways)
        ends = run(name, pauses, loads, arguments.seed)
        print(f"{name + (', with pauses' if pauses else ''):40} {dict(ends.most_common())}", flush=True)
        total += ends
    print(f"{'all':40} {total.total()} loads: {dict(total.most_common())}")
    sys.exit(bool(total["mixture"]))


if __name__ == "__main__":
    main()
