"""How kernels are compiled: the one file that owns this policy. Where machine code is kept is in cache.py."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

from numba import config, njit
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
    sums keep the order in which they are written and NaN stays NaN.
    """
    dispatcher = njit(nogil=True, error_model="numpy")(function)
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


def _is_kernel(dispatcher: Any) -> bool:
    """Return whether it is a kernel of this folder: others may use Numba in the same process."""
    return dispatcher.py_func.__module__.rpartition(".")[0] == __package__
