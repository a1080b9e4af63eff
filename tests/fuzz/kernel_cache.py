"""Damage kernel caches at random and score with each: the score is right, and nothing is raised, or ends by a signal.

    python tests/fuzz/kernel_cache.py --runs 300 --seed 1

Each run is a process on a damaged copy of a filled cache. A second process on the same copy must find nothing to
complain of, since what was damaged has been written anew; every tenth run is followed by one. A run is repeated by its
seed: --seed SEED --runs 1.
"""

# ruff: noqa: T201 - it prints what it finds
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SCORE = """
import logging
logging.basicConfig(format="%(message)s")
from numbert import CrossEncoder
print(CrossEncoder(num_threads=1).predict(("How many people?", "Seven people.")).tobytes().hex())
"""
MOST_DAMAGED = 2  # entries of a run: each is compiled again, which takes up to a second
PROGRESS = 20  # runs

Damage = Callable[[random.Random, Path, list[Path]], None]


def flip_bits(chance: random.Random, entry: Path, others: list[Path]) -> None:
    content = bytearray(entry.read_bytes())
    for _ in range(chance.choice((1, 1, 1, 8, 100))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    entry.write_bytes(content)


def cut(chance: random.Random, entry: Path, others: list[Path]) -> None:
    content = entry.read_bytes()
    entry.write_bytes(content[: chance.randrange(len(content))])


def lengthen(chance: random.Random, entry: Path, others: list[Path]) -> None:
    entry.write_bytes(entry.read_bytes() + chance.randbytes(chance.randint(1, 100)))


def empty(chance: random.Random, entry: Path, others: list[Path]) -> None:
    entry.write_bytes(b"")


def fill_with_noise(chance: random.Random, entry: Path, others: list[Path]) -> None:
    entry.write_bytes(chance.randbytes(chance.randint(1, 100_000)))


def remove(chance: random.Random, entry: Path, others: list[Path]) -> None:
    entry.unlink()


def swap(chance: random.Random, entry: Path, others: list[Path]) -> None:
    other = chance.choice(others)
    first, second = entry.read_bytes(), other.read_bytes()
    entry.write_bytes(second)
    other.write_bytes(first)


def put_another_in_its_place(chance: random.Random, entry: Path, others: list[Path]) -> None:
    shutil.copy(chance.choice(others), entry)


def put_a_directory_in_its_place(chance: random.Random, entry: Path, others: list[Path]) -> None:
    entry.unlink()
    entry.mkdir()


def splice(chance: random.Random, entry: Path, others: list[Path]) -> None:
    """Join the beginning of one entry and the end of another."""
    first, second = entry.read_bytes(), chance.choice(others).read_bytes()
    entry.write_bytes(first[: chance.randrange(len(first))] + second[chance.randrange(len(second)) :])


KINDS: tuple[Damage, ...] = (
    flip_bits, flip_bits, cut, lengthen, empty, fill_with_noise, remove, swap, put_another_in_its_place,
    put_a_directory_in_its_place, splice,
)  # fmt: skip


def score(cache: Path) -> tuple[str, str]:
    """Score in a new process; return the bits, and what was logged. A strange end is a failure's text."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", SCORE],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "NUMBERT_CACHE_DIR": str(cache)},
    )  # fmt: skip
    if result.returncode:
        return f"code {result.returncode}", result.stderr[-2000:]
    return result.stdout.strip(), result.stderr


def run(seed: int, filled: Path, expected: str, check_repair: bool) -> tuple[str, str | None]:
    """Damage a copy and score with it; return the kind of damage, and what went wrong."""
    chance = random.Random(seed)
    damage = chance.choice(KINDS)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "cache")
        shutil.copytree(filled, copy)
        entries = sorted(copy.glob("*/*.kernel"))
        for entry in chance.sample(entries, chance.randint(1, MOST_DAMAGED)):
            damage(chance, entry, [other for other in entries if other != entry and other.is_file()])
        found, log = score(copy)
        if found != expected or len(log.splitlines()) > 1:
            return damage.__name__, f"found {found}, expected {expected}; log: {log}"
        if check_repair and damage is not put_a_directory_in_its_place:
            again, log = score(copy)
            if again != expected or log:
                return damage.__name__, f"afterwards: found {again}, expected {expected}; log: {log}"
    return damage.__name__, None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**9), help="of the first run; then one more each"
    )
    arguments = parser.parse_args()
    print(f"seeds {arguments.seed} to {arguments.seed + arguments.runs - 1}", flush=True)
    right, wrong = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        filled = Path(folder)
        expected, log = score(filled)
        assert not log, log
        for number in range(arguments.runs):
            seed = arguments.seed + number
            kind, failure = run(seed, filled, expected, check_repair=number % 10 == 0)
            (wrong if failure else right)[kind] += 1
            if failure:
                print(f"seed {seed}, {kind}: {failure}", flush=True)
            if (number + 1) % PROGRESS == 0:
                print(f"{right.total()} right, {wrong.total()} wrong", file=sys.stderr, flush=True)
    for kind in sorted({*right, *wrong}):
        print(f"{kind:30} {right[kind]:5} right {wrong[kind]:5} wrong")
    print(f"{'all':30} {right.total():5} right {wrong.total():5} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
