"""The kernel cache can be neither a cause of failure nor of a wrong answer."""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from conftest import ROOT
from fuzz import kernel_cache

pytest.importorskip("numba", reason="the kernel cache holds what Numba compiles")
from numbert.kernels.cpu import cache, isa, jit, meeting

needs_users = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has neither modes nor owners")
not_as_root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root can write everywhere")

SCORE = """
import logging
logging.basicConfig()
from numbert import CrossEncoder
print(CrossEncoder(num_threads=1).predict(("How many people?", "Seven people.")).tobytes().hex())
from numbert.kernels.cpu import float32, linear
print("hits", sum(sum(k.stats.cache_hits.values()) for k in (float32.tile, linear.feed_forward)))
"""

PAIR = ("How many people?", "Seven people.")  # of SCORE

# One small kernel instead of all: a tenth of the time.
ARRIVE = """
import logging
logging.basicConfig()
import numpy as np
from numbert.kernels.cpu import meeting
counter = np.zeros(1, np.int64)
meeting.arrive(counter)
print(counter[0], "hits", sum(meeting.arrive.stats.cache_hits.values()))
"""


def start(program: str, folder: object, **environment: str) -> "subprocess.Popen[str]":
    """Start a process with its cache in a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT.parent,
        env={**os.environ, "NUMBERT_CACHE_DIR": str(folder), **environment},
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> tuple[str, int, str]:
    """Return what the process computed, its cache hits, and what was logged."""
    output, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    value, hits = output.split("hits")
    return value.strip(), int(hits), log


# Those of this processor's family. Its own is the one that all other tests run.
LOWER = [name for name in ("avx2", "baseline") if isa.REQUIRED_FEATURES.get(name, set()) <= isa.target_features()]
LOWER = [name for name in LOWER if name != isa.ISA.name]
FILLED = LOWER[-1] if LOWER else isa.ISA.name


def score(folder: object) -> tuple[str, int, str]:
    """Score one pair in a new process, with the instruction set of the filled cache."""
    return finish(start(SCORE, folder, NUMBERT_ISA=FILLED))


@pytest.fixture(scope="module")
def filled_for(tmp_path_factory):
    """For each instruction set a cache that one process has filled, and the bits of its score; all at the same time."""
    folders = {name: tmp_path_factory.mktemp(name) for name in {FILLED, *LOWER}}
    processes = {name: start(SCORE, folder, NUMBERT_ISA=name) for name, folder in folders.items()}
    caches = {}
    for name, process in processes.items():
        value, hits, log = finish(process)
        assert hits == 0
        assert log == ""
        caches[name] = folders[name], value
    return caches


@pytest.fixture
def filled(filled_for):
    """One of these caches, and the bits of its score."""
    return filled_for[FILLED]


def test_a_second_process_finds_the_kernels(filled):
    folder, value = filled
    assert score(folder) == (value, 1, "")  # `tile` is part of the machine code of `feed_forward`


@needs_users
def test_directory_and_entries_are_private_and_named_after_the_sources(tmp_path):
    assert finish(start(ARRIVE, tmp_path)) == ("1", 0, "")
    (folder,) = tmp_path.iterdir()
    assert folder.name == cache.source_digest()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in folder.iterdir()} == {".kernel"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@not_as_root
def test_a_filled_read_only_cache_is_used(filled):
    folder, value = filled
    (inner,) = folder.iterdir()
    inner.chmod(0o500)
    try:
        assert score(folder) == (value, 1, "")
    finally:
        inner.chmod(0o700)


@pytest.mark.parametrize("name", LOWER)
def test_lower_instruction_sets_compute_the_same_score_and_keep_their_own_kernels(filled_for, model, name):
    folder, value = filled_for[name]
    (number,) = np.frombuffer(bytes.fromhex(value), np.float32)
    np.testing.assert_allclose(number, model.predict(PAIR), atol=2e-5)  # other sums, same precision; see test_blocks
    (inner,) = folder.iterdir()
    assert inner.name != cache.source_digest()


# Bits are flipped, entries swapped, spliced. That what was damaged is written anew, once is enough for; the tests of
# entries below have each kind of damage.
@pytest.mark.parametrize(("seed", "check_repair"), [(2, False), (9, False), (19, True)])
def test_a_damaged_cache_gives_the_right_score(filled, monkeypatch, seed, check_repair):
    monkeypatch.setenv("NUMBERT_ISA", FILLED)
    assert kernel_cache.run(seed, *filled, check_repair)[1] is None


def test_a_cache_that_is_off_means_memory(tmp_path):
    assert finish(start(ARRIVE, "off", HOME=str(tmp_path))) == ("1", 0, "")
    assert not list(tmp_path.iterdir())


# ---- entries, in this process: each dispatcher stands for a process of its own


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache."""
    folder = tmp_path / cache.source_digest()
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(cache, "DIRECTORY", folder)
    monkeypatch.setattr(cache.KernelCache, "_reported", False)
    return folder


def run(kernel=meeting.arrive, *arguments):
    """Call a kernel that was not called before; return its cache hits."""
    dispatcher = jit.kernel(kernel.py_func)
    if kernel is meeting.arrive:
        counter = np.zeros(1, np.int64)
        dispatcher(counter)
        assert counter[0] == 1
    else:
        assert dispatcher(np.ones(1, np.int64), 1, *arguments)
    return sum(dispatcher.stats.cache_hits.values())


def only_entry(folder):
    (entry,) = folder.iterdir()
    return entry


def flip(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 4
    return bytes(changed)


DAMAGE = {
    "empty": lambda content: b"",
    "cut in the checksum": lambda content: content[:20],
    "nothing but a checksum": lambda content: content[:32],
    "cut": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"\0",
    "garbage": lambda content: b"garbage" * 1000,
    "a bit of the checksum": lambda content: flip(content, 5),
    "a bit of the first byte": lambda content: flip(content, 32),
    "a bit in the middle": lambda content: flip(content, len(content) // 2),
    "a bit of the last byte": lambda content: flip(content, -1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_means_compile_again_and_is_replaced(folder, caplog, damage):
    assert (run(), run()) == (0, 1)
    good = only_entry(folder).read_bytes()
    only_entry(folder).write_bytes(damage(good))
    assert run() == 0
    (record,) = caplog.records
    assert only_entry(folder).name in record.getMessage()
    assert run() == 1
    assert len(caplog.records) == 1


def test_the_entry_of_another_key_is_refused(folder, caplog):
    # As when names were mixed up by whoever copied the cache: each is whole, and of the right processor.
    spins = np.int64(10), np.int32(10)
    run(meeting.arrive)
    arrive = only_entry(folder)
    for number in spins:
        run(meeting.await_arrivals, number)
    first, second = set(folder.iterdir()) - {arrive}
    contents = arrive.read_bytes(), first.read_bytes(), second.read_bytes()
    for entry, content in zip((second, arrive, first), contents, strict=True):
        entry.write_bytes(content)
    assert run(meeting.arrive) == 0
    assert [run(meeting.await_arrivals, number) for number in spins] == [0, 0]
    assert len(caplog.records) == 1
    assert run(meeting.arrive) == 1
    assert [run(meeting.await_arrivals, number) for number in spins] == [1, 1]


class Intruder:
    """Leaves a trace when it is unpickled."""

    traces: list[int] = []  # noqa: RUF012

    def __reduce__(self):
        return Intruder.traces.append, (1,)


def test_what_is_not_proven_is_not_unpickled(folder):
    run()
    checksum = only_entry(folder).read_bytes()[:32]
    only_entry(folder).write_bytes(checksum + pickle.dumps(Intruder()))
    assert run() == 0
    assert Intruder.traces == []


@pytest.mark.parametrize("change", [("numba.__version__", "0.0"), ("sys.abiflags", "z")], ids=["Numba", "Python"])
def test_another_version_keeps_its_own_entry(folder, caplog, monkeypatch, change):
    run()
    monkeypatch.setattr(*change, raising=False)
    assert (run(), run()) == (0, 1)
    assert len(list(folder.iterdir())) == 2
    assert not caplog.records


def test_a_directory_that_is_removed_meanwhile_is_made_again(folder, caplog):
    run()
    only_entry(folder).unlink()
    folder.rmdir()
    assert (run(), run()) == (0, 1)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not caplog.records


def test_a_write_that_fails_leaves_nothing_behind_and_is_reported_once(folder, caplog, monkeypatch):
    def fail(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert (run(), run()) == (0, 0)
    assert not list(folder.iterdir())
    (record,) = caplog.records
    assert "cannot be written (OSError: [Errno 28] No space left on device)" in record.getMessage()


def test_an_interrupt_just_after_an_entry_is_in_its_place_is_not_swallowed(folder, caplog, monkeypatch):
    usual = os.replace

    def interrupted(*paths):
        usual(*paths)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert run() == 1
    assert not caplog.records


def test_kernels_of_other_folders_are_not_kept(folder):
    # The directory's name does not stand for their sources.
    @jit.kernel
    def add_one(x):
        return x + 1

    assert add_one(1) == 2
    assert not list(folder.iterdir())


def test_machine_code_with_addresses_of_this_process_is_not_kept(folder):
    import ctypes

    from numba import njit

    number = ctypes.CDLL(None).abs if os.name != "nt" else ctypes.cdll.msvcrt.abs
    number.argtypes, number.restype = (ctypes.c_int,), ctypes.c_int
    dispatcher = njit(lambda x: number(x))
    assert dispatcher(-3) == 3
    (result,) = dispatcher.overloads.values()
    cache.KernelCache(meeting.arrive.py_func, folder).save_overload((), result)
    assert not list(folder.iterdir())


# ---- the directory


@pytest.fixture
def no_home(monkeypatch, tmp_path):
    """A process as in a bare container: no variables, no entry in passwd; its working directory and temporary files."""
    for name in ("HOME", "XDG_CACHE_HOME", "NUMBERT_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)

    def no_entry(user):
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", no_entry)
    (tmp_path / "work").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield tmp_path
    assert not list((tmp_path / "work").iterdir())


@needs_users
def test_without_a_home_the_cache_is_among_temporary_files(no_home):
    expected = no_home / "tmp" / f"numbert-{os.getuid()}" / cache.source_digest()
    assert cache.private_directory() == expected


@needs_users
@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("value", ["relative", "~"])
def test_a_relative_home_is_ignored(no_home, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert (no_home / "tmp") in cache.private_directory().parents


@needs_users
@pytest.mark.parametrize(("variable", "below"), [("HOME", ".cache/numbert"), ("XDG_CACHE_HOME", "numbert")])
def test_the_home_is_the_first_choice_whatever_the_umask(no_home, monkeypatch, variable, below):
    monkeypatch.setenv(variable, str(no_home / "home"))
    before = os.umask(0o002)  # as many systems have it: what is made without a mode, the group can write
    try:
        assert cache.private_directory() == no_home / "home" / below / cache.source_digest()
    finally:
        os.umask(before)


@needs_users
def test_a_relative_cache_of_all_programs_gives_way_to_the_home(no_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(no_home / "home"))
    assert (no_home / "home" / ".cache" / "numbert") in cache.private_directory().parents


@needs_users
@pytest.mark.parametrize("value", ["relative", "./relative", "~/relative"])
def test_a_relative_directory_is_refused(no_home, monkeypatch, caplog, value):
    monkeypatch.setenv("NUMBERT_CACHE_DIR", value)
    assert cache.private_directory() is None
    assert f"NUMBERT_CACHE_DIR: found {value!r}, expected an absolute path" in caplog.text


@needs_users
def test_without_any_place_kernels_live_in_memory(no_home, monkeypatch):
    def fail():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    assert cache.private_directory() is None


@pytest.fixture
def no_temporary_directory(no_home, monkeypatch):
    """A system where none of the usual directories for temporary files can be written."""
    usual = os.open

    def refuse(path, *rest, **named):
        if os.path.dirname(path) in ("/tmp", "/var/tmp", "/usr/tmp"):
            raise PermissionError(13, "Permission denied", path)
        return usual(path, *rest, **named)

    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(os, "open", refuse)
    return no_home


@needs_users
def test_the_working_directory_is_no_place_for_want_of_another(no_temporary_directory):
    assert tempfile.gettempdir() == os.getcwd()
    assert cache.private_directory() is None


@needs_users
@pytest.mark.parametrize("name", ["TMPDIR", "TEMP", "TMP"])
def test_the_working_directory_is_a_place_if_it_is_named(no_temporary_directory, monkeypatch, name):
    monkeypatch.setenv(name, str(no_temporary_directory))
    monkeypatch.chdir(no_temporary_directory)
    assert cache.private_directory().parent == no_temporary_directory / f"numbert-{os.getuid()}"


@needs_users
def test_a_usual_temporary_directory_is_a_place_for_who_works_there(no_home, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.chdir("/tmp")
    assert list(cache._candidates()) == [cache.Path(f"/tmp/numbert-{os.getuid()}")]


def test_a_place_that_cannot_be_made_means_memory(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/cache"):
        monkeypatch.setenv("NUMBERT_CACHE_DIR", str(tmp_path / place))
        assert cache.private_directory() is None
    (tmp_path / cache.source_digest()).write_text("")
    monkeypatch.setenv("NUMBERT_CACHE_DIR", str(tmp_path))
    assert cache.private_directory() is None


@needs_users
def test_a_directory_that_others_can_write_is_not_used(tmp_path, monkeypatch, caplog):
    # Entries are pickles: whoever can write them, and their checksums, can run code as us.
    monkeypatch.setenv("NUMBERT_CACHE_DIR", str(tmp_path))
    inner = cache.private_directory()
    for path in (tmp_path, inner):
        mode = path.stat().st_mode
        path.chmod(0o777)
        caplog.clear()
        assert cache.private_directory() is None
        assert "can be written by other users" in caplog.text
        path.chmod(mode)
    assert cache.private_directory() == inner


@needs_users
@pytest.mark.parametrize("mode", [0o770, 0o777])
@pytest.mark.parametrize("linked", [False, True])
def test_a_directory_whose_place_others_can_give_to_another_is_not_used(tmp_path, monkeypatch, caplog, mode, linked):
    above = tmp_path / "above"
    (above / "between" / "cache").mkdir(mode=0o700, parents=True)
    (tmp_path / "link").symlink_to(above / "between")
    place = (tmp_path / "link" if linked else above / "between") / "cache"
    monkeypatch.setenv("NUMBERT_CACHE_DIR", str(place))
    inner = cache.private_directory()
    assert inner.parent == above / "between" / "cache"  # a link could lead elsewhere when the kernels are read
    above.chmod(mode)
    assert cache.private_directory() is None
    assert f"since {above} can be written by other users" in caplog.text
    above.chmod(mode | 0o1000)  # as /tmp: what others do not own, they cannot rename
    assert cache.private_directory() == inner


@needs_users
def test_a_directory_below_one_that_another_user_owns_is_not_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NUMBERT_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert cache.private_directory() is not None
    usual, owner = cache.Path.stat, os.getuid() + 1

    def stat(path, **named):
        status = usual(path, **named)
        return os.stat_result([*status[:4], owner, *status[5:]]) if path == tmp_path else status

    monkeypatch.setattr(cache.Path, "stat", stat)
    assert cache.private_directory() is None
    assert f"since {tmp_path} can be written by other users" in caplog.text


@needs_users
def test_a_cache_has_no_place_directly_among_files_of_all_users(tmp_path, monkeypatch):
    tmp_path.chmod(0o1777)
    monkeypatch.setenv("NUMBERT_CACHE_DIR", str(tmp_path))
    assert cache.private_directory() is None


def age(path, days: float) -> None:
    os.utime(path, (time.time() - days * cache.DAY,) * 2)


def days_old(path) -> float:
    return (time.time() - path.stat().st_mtime) / cache.DAY


def test_directories_of_other_sources_are_removed_after_a_month(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBERT_CACHE_DIR", str(tmp_path))
    names = {"unused": "a" * 24, "used": "b" * 24, "foreign": "c" * 24, "other": "models"}
    folders = {name: tmp_path / place for name, place in names.items()}
    for name, folder in folders.items():
        folder.mkdir(mode=0o700)
        (folder / "tile-0.kernel").write_text("")
        if name == "foreign":
            (folder / "thesis.txt").write_text("")
        age(folder, 29 if name == "used" else 31)
    target = tmp_path / "target"
    target.mkdir()
    (target / "tile-0.kernel").write_text("")
    age(target, 31)
    with contextlib.suppress(OSError, NotImplementedError):  # where links may not be made, or not dated
        (tmp_path / ("d" * 24)).symlink_to(target)
        os.utime(tmp_path / ("d" * 24), (0, 0), follow_symlinks=False)
    assert cache.private_directory() is not None
    assert not folders["unused"].exists()
    assert (folders["used"] / "tile-0.kernel").exists()
    assert (folders["foreign"] / "thesis.txt").exists()
    assert (folders["other"] / "tile-0.kernel").exists()
    assert (target / "tile-0.kernel").exists()


def test_use_is_noted_once_a_day(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBERT_CACHE_DIR", str(tmp_path))
    directory = cache.private_directory()
    unused = tmp_path / ("a" * 24)
    unused.mkdir()
    age(unused, 31)
    age(directory, 0.5)
    assert cache.private_directory() == directory
    assert days_old(directory) > 0.4
    assert unused.exists()
    age(directory, 31)
    assert cache.private_directory() == directory
    assert days_old(directory) < 0.1
    assert not unused.exists()


# ---- a fork

FORK_WHILE_COMPILING = """
import os, threading, warnings
import numpy as np
from numba.core import event
warnings.simplefilter("ignore")
from numbert.kernels.cpu import meeting
begun = threading.Event()
class Begun(event.Listener):
    def on_start(self, event): begun.set()
    def on_end(self, event): pass
event.register("numba:compile", Begun())
thread = threading.Thread(target=meeting.await_arrivals, args=(np.ones(1, np.int64), 1, 5))
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    meeting.arrive(np.zeros(1, np.int64))
    os._exit(0)
_, status = os.waitpid(child, 0)
thread.join()
print("status", status, "hits 0")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_while_kernels_are_compiled_can_compile_them_too():
    process = start(FORK_WHILE_COMPILING, "off")
    try:
        assert finish(process) == ("status 0", 0, "")
    finally:
        process.kill()
