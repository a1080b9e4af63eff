"""How kernels are compiled: the one file that owns this policy. Where machine code is kept is in cache.py."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from numba import config, njit, types
from numba.core import event
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic as numba_intrinsic

from . import cache

F = TypeVar("F", bound=Callable[..., Any])

if config.DISABLE_JIT:
    raise ValueError(
        "NUMBA_DISABLE_JIT: found 1, expected 0, since kernels consist of machine instructions that Python lacks;"
        " unset it or use backend='reference'"
    )

if hasattr(os, "register_at_fork"):
    # A process forked while another thread compiles would inherit Numba's lock in the hands of a thread that it lacks.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def kernel(function: F) -> F:
    """Compile a function when it is first called; it runs without the GIL, and kernels of this folder are kept.

    Kernels raise nothing and check nothing: what they are given has been validated. No fastmath flag is set, so that
    sums keep the order in which they are written and NaN stays NaN. They allocate nothing either, and the caller holds
    the arrays: so no references to these are counted, which would cost as much as a narrow tile.
    """
    dispatcher = njit(nogil=True, error_model="numpy", _nrt=False)(function)
    # The cache's directory is named after the sources of this folder: a kernel elsewhere could change unseen.
    if cache.DIRECTORY is not None and _is_kernel(dispatcher):
        dispatcher._cache = cache.KernelCache(function, cache.DIRECTORY)
    return dispatcher


def inlined(function: F) -> F:
    """Compile a small function into each kernel that calls it; it has no machine code and no cache entry of its own."""
    return njit(inline="always", error_model="numpy")(function)


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare a function that emits LLVM instructions; constant arguments arrive as literals."""
    return numba_intrinsic(prefer_literal=True)(function)


def use_features(builder: Any, features: Collection[str]) -> None:
    """Let the function that is being emitted use these features of the processor, besides what Numba compiles for.

    A function with features that its caller lacks stays a function of its own.
    """
    of_numba = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    value = ",".join([*filter(None, [of_numba]), *(f"+{feature}" for feature in sorted(features))])
    # llvmlite checks names of attributes when they are added, and knows those without a value only.
    set.add(builder.function.attributes, f'"target-features"="{value}"')


def is_record(kind: type, numba_type: Any) -> bool:
    """Tell, while a kernel is compiled, whether it is given a record of this kind."""
    return isinstance(numba_type, types.BaseNamedTuple) and numba_type.instance_class is kind


class _Announcement(event.Listener):
    """Says once that kernels are being compiled, as soon as that has lasted longer than a second in all.

    Numba tells of each kernel under its compiler lock, so that one thread at a time is here, and no process is forked
    meanwhile. A kernel that calls others begins before them and ends after them.
    """

    PATIENCE = 1.0  # seconds of compiling

    def __init__(self) -> None:
        self._depth = 0
        self._begin = self._spent = 0.0
        self._timer: threading.Timer | None = None

    def on_start(self, event: Any) -> None:
        """Begin to count the time."""
        if _is_kernel(event.data["dispatcher"]):
            self._depth += 1
            if self._depth == 1 and self._spent < self.PATIENCE:
                self._begin = time.monotonic()
                self._timer = threading.Timer(self.PATIENCE - self._spent, _announce)
                with contextlib.suppress(RuntimeError):  # the system starts no thread: then nothing is said
                    self._timer.start()

    def on_end(self, event: Any) -> None:
        """Stop it; also after an error."""
        if _is_kernel(event.data["dispatcher"]):
            self._depth -= 1
            if self._depth == 0 and self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._spent += time.monotonic() - self._begin


def _is_kernel(dispatcher: Any) -> bool:
    """Return whether it is a kernel of this folder: others may use Numba in the same process."""
    return dispatcher.py_func.__module__.rpartition(".")[0] == __package__


def _announce() -> None:
    how_often = "once" if cache.DIRECTORY else "in each process, as there is no kernel cache"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr was closed meanwhile
        sys.stderr.write(f"numbert: compiling kernels for this processor, {how_often} (some seconds) ...\n")
        sys.stderr.flush()


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is no stderr, or it is closed
        return False


if _is_terminal(sys.stderr):
    event.register("numba:compile", _Announcement())
