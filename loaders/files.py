"""The files of a model while it is loaded: each is opened once, is a regular file, and is read within bounds.

A folder may be hostile (a pipe in the place of a file, a file without end) and it may change while it is read: a
download goes on, a new version is put in its place. So a file is read from one descriptor from its first byte to its
last, and `ModelFiles.check_unchanged` tells in the end whether the folder is still the one that was read.
"""

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ModelChangedError, NumbertError

# A file's time of change has the resolution of the system's clock, 10 ms at most. What was changed a moment ago could
# be changed again without another time: such a file is opened when the moment is over.
CLOCK_TICK = 20_000_000  # nanoseconds
PATIENCE = 10  # ticks
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# A pipe would keep who opens it waiting; on Windows, a file opened as text would lose bytes.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class State(NamedTuple):
    """What tells one content of a place from another."""

    device: int
    inode: int
    size: int
    changed: int  # nanoseconds

    @classmethod
    def of(cls, status: os.stat_result) -> "State":
        """Take it from what the system says."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class OpenFile:
    """A regular file, open for reading; any number of threads may read it.

    Parameters
    ----------
    path : Path
    error : type
        The class of what is raised when it cannot be read.
    """

    def __init__(self, path: Path, error: type[NumbertError]) -> None:
        self.path = path
        self._error = error
        self._lock = threading.Lock()
        self._descriptor = -1
        try:
            self._require_regular(os.stat(path))  # before it is opened: that alone may do something to a device
            self._descriptor = os.open(path, FLAGS)
            self._require_regular(os.fstat(self._descriptor))
        except (OSError, ValueError) as problem:  # ValueError: a name that no file can have
            raise self._unreadable(problem) from problem
        self.state = self._settled()

    @property
    def size(self) -> int:
        """Bytes that the file had when it was opened."""
        return self.state.size

    def read(self, limit: int) -> bytes:
        """Return the whole content, of at most `limit` bytes."""
        if self.size > limit:
            raise self._error(f"{self.path}: found {self.size} bytes, expected at most {limit}; is this the file?")
        content = bytearray(self.size)
        if self.read_into(memoryview(content), 0) < self.size:
            raise self._error(f"{self.path}: found fewer than {self.size} bytes: the file was cut; download it again")
        return bytes(content)

    def read_into(self, buffer: memoryview, start: int) -> int:
        """Fill a buffer with what the file has from a byte on; return how many bytes there were."""
        done = 0
        try:
            while done < len(buffer):
                count = self._read_some(buffer[done:], start + done)
                if not count:
                    break
                done += count
        except OSError as problem:
            raise self._unreadable(problem) from problem
        return done

    def close(self) -> None:
        """Give the descriptor back."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close

    def check_unchanged(self) -> None:
        """Prove that the file was not written to, and that its place still leads to it.

        Raises
        ------
        ModelChangedError
            When it is not so.
        """
        try:
            unchanged = State.of(os.fstat(self._descriptor)) == self.state == State.of(os.stat(self.path))
        except OSError:
            unchanged = False
        if not unchanged:
            raise _changed(self.path)

    def _read_some(self, buffer: memoryview, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [buffer], start)
        with self._lock:  # Windows
            os.lseek(self._descriptor, start, os.SEEK_SET)
            part = os.read(self._descriptor, len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def _settled(self) -> State:
        """Return the state, once the last change lies long enough back that another one would show."""
        for _ in range(PATIENCE):
            state = State.of(os.fstat(self._descriptor))
            age = time.time_ns() - state.changed
            if not 0 <= age < CLOCK_TICK:
                return state
            time.sleep((CLOCK_TICK - age) / 1e9)
        raise _changed(self.path)

    def _require_regular(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise self._error(f"{self.path}: found {kind}, expected a regular file; do not trust this model")

    def _unreadable(self, problem: OSError | ValueError) -> NumbertError:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        return self._error(f"{self.path}: cannot be read: {reason}; check the file, its disk and its permissions")


class ModelFiles:
    """The files of one model's folder. Leaving its context closes them.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, OpenFile] = {}
        self._absent: set[str] = set()

    def __enter__(self) -> "ModelFiles":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        """Tell whether the folder has an entry of this name, whatever it is."""
        if name in self._open:
            return True
        there = os.path.lexists(self.folder / name)
        if not there:
            self._absent.add(name)
        return there

    def open(self, name: str, error: type[NumbertError]) -> OpenFile:
        """Return a file, which is opened when it is first asked for; `error` is raised when it cannot be."""
        if name not in self._open:
            self._open[name] = OpenFile(self.folder / name, error)
        return self._open[name]

    def __iter__(self) -> Iterator[OpenFile]:
        """Yield the files that were opened."""
        yield from list(self._open.values())

    def check_unchanged(self) -> None:
        """Prove that the folder holds what was read, and nothing that would have been read instead.

        (A folder that is half of one model and half of another on the disk, because someone replaces its files one by
        one, cannot be told from a whole one unless it changes while it is read.)

        Raises
        ------
        ModelChangedError
            When it is not so.
        """
        for file in self:
            file.check_unchanged()
        for name in self._absent:
            if os.path.lexists(self.folder / name):
                raise _changed(self.folder / name)

    def close(self) -> None:
        """Close all files."""
        for file in self:
            file.close()


def _changed(path: Path) -> ModelChangedError:
    return ModelChangedError(
        f"{path}: found another content than when loading began, expected one that stays; load again when nothing"
        " writes there any more"
    )
