"""Let the k-th call at a seam between numbert and the system fail.

A seam is a group of functions through which one kind of help comes: opening, reading, writing, memory, threads. `count`
tells how often each is called; `fault` lets one of these calls fail, or it and all that follow, as when a disk dies.
"""

import builtins
import contextlib
import errno
import io
import itertools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

Hook = Callable[[str], None]  # is told the seam before each call; may raise
MADE = ("empty", "zeros", "ones", "array", "asarray", "arange", "concatenate", "cumsum", "repeat", "tile", "where")
# Python's own function, below Thread.start, so that its cleaning up is part of what is tried.
START_THREAD = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
FUNCTIONS: dict[str, list[tuple[Any, str]]] = {
    "open": [(os, "open")],
    "read": [(os, "read"), (os, "preadv")],
    "write": [(os, "write"), (os, "sendfile")],
    "stat": [(os, "stat"), (os, "lstat"), (os, "fstat")],
    "list": [(os, "listdir"), (os, "scandir")],
    "make": [(os, "mkdir"), (os, "link")],
    "rename": [(os, "rename"), (os, "replace")],
    "remove": [(os, "unlink"), (os, "remove"), (os, "rmdir")],
    "times": [(os, "utime"), (os, "chmod")],
    "affinity": [(os, "sched_setaffinity"), (os, "sched_getaffinity")],
    "thread": [(threading, START_THREAD)],
    "allocation": [(np, name) for name in MADE],
}


def _system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


ERRORS: dict[str, Callable[[], BaseException]] = {
    **{
        name: lambda name=name: _system(getattr(errno, name)) for name in ("EACCES", "EIO", "EMFILE", "ENOSPC", "EPERM")
    },
    "memory": lambda: MemoryError("Unable to allocate 1.00 TiB"),
    "thread": lambda: RuntimeError("can't start new thread"),
}
ERRORS_OF = {
    "open": ("EMFILE", "EIO", "EACCES"),
    "read": ("EIO",),
    "write": ("ENOSPC", "EIO"),
    "stat": ("EIO", "EACCES"),
    "list": ("EIO", "EACCES"),
    "make": ("ENOSPC", "EPERM"),
    "rename": ("EIO", "EACCES"),
    "remove": ("EIO", "EACCES"),
    "times": ("EPERM",),
    "affinity": ("EPERM",),
    "thread": ("thread",),
    "allocation": ("memory",),
}


class Point(NamedTuple):
    """What fails."""

    seam: str
    number: int  # of the call, from 1
    error: str  # of ERRORS
    lasting: bool  # all later calls fail too

    def __str__(self) -> str:
        return f"{self.seam} {self.number} {self.error} {'lasting' if self.lasting else 'once'}"


@contextlib.contextmanager
def count() -> Iterator[Counter[str]]:
    """Count the calls at each seam."""
    calls = Counter[str]()
    lock = threading.Lock()

    def hook(seam: str) -> None:
        with lock:
            calls[seam] += 1

    with _hooked(hook):
        yield calls


@contextlib.contextmanager
def fault(point: Point) -> Iterator[None]:
    """Let what a point says fail."""
    numbers = itertools.count(1)

    def hook(seam: str) -> None:
        if seam == point.seam:
            number = next(numbers)
            if number == point.number or (point.lasting and number > point.number):
                raise ERRORS[point.error]()

    with _hooked(hook):
        yield


@contextlib.contextmanager
def _hooked(hook: Hook) -> Iterator[None]:
    replaced = []
    try:
        for seam, functions in FUNCTIONS.items():
            for module, name in functions:
                if hasattr(module, name):
                    replaced.append((module, name, getattr(module, name)))
                    setattr(module, name, _with_hook(getattr(module, name), seam, hook))
        for module in (io, builtins):
            replaced.append((module, "open", module.open))
            module.open = _opener(hook)
        for name, module in list(sys.modules.items()):
            if name in ("numbert.loaders.files", "numbert.loaders.safetensors"):
                module.bytearray = _with_hook(bytearray, "allocation", hook)
                replaced.append((module, "bytearray", None))
        yield
    finally:
        for module, name, function in replaced:
            if function is None:
                delattr(module, name)
            else:
                setattr(module, name, function)


def _with_hook(function: Callable[..., Any], seam: str, hook: Hook) -> Callable[..., Any]:
    def hooked(*arguments: Any, **named: Any) -> Any:
        # NumPy and Numba make many small arrays for themselves; those that numbert asks for are the large ones.
        if seam != "allocation" or sys._getframe(1).f_globals.get("__name__", "").startswith("numbert."):
            hook(seam)
        return function(*arguments, **named)

    return hooked


def _opener(hook: Hook) -> Callable[..., Any]:
    class File(io.FileIO):
        """Fails where the system would; what is above it (buffers, texts) is Python's own."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            hook("open")
            super().__init__(*arguments, **named)

        def read(self, size: int = -1) -> bytes | None:
            hook("read")
            return super().read(size)

        def readall(self) -> bytes | None:
            hook("read")
            return super().readall()

        def readinto(self, buffer: Any) -> int | None:
            hook("read")
            return super().readinto(buffer)

        def write(self, data: Any) -> int | None:
            hook("write")
            return super().write(data)

    def open_file(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        raw = File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
        buffered = kind(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    return open_file
