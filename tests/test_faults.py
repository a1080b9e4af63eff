"""A sample of the faults of tests/faults, and each defect that they have found."""

import errno
import gc
import os
import shutil
import sys

import pytest
from checkpoints import copy_checkpoint
from numbert import ConfigError, CrossEncoder, ModelNotFoundError, WeightsError
from numbert.engine.cores import choose_cores, stay_on
from numbert.engine.drop_in import saving
from numbert.engine.errors import SaveError
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.errors import ModelChangedError
from numbert.loaders.files import ModelFiles, OpenFile
from numbert.loaders.modules import Chain

pytest.importorskip("numba", reason="the kernel cache holds what Numba compiles")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="faults are put where Linux has its calls")

from faults.inject import Point, fault  # noqa: E402
from faults.scenarios import SCENARIOS, expected_of, points_of, try_point  # noqa: E402
from numbert.kernels.cpu import cache  # noqa: E402

SAMPLE = {"compile": 2, "warm cache": 2}  # points of a scenario; each compiles kernels
OTHERS = 7
PAIR = ("How many people?", "Seven people live here.")


@pytest.fixture
def small_heap():
    """Let the garbage collection of each point pass over all that there is already."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.name)
def test_whatever_fails_the_answer_is_right_or_an_error_is_clear(tmp_path, kind):
    scenario = kind(tmp_path / "scratch")
    _, points = points_of(scenario)
    expected = expected_of(scenario)
    sample = SAMPLE.get(kind.name, OTHERS)
    for number in range(sample):
        try_point(scenario, points[(2 * number + 1) * len(points) // (2 * sample)], expected)


def test_the_faults_fail_when_they_are_asked_to(tmp_path):
    path = tmp_path / "file"
    for point in (
        Point("open", 2, "EMFILE", False),
        Point("write", 2, "ENOSPC", False),
        Point("stat", 1, "EIO", False),
    ):
        with fault(point):
            if point.seam != "stat":
                path.write_text("written")
            with pytest.raises(OSError, match=r"Too many|No space|Input"):
                path.write_text("written") if point.seam != "stat" else path.stat()
            assert path.stat()
    with fault(Point("open", 2, "EIO", True)):
        path.read_bytes()
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output error"):
                path.read_bytes()


# ---- files that take each other's place


@pytest.fixture
def folder(tmp_path):
    return copy_checkpoint("narrow", tmp_path)


def put_link(target, place):
    """Let a place lead elsewhere, at once."""
    place.with_suffix(".new").symlink_to(target)
    os.replace(place.with_suffix(".new"), place)


def test_a_folder_that_takes_the_place_of_another_leaves_the_first_to_be_read_to_its_end(folder, tmp_path):
    # Looked for by its name, each file could be of another folder, and be found unchanged when that one is back.
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "config.json").write_text("{")
    put_link(folder, tmp_path / "model")
    with ModelFiles(tmp_path / "model") as files:
        files.open("tokenizer.json", WeightsError)
        put_link(other, tmp_path / "model")
        assert files.open("config.json", ConfigError).read(10**6) == (folder / "config.json").read_bytes()
        assert saving.list_files(files, Chain()) == saving.list_files(ModelFiles(folder), Chain())
        files.check_unchanged()


def test_a_file_that_was_replaced_and_is_back_has_changed(folder):
    path, kept = folder / "config.json", folder / "kept"
    os.link(path, kept)
    file = OpenFile(path, ConfigError)
    path.with_suffix(".new").write_bytes(path.read_bytes())
    os.replace(path.with_suffix(".new"), path)
    os.replace(kept, path)  # the same file as in the beginning
    with pytest.raises(ModelChangedError):
        file.check_unchanged()


# ---- a disk that fails


def fail(*_, **__):
    raise OSError(errno.EIO, "Input/output error")


def fail_for(monkeypatch, function, name):
    """Let a function of the system fail whenever it is asked for a file of this name."""
    usual = getattr(os, function)

    def failing(path, *rest, **named):
        if os.path.basename(path) == name:
            fail()
        return usual(path, *rest, **named)

    monkeypatch.setattr(os, function, failing)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "modules.json"])
def test_a_file_that_cannot_be_looked_for_is_not_taken_for_absent(folder, monkeypatch, name):
    fail_for(monkeypatch, "stat", name)
    fail_for(monkeypatch, "lstat", name)
    with pytest.raises(ModelNotFoundError, match=rf"{name}: cannot be looked for: Input/output error; check the disk"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["README.md", "merges.txt"])
def test_a_file_that_is_only_copied_and_cannot_be_looked_for_is_named_too(folder, monkeypatch, name):
    fail_for(monkeypatch, "stat", name)
    with pytest.raises(ModelNotFoundError, match=f"{name}: cannot be looked for"):
        CrossEncoder(folder, backend="reference")


def test_a_file_of_which_nothing_is_said_after_it_was_opened_is_named(folder, monkeypatch):
    answers = [os.stat(folder / "config.json")]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda descriptor: answers.pop() if answers else fail())
        with pytest.raises(ConfigError, match=r"config\.json: cannot be read: Input/output error"):
            OpenFile(folder / "config.json", ConfigError)


def test_sources_that_cannot_be_read_mean_kernels_in_memory(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NUMBERT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "listdir", fail)
    assert cache.private_directory() is None
    assert "cannot read the sources of kernels: [Errno 5] Input/output error; compiling in memory" in caplog.text


def test_sources_that_cannot_be_listed_are_not_taken_for_none(monkeypatch):
    # glob passes over a folder that may not be read: all sources would then have the same directory.
    forbidden = PermissionError(errno.EACCES, "Permission denied")

    def fail_to_list(*_):
        raise forbidden

    monkeypatch.setattr(os, "scandir", fail_to_list)
    monkeypatch.setattr(os, "listdir", fail_to_list)
    with pytest.raises(PermissionError):
        cache.source_digest()


def test_a_system_that_does_not_say_which_cores_there_are_leaves_threads_free(monkeypatch):
    # An error here would leave the other threads of a request waiting for this one.
    monkeypatch.setattr(os, "sched_getaffinity", fail)
    assert choose_cores(2, ()) == [None, None]
    with stay_on(0):  # no error
        pass


# ---- saving


def test_files_that_cannot_be_put_back_are_kept_and_named(folder, tmp_path, monkeypatch):
    model = CrossEncoder(folder, activation_fn="tanh", backend="reference")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with (
        fault(Point("rename", 2, "EIO", True)),
        pytest.raises(SaveError, match="Input/output error while files") as error,
    ):
        model.save_pretrained(folder)
    (kept,) = folder.glob(".numbert-*/old")
    assert str(kept) in str(error.value)
    for path in kept.iterdir():  # what the message says
        path.replace(folder / path.name)
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("seam", ["list", "remove"])
def test_temporary_files_that_cannot_be_removed_do_not_undo_what_was_saved(folder, tmp_path, seam):
    # Nor may what is put into its place be listed: Path.glob passes over what it may not read.
    model = CrossEncoder(folder, backend="reference")
    with fault(Point(seam, 1, "EACCES", True)):
        model.save_pretrained(tmp_path / "new")
    assert CrossEncoder(tmp_path / "new", backend="reference").predict(PAIR) == model.predict(PAIR)


def test_a_source_that_is_replaced_while_it_is_copied_is_not_saved(folder, tmp_path, monkeypatch):
    model = CrossEncoder(folder, backend="reference")
    usual = shutil.copyfile

    def replace_and_copy(source, target):
        (folder / "model.safetensors").write_bytes(b"another model")
        return usual(source, target)

    monkeypatch.setattr(shutil, "copyfile", replace_and_copy)
    with pytest.raises(SaveError, match="found other files than those that were loaded"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
