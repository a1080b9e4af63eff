"""Where the machine code of kernels is kept between processes, and how it is proven before it is used.

Numba's own cache (``cache=True``) misses a change in another file that a kernel calls, raises when its directory is
read-only, and unpickles whatever lies there, which runs code and maps machine code. So:

- the directory is private to the user and named after the content of all kernel sources, so that new sources never
  meet old machine code; those of sources that nobody has used for a month are removed;
- an entry is one file, for one signature of one kernel on one processor. It begins with a checksum of what it is for
  and of what it holds: one that is cut, changed, or another's in its place is not unpickled;
- whatever goes wrong with the cache, the kernel is compiled again, one line is logged, and the entry is written anew;
- ``NUMBERT_CACHE_DIR`` names another directory, ``NUMBERT_CACHE_DIR=off`` keeps everything in memory.
"""

import contextlib
import hashlib
import logging
import os
import pickle
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from .isa import ISA

logger = logging.getLogger("numbert.jit")
SUFFIX = ".kernel"
CHECKSUM = hashlib.sha256
CHECKSUM_SIZE = CHECKSUM().digest_size
DAY = 24 * 60 * 60  # seconds
UNUSED_DAYS = 30


# ---- the directory


def source_digest() -> str:
    """Digest of everything that the machine code depends on, apart from what an entry's own identity covers."""
    digest = hashlib.sha256(f"{ISA} {llvmlite.__version__}".encode())
    folder = Path(__file__).parent
    for name in sorted(os.listdir(folder)):  # unlike glob, it does not pass over a folder that it cannot read
        if name.endswith(".py"):
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:24]


def private_directory() -> Path | None:
    """Find or make the cache directory; None when there is no safe place, and kernels then live in memory only."""
    if os.environ.get("NUMBERT_CACHE_DIR") == "off":
        return None
    try:
        digest = source_digest()
    except OSError as error:
        logger.warning("kernel cache: cannot read the sources of kernels: %s; compiling in memory", error)
        return None
    for candidate in _candidates():
        directory = candidate / digest
        try:
            is_new = _make_private(directory)
            directory = directory.resolve()  # by now without links, which others could let lead elsewhere
            unsafe = _find_unsafe(directory)
        except OSError as error:
            logger.info("kernel cache: cannot make %s: %s", directory, error)
            continue
        if unsafe is None:
            _note_use(directory, is_new)
            return directory
        logger.warning(
            "kernel cache: %s is not used, since %s can be written by other users; set NUMBERT_CACHE_DIR",
            directory, unsafe,
        )  # fmt: skip
    return None


def _candidates() -> Iterator[Path]:
    """Yield the places to try. All are absolute: one below the working directory would be found by chance."""
    chosen = os.environ.get("NUMBERT_CACHE_DIR")
    if chosen:
        if os.path.isabs(chosen):
            yield Path(chosen)
        else:
            logger.warning(
                "kernel cache: NUMBERT_CACHE_DIR: found %r, expected an absolute path; compiling in memory", chosen
            )
        return
    shared = os.environ.get("XDG_CACHE_HOME", "")  # its specification says that a relative one is to be ignored
    home_cache = shared if os.path.isabs(shared) else os.path.expanduser("~/.cache")
    if os.path.isabs(home_cache):  # without HOME and an entry in passwd, ~ stays what it is
        yield Path(home_cache) / "numbert"
    with contextlib.suppress(OSError):  # where no directory can be written
        temporary = tempfile.gettempdir()
        if not _is_last_resort(temporary):
            user = os.getuid() if hasattr(os, "getuid") else "user"
            yield Path(temporary) / f"numbert-{user}"


def _is_last_resort(temporary: str) -> bool:
    """Tell whether a directory for temporary files is only the working directory, for want of any other."""
    named = {os.path.abspath(os.environ[name]) for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)}
    return os.path.samefile(temporary, os.curdir) and temporary not in named | {"/tmp", "/var/tmp", "/usr/tmp"}


def _make_private(directory: Path) -> bool:
    """Make the directory where it is missing, and return whether it was."""
    for path in reversed([path for path in directory.parents if not path.exists()]):
        path.mkdir(mode=0o700, exist_ok=True)  # parents=True would leave the mode of those above to the umask
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not directory.is_dir():
            raise
        return False
    return True


def _find_unsafe(directory: Path) -> Path | None:
    """Return the directory, or the first above it, in which others can write; None where there is none.

    Whoever can write in one further above can put another in the place of the next, unless its sticky bit leaves that
    to the next one's owner, as in /tmp.
    """
    if not hasattr(os, "getuid"):
        return None  # Windows: the user's profile is private by its access lists
    for path in (directory, *directory.parents):
        status = path.stat()
        is_sticky = status.st_mode & stat.S_ISVTX and path not in (directory, directory.parent)
        others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_sticky
        if others_write or status.st_uid not in (os.getuid(), 0):
            return path
    return None


def _note_use(directory: Path, is_new: bool) -> None:
    """Give the directory today's date and remove those of other sources, at most once a day."""
    with contextlib.suppress(OSError):  # read-only, or another process does the same
        if is_new or directory.stat().st_mtime < time.time() - DAY:
            os.utime(directory)
            for other in directory.parent.iterdir():
                if re.fullmatch("[0-9a-f]{24}", other.name):
                    _remove_unused(other)


def _remove_unused(directory: Path) -> None:
    """Remove entries, and the directory if it holds nothing else; who uses it after all compiles again."""
    with contextlib.suppress(OSError):
        status = directory.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())
        if is_ours and status.st_mtime < time.time() - UNUSED_DAYS * DAY:
            for entry in directory.glob(f"*{SUFFIX}"):
                entry.unlink()
            directory.rmdir()


# ---- the entries


class KernelCache(NullCache):
    """What a dispatcher of Numba asks for machine code, and gives it to. It cannot fail.

    Parameters
    ----------
    function : callable
        A kernel; its source is one of those that the directory is named after.
    directory : Path
    """

    _reported = False

    def __init__(self, function: Callable[..., Any], directory: Path) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._directory = directory

    @property
    def cache_path(self) -> str:
        """The directory, for Numba's statistics."""
        return str(self._directory)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled kernel for a signature, or None where it must be compiled."""
        try:
            target_context.refresh()  # as Numba's cache does, so that it is complete
            identity = self._identity(sig, target_context.codegen())
            payload = _read(self._path(identity), identity)
            return CompileResult._rebuild(target_context, *pickle.loads(payload))
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a file system raises, or a library that rejects what it once made
            self._report("read", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel for the next process."""
        if data.library.has_dynamic_globals:  # it holds addresses of this process
            return
        try:
            identity = self._identity(sig, data.codegen)
            _write(self._path(identity), identity, dumps(data._reduce()))
        except Exception as error:  # a full or read-only disk
            self._report("written", error)

    def _identity(self, sig: Any, codegen: Any) -> bytes:
        """Name what an entry is for: the kernel, the types of its arguments, the processor, and who compiled it."""
        python = sys.implementation.cache_tag, getattr(sys, "abiflags", "")
        return repr((self._name, sig, codegen.magic_tuple(), numba.__version__, python)).encode()

    def _path(self, identity: bytes) -> Path:
        name = self._name.rpartition(".")[2]
        return self._directory / f"{name}-{hashlib.sha256(identity).hexdigest()[:16]}{SUFFIX}"

    def _report(self, action: str, error: Exception) -> None:
        if not KernelCache._reported:
            KernelCache._reported = True
            logger.warning(
                "kernel cache: an entry cannot be %s (%s: %s); compiling again. If this recurs, delete %s or set"
                " NUMBERT_CACHE_DIR",
                action, type(error).__name__, error, self._directory,
            )  # fmt: skip


def _read(path: Path, identity: bytes) -> bytes:
    """Return what was kept under this identity.

    Raises
    ------
    ValueError
        When the file is not what `_write` wrote for this identity.
    """
    content = path.read_bytes()
    checksum, payload = content[:CHECKSUM_SIZE], content[CHECKSUM_SIZE:]
    if checksum != _checksum(identity, payload):
        raise ValueError(f"{path.name} is damaged: its checksum is another")
    return payload


def _write(path: Path, identity: bytes, payload: bytes) -> None:
    """Write a file at once: who reads it meanwhile sees the old one or the new one, whole."""
    path.parent.mkdir(mode=0o700, exist_ok=True)  # it may have been removed as unused
    with tempfile.NamedTemporaryFile(suffix=SUFFIX, dir=path.parent, delete=False) as file:
        try:
            with file:
                file.write(_checksum(identity, payload))
                file.write(payload)
            os.replace(file.name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # an interrupt may come when it is in its place already
                os.unlink(file.name)
            raise


def _checksum(identity: bytes, payload: bytes) -> bytes:
    checksum = CHECKSUM(len(identity).to_bytes(8, "little"))
    checksum.update(identity)
    checksum.update(payload)
    return checksum.digest()


DIRECTORY = private_directory()
