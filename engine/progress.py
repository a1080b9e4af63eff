"""How far a long computation is: a bar on a terminal, now and then a line in a file."""

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

Update: TypeAlias = Callable[[int], object]
SECONDS = 10.0  # between two lines; shorter jobs write none


@contextlib.contextmanager
def show_bar(total: int) -> Iterator[Update]:
    """Give a function that is told how many more pairs are done, and draws a bar on stderr."""
    try:
        tqdm = importlib.import_module("huggingface_hub.utils").tqdm  # here, because it is slow to import
    except ImportError:  # a frozen model does without
        with show_lines(total) as update:
            yield update
        return
    with tqdm(total=total, desc="Pairs", unit="pair") as bar:
        yield bar.update


@contextlib.contextmanager
def show_lines(total: int, clock: Callable[[], float] = time.monotonic) -> Iterator[Update]:
    """Do as `show_bar`, with a plain line on stderr when `SECONDS` have passed since the last one."""
    begin = last = clock()
    done = 0

    def update(count: int) -> None:
        nonlocal last, done
        done += count
        now = clock()
        if now - last >= SECONDS:
            last = now
            rate = done / (now - begin)
            print(f"numbert: {done:,} of {total:,} pairs, {rate:.3g} pairs/s", file=sys.stderr, flush=True)

    yield update
