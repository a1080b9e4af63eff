"""How kernels are compiled and where the machine code is kept: the one file that owns this policy.

Numba's own cache (``cache=True``) misses a change in another file that a kernel calls, raises when its directory is
read-only or an entry is corrupt, and consists of pickles, which run code when read. So:

- the cache directory is private to the user and named after the content of all kernel sources, so that new sources
  never meet old machine code;
- whatever goes wrong with the cache, the kernel is compiled again and one line is logged;
- ``NUMBERT_CACHE_DIR`` names another directory, ``NUMBERT_CACHE_DIR=off`` keeps everything in memory.
"""

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic as numba_intrinsic

from .isa import ISA

logger = logging.getLogger("numbert.jit")
F = TypeVar("F", bound=Callable[..., Any])


if hasattr(os, "register_at_fork"):
    # A process forked while another thread compiles would inherit Numba's lock in the hands of a thread that it lacks.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def kernel(function: F) -> F:
    """Compile a function when it is first called; it runs without the GIL and is kept in the cache of this file.

    Kernels raise nothing and check nothing: what they are given has been validated. No fastmath flag is set, so that
    sums keep the order in which they are written and NaN stays NaN.
    """
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    if CACHE_DIRECTORY is not None:
        dispatcher._cache = _KernelCache(function)
    return dispatcher


def inlined(function: F) -> F:
    """Compile a small function into each kernel that calls it; it has no machine code and no cache entry of its own."""
    return njit(inline="always", error_model="numpy")(function)


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare a function that emits LLVM instructions; constant arguments arrive as literals."""
    return numba_intrinsic(prefer_literal=True)(function)


def source_digest() -> str:
    """Digest of everything that the machine code depends on, apart from what Numba's own key covers (CPU, version)."""
    digest = hashlib.sha256(f"{ISA} {llvmlite.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def private_directory() -> Path | None:
    """Find or make the cache directory; None when there is no safe place, and kernels then live in memory only."""
    chosen = os.environ.get("NUMBERT_CACHE_DIR")
    if chosen == "off":
        return None
    user = os.getuid() if hasattr(os, "getuid") else "user"
    home_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    candidates = [chosen] if chosen else [f"{home_cache}/numbert", f"{tempfile.gettempdir()}/numbert-{user}"]
    for candidate in candidates:
        directory = Path(candidate) / source_digest()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            logger.info("kernel cache: cannot make %s: %s", directory, error)
            continue
        if all(_only_we_can_write(path) for path in (directory, directory.parent)):
            return directory
        logger.warning(
            "kernel cache: %s can be written by other users and is not used; set NUMBERT_CACHE_DIR", directory
        )
    return None


def _only_we_can_write(directory: Path) -> bool:
    if not hasattr(os, "getuid"):
        return True  # Windows: the user's profile is private by its access lists
    status = directory.stat()
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


class _KernelLocator(_CacheLocator):
    """Tells Numba's cache to use our directory; its name already stands for the sources, so the stamp is constant."""

    _py_file = __file__  # named by Numba in a warning

    def __init__(self, function: Callable[..., Any]) -> None:
        self._disambiguator = function.__module__.rpartition(".")[2]

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_KernelLocator":
        return cls(py_func)

    def get_cache_path(self) -> str:
        return str(CACHE_DIRECTORY)

    def get_source_stamp(self) -> str:
        return "sources are in the directory's name"

    def get_disambiguator(self) -> str:
        return self._disambiguator


class _KernelCacheImpl(CompileResultCacheImpl):
    _locator_classes = (_KernelLocator,)


class _KernelCache(FunctionCache):
    """A cache that cannot fail: any error means compile again, and is logged once per process."""

    _impl_class = _KernelCacheImpl
    _reported = False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever a damaged pickle or object file raises
            self._report("read", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full or read-only disk, or an index that cannot be read
            self._report("written", error)

    def _report(self, action: str, error: Exception) -> None:
        if not _KernelCache._reported:
            _KernelCache._reported = True
            logger.warning(
                "kernel cache %s cannot be %s (%s: %s); compiling in memory. Delete it or set NUMBERT_CACHE_DIR",
                CACHE_DIRECTORY, action, type(error).__name__, error,
            )  # fmt: skip


CACHE_DIRECTORY = private_directory()
