"""What the benchmarks share: the pairs, the description of the machine, Markdown tables. Standard library only.

(A process that only starts others must stay small: on Linux a child's peak memory begins with that of its parent.)
"""

import argparse
import importlib.metadata
import platform
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from numbert.engine.cores import usable_cores
from numbert.engine.tools.machine import load_average, processor_name
from numbert.loaders.source import find_folder

Pairs = list[tuple[str, str]]

QUERIES = (
    "how do bees make honey",
    "why is the sea salty",
    "what does a lighthouse keeper do",
    "how is bread made to rise",
    "when do storks leave for the south",
    "who repairs old clocks",
    "how deep is a mountain lake",
    "what keeps a bridge from falling",
    "why do leaves turn red in autumn",
    "how was paper made in early times",
)
SENTENCES = (
    "The bees of one hive visit thousands of flowers before a single jar of honey is full.",
    "Rain takes a little salt out of the rocks, and rivers carry it down to the sea.",
    "The keeper of the lighthouse climbed the stairs every evening to light the lamp.",
    "Yeast eats the sugar in the flour and gives off gas, which makes the bread rise.",
    "In late summer the storks gather on the wet meadows and leave within a few days.",
    "An old clock needs clean wheels, a drop of oil, and somebody with patience.",
    "The lake is so deep that its water is cold even in the hottest month of the year.",
    "Each stone of the arch presses on the next, so the bridge holds itself up.",
    "When the days grow short, the green of the leaves fades and the red appears.",
    "Early paper was made of rags that were beaten in water, lifted on a screen, and dried.",
    "The train to the coast stops at eleven small stations and takes about two hours.",
    "A farmer who rotates crops gives the field time to recover.",
    "The museum shows tools, letters and coins that were found under the market square.",
    "Snow on the northern side of the hill often lies until the end of April.",
    "Two engineers measured the tower and found that it leans by four degrees.",
    "The school was built of brick in 1894 and has been enlarged three times since.",
    "A good map leaves out everything that its reader does not need.",
    "Cats sleep for most of the day because hunting at dawn costs them much strength.",
    "The council voted, by nine to six, to close the road to heavy trucks.",
    "Wool keeps warm even when it is wet, which cotton does not.",
    "The river floods the lower streets about once in ten years.",
    "Potatoes came to this valley late, and at first people grew them for their flowers.",
    "Most of the songs were never written down and are known from one recording.",
    "A glass lens bends light of different colours by different angles.",
    "The harbour freezes in cold winters, and the ferry then sails from the next town.",
    "Nobody knows who carved the door, but the wood is more than five hundred years old.",
    "Salt, pepper, an onion and a spoon of vinegar are all that this soup needs.",
    "The library lends books, tools and musical instruments to anyone who lives nearby.",
    "Wind turbines on the ridge supply a third of the electricity of the village.",
    "He wrote the report in one night and corrected it for a month.",
    "Iron rusts faster near the coast because the air there is wet and carries salt.",
    "The orchestra plays on the first Sunday of every month, and children enter free.",
)
LENGTHS = ("similar", "mixed", "long")
LONGEST_MIXED = 430  # words; with query and special tokens about 512 tokens
LONG = (850, 1700)  # words; about 1,000 to 2,000 tokens


class Setting(NamedTuple):
    """How an engine computes a job."""

    batch_size: int
    split: bool  # each thread computes batches of its own; else all threads work on one batch after the other

    def __str__(self) -> str:
        return f"{self.batch_size}{', a thread each' if self.split else ''}"


def make_pairs(count: int, words: int, lengths: str = "similar") -> Pairs:
    """Make distinct pairs of a question and a passage; the same at every call.

    Parameters
    ----------
    count : int
        Number of pairs.
    words : int
        Mean number of words of a passage, when lengths are similar: half of it up to one and a half times.
    lengths : {"similar", "mixed", "long"}
        "mixed" spreads the pairs evenly from about 10 to about 512 tokens, "long" from about 1,000 to about 2,000, in
        random order.
    """
    source = random.Random(20)
    if lengths != "similar":
        shortest, longest = (1, LONGEST_MIXED + 1) if lengths == "mixed" else LONG
        sizes = [shortest + round((longest - shortest) * i / max(count - 1, 1)) for i in range(count)]
        source.shuffle(sizes)
    else:
        sizes = [max(1, round(words * (0.5 + source.random()))) for _ in range(count)]
    return [(QUERIES[i % len(QUERIES)], _passage(size, source)) for i, size in enumerate(sizes)]


def _passage(size: int, source: random.Random) -> str:
    words: list[str] = []
    while len(words) < size:
        words += source.choice(SENTENCES).split()
    return " ".join(words[:size])


def spread(lengths: Sequence[int], count: int) -> list[int]:
    """Choose so many pairs that stand for all: evenly spaced in the order of lengths; one is the median."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return sorted(order[(2 * i + 1) * len(order) // (2 * count)] for i in range(count))


def model_folder(name: str | None) -> Path:
    """Return the folder of a model: a path, a hub id, or None for the one that comes with numbert."""
    return find_folder(name).resolve()


def positive(text: str) -> int:
    """Read a whole number from 1 on, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {value}, expected 1 or more")
    return value


def forget_own_folder() -> None:
    """Take the folder of the benchmarks off the path of imports.

    transformers imports a package called `kernels`, and must not find kernels.py of this folder.
    """
    own = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != own]


def machine_lines(packages: Sequence[str]) -> Iterator[str]:
    """Describe processor, cores, load and versions; packages that are not installed are left out."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    yield f"processor: {processor_name()} ({platform.machine()}, {platform.system()})"
    yield f"usable cores: {usable_cores()}"
    load = load_average()
    if load is not None:
        yield f"load average before start: {load:.2f} (above 0.3 others are at work: expect noise)"
    yield f"versions: Python {platform.python_version()}, " + ", ".join(f"{k} {v}" for k, v in versions.items())


def print_header(title: str, lines: Iterable[str]) -> None:
    """Print a title and a list of facts in Markdown."""
    print(f"## {title}\n")
    for line in lines:
        print(f"- {line}")
    print(flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table; the first column is text, the others are numbers."""
    print(f"| {' | '.join(columns)} |")
    print(f"|---|{'---:|' * (len(columns) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def progress(message: str) -> None:
    """Tell what is being done, on stderr."""
    print(message, file=sys.stderr, flush=True)
