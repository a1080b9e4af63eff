"""The files of a model while it is loaded: each is opened once, is a regular file, and is read within bounds.

A folder may be hostile (a pipe in the place of a file, a file without end) and it may change while it is read: a
download goes on, a new version is put in its place. So a file is read from one descriptor from its first byte to its
last, all are of the folder to which the name led at first, and `ModelFiles.check_unchanged` tells in the end whether
that folder still holds what was read.
"""

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ConfigError, ModelChangedError, ModelNotFoundError, NumbertError

# A file's time of change has the resolution of the system's clock, 10 ms at most. What was changed a moment ago could
# be changed again without another time: such a file is opened when the moment is over.
CLOCK_TICK = 20_000_000  # nanoseconds
PATIENCE = 10  # ticks
KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# A pipe would keep who opens it waiting; on Windows, a file opened as text would lose bytes.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
HOLDS_FOLDERS = {os.open, os.stat} <= os.supports_dir_fd  # not Windows
FOLDER_FLAGS = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", os.O_RDONLY)  # it need not be listed
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class State(NamedTuple):
    """What tells one content of a place from another."""

    device: int
    inode: int
    size: int
    changed: int  # nanoseconds

    @classmethod
    def of(cls, status: os.stat_result) -> "State":
        """Take it from what the system says.

        A file that is written to, or takes the place of another, has another st_ctime, which nobody can set. (Without
        it, a link to a file that was there before would bring back all of its state. On Windows it is something else.)
        """
        changed = status.st_mtime_ns if os.name == "nt" else status.st_ctime_ns
        return cls(status.st_dev, status.st_ino, status.st_size, changed)


class OpenFile:
    """A regular file, open for reading; any number of threads may read it.

    Parameters
    ----------
    path : Path
    error : type
        The class of what is raised when it cannot be read.
    folder : int, optional
        Descriptor of the folder where it is opened, wherever the path may lead by now.
    """

    def __init__(self, path: Path, error: type[NumbertError], folder: int | None = None) -> None:
        self.path = path
        self._folder = folder
        self._name = path if folder is None else path.name
        self._error = error
        self._lock = threading.Lock()
        self._descriptor = -1
        try:
            self._require_regular(self._stat())  # before it is opened: that alone may do something to a device
            self._descriptor = os.open(self._name, FLAGS, dir_fd=folder)
            self._require_regular(os.fstat(self._descriptor))
            self.state = self._settled()
        except (OSError, ValueError) as problem:  # ValueError: a name that no file can have
            raise self._unreadable(problem) from problem

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
            unchanged = State.of(os.fstat(self._descriptor)) == self.state == State.of(self._stat())
        except OSError:
            unchanged = False
        if not unchanged:
            raise _changed(self.path)

    def _stat(self) -> os.stat_result:
        """Return what the system says of the file that is in this place now."""
        return os.stat(self._name, dir_fd=self._folder)

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
            raise self._error(f"{self.path}: found {_kind(status)}, expected a regular file; do not trust this model")

    def _unreadable(self, problem: OSError | ValueError) -> NumbertError:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        return self._error(f"{self.path}: cannot be read: {reason}; check the file, its disk and its permissions")


class ModelFiles:
    """The files of one model's folder. Leaving its context closes them.

    Parameters
    ----------
    folder : Path
    parent : int, optional
        Descriptor of the folder in which this one is opened; it must then be no link.

    Raises
    ------
    ModelNotFoundError
        When the folder cannot be opened.
    """

    def __init__(self, folder: Path, parent: int | None = None) -> None:
        self.folder = folder
        self._open: dict[str, OpenFile] = {}
        self._inside: dict[str, ModelFiles] = {}
        self._absent: set[str] = set()
        self._descriptor: int | None = None
        try:
            if HOLDS_FOLDERS:
                name, flags = (folder, FOLDER_FLAGS) if parent is None else (folder.name, FOLDER_FLAGS | NO_LINK)
                self._descriptor = os.open(name, flags, dir_fd=parent)
            self._own = self._place(os.stat(folder) if self._descriptor is None else os.fstat(self._descriptor))
        except OSError as problem:
            raise self._unknown(folder, problem) from problem

    def __enter__(self) -> "ModelFiles":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        """Tell whether the folder has an entry of this name, whatever it is."""
        if name in self._open:
            return True
        there = self._is_there(name)
        if not there:
            self._absent.add(name)
        return there

    def open(self, name: str, error: type[NumbertError]) -> OpenFile:
        """Return a file, which is opened when it is first asked for; `error` is raised when it cannot be."""
        if name not in self._open:
            self._open[name] = OpenFile(self.folder / name, error, self._descriptor)
        return self._open[name]

    def inside(self, name: str) -> "ModelFiles":
        """Return the files of a folder in this one, which is closed with it.

        Raises
        ------
        ConfigError
            When there is none; a link is none, as it could lead anywhere.
        """
        if name not in self._inside:
            status = self._status(name, follow_links=False)
            if status is None or not stat.S_ISDIR(status.st_mode):
                kind = "nothing" if status is None else _kind(status)
                raise ConfigError(
                    f"{self.folder / name}: found {kind}, expected a folder of the model; download the model again"
                )
            self._inside[name] = ModelFiles(self.folder / name, self._descriptor)
        return self._inside[name]

    def __iter__(self) -> Iterator[OpenFile]:
        """Yield the files that were opened, but for those of the folders inside."""
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
            if self._is_there(name):
                raise _changed(self.folder / name)
        for name, files in self._inside.items():
            status = self._status(name, follow_links=False)
            if status is None or self._place(status) != files._own:
                raise _changed(self.folder / name)
            files.check_unchanged()

    def stat(self, name: str) -> os.stat_result | None:
        """Return what the system says of a file, or None where there is none.

        Raises
        ------
        ModelNotFoundError
            When the system does not say.
        """
        return self._status(name, follow_links=True)

    def close(self) -> None:
        """Close all files, and the folder."""
        for opened in (*self, *self._inside.values()):
            opened.close()
        self.__del__()

    def __del__(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @staticmethod
    def _place(status: os.stat_result) -> tuple[int, int]:
        """Return what tells one folder from another."""
        return status.st_dev, status.st_ino

    def _is_there(self, name: str) -> bool:
        return self._status(name, follow_links=False) is not None

    def _status(self, name: str, follow_links: bool) -> os.stat_result | None:
        place = self.folder / name if self._descriptor is None else name
        try:
            return os.stat(place, dir_fd=self._descriptor, follow_symlinks=follow_links)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as problem:  # a disk that fails must not look like a model without this file
            raise self._unknown(self.folder / name, problem) from problem

    def _unknown(self, path: Path, problem: OSError | ValueError) -> ModelNotFoundError:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        return ModelNotFoundError(f"{path}: cannot be looked for: {reason}; check the disk and the permissions")


def is_plain(name: str) -> bool:
    """Tell whether a name is that of something in a folder: a path would let a model read files elsewhere."""
    return name == os.path.basename(name) and "\\" not in name and name.isprintable() and name not in ("", ".", "..")


def _kind(status: os.stat_result) -> str:
    return KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def _changed(path: Path) -> ModelChangedError:
    return ModelChangedError(
        f"{path}: found another content than when loading began, expected one that stays; load again when nothing"
        " writes there any more"
    )
