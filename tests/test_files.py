"""A model's files: regular, finite, of one moment, whatever lies in their place and whoever writes there meanwhile."""

import json
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoints import copy_checkpoint, edit_json, edit_tensors
from numbert import (
    ConfigError,
    CrossEncoder,
    ModelNotFoundError,
    NonFiniteScoreError,
    SaveError,
    TokenizerError,
    WeightsError,
)
from numbert.loaders import files as files_module
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.errors import ModelChangedError
from numbert.loaders.files import ModelFiles, OpenFile

needs_posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs the files of POSIX")
NAMES = {
    "config.json": ConfigError,
    "modules.json": ConfigError,
    "config_sentence_transformers.json": ConfigError,
    "tokenizer_config.json": ConfigError,
    "tokenizer.json": TokenizerError,
    "model.safetensors": WeightsError,
}
PAIR = ("How many people?", "Seven people live here.")


@pytest.fixture
def folder(tmp_path):
    return copy_checkpoint("narrow", tmp_path)


def make_socket(path) -> None:
    place = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have 108 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(place)


PLACES = {
    "a pipe": os.mkfifo if hasattr(os, "mkfifo") else None,
    "a directory": os.mkdir,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@needs_posix
@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_regular_file_is_refused_and_never_waited_for(folder, name, kind):
    (folder / name).unlink(missing_ok=True)
    PLACES[kind](folder / name)
    with pytest.raises(NAMES[name], match=f"{name}: found {kind}, expected a regular file"):
        load_checkpoint(folder)


@needs_posix
def test_a_place_that_becomes_a_pipe_after_it_was_looked_at_is_refused(folder, monkeypatch):
    path = folder / "config.json"
    honest, asked = os.stat(path), os.stat
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *arguments, **named: honest if arguments[0] == path else asked(*arguments))
    with pytest.raises(ConfigError, match="found a pipe"):
        OpenFile(path, ConfigError)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_end_is_not_read(folder, name):
    with (folder / name).open("ab") as file:
        file.truncate(2**40)  # without writing that much
    with pytest.raises(NAMES[name], match=rf"{name}: .*(found 1099511627776 bytes|of 1099511627776)"):
        load_checkpoint(folder)


@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_cannot_be_opened_or_read_is_named(folder, monkeypatch, problem):
    def fail(*_, **__):
        raise problem

    path = folder / "config.json"
    whole = OpenFile(path, ConfigError)
    monkeypatch.setattr(OpenFile, "_read_some", fail)
    with pytest.raises(ConfigError, match=rf"config\.json: cannot be read: {problem.strerror}; check the file"):
        whole.read(10**6)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ConfigError, match=rf"config\.json: cannot be read: {problem.strerror}; check the file"):
        OpenFile(path, ConfigError)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(folder):
    file = OpenFile(folder / "config.json", ConfigError)
    os.truncate(folder / "config.json", 10)
    with pytest.raises(ConfigError, match=r"config\.json: found fewer than \d+ bytes: the file was cut"):
        file.read(10**6)


def test_where_the_system_has_no_positioned_reads_threads_take_turns(folder, monkeypatch):
    expected = (folder / "model.safetensors").read_bytes()
    file = OpenFile(folder / "model.safetensors", WeightsError)
    monkeypatch.delattr(os, "preadv")
    found: dict[int, bytes] = {}

    def read(start: int) -> None:
        buffer = bytearray(50_000)
        count = file.read_into(memoryview(buffer), start)
        found[start] = bytes(buffer[:count])

    starts = range(0, len(expected), 1000)
    threads = [threading.Thread(target=read, args=[start]) for start in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[start] == expected[start : start + 50_000] for start in starts)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users")
@pytest.mark.parametrize(
    ("mode", "message"), [(0o666, "cannot be entered: Permission denied"), (0o711, "found no conf")]
)
def test_a_folder_that_cannot_be_entered_is_said_to_be_so(mode, message):
    folder, user = Path(tempfile.mkdtemp()), os.geteuid()
    folder.chmod(mode)
    if user == 0:  # who may enter everything
        os.seteuid(65534)
    try:
        with pytest.raises(ModelNotFoundError, match=message):
            load_checkpoint(folder)
    finally:
        os.seteuid(user)
        folder.rmdir()


# ---- folders that change


def test_descriptors_are_given_back(folder):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    CrossEncoder(folder, backend="reference")
    before = descriptors()
    CrossEncoder(folder, backend="reference")
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        CrossEncoder(folder, backend="reference")
    assert descriptors() == before  # although the error, with the frames that it came through, is still there
    del caught


CHANGES = {
    "replaced": lambda path: (
        path.with_name("new").write_bytes(path.read_bytes()) and path.with_name("new").replace(path)
    ),
    "written to": lambda path: path.write_bytes(path.read_bytes()),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_changes_while_the_model_is_loaded_is_refused(folder, name, change):
    with (
        pytest.raises(ModelChangedError, match=rf"{name}: found another content than when loading began"),
        load_checkpoint(folder),
    ):
        change(folder / name)


def test_a_file_that_appears_while_the_model_is_loaded_is_refused(folder):
    with pytest.raises(ModelChangedError, match=r"modules\.json: found another content"), load_checkpoint(folder):
        (folder / "modules.json").write_text("[]")


def test_an_error_within_is_not_hidden_by_the_change(folder):
    def spoil_and_fail() -> None:
        (folder / "config.json").unlink()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), load_checkpoint(folder):
        spoil_and_fail()


def test_what_was_opened_is_read_to_its_end_whatever_takes_its_place(folder):
    checkpoint = load_checkpoint(folder)
    expected = dict(load_checkpoint(folder).weights)
    shutil.copyfile(folder / "model.safetensors", folder / "new")
    edit_tensors(folder / "new", lambda tensors: tensors.update({name: -array for name, array in tensors.items()}))
    os.replace(folder / "new", folder / "model.safetensors")
    for name, array in checkpoint.weights.items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_file_that_was_just_written_is_opened_when_another_change_would_show(folder):
    path = folder / "config.json"
    path.write_bytes(path.read_bytes())
    file = OpenFile(path, ConfigError)
    assert time.time_ns() - os.stat(path).st_mtime_ns >= files_module.CLOCK_TICK
    path.write_bytes(path.read_bytes())  # the same size, the same inode
    with pytest.raises(ModelChangedError):
        file.check_unchanged()


def test_a_file_that_is_written_without_end_is_refused(folder, monkeypatch):
    path = folder / "config.json"
    monkeypatch.setattr(files_module.time, "sleep", lambda seconds: path.write_bytes(path.read_bytes()))
    path.write_bytes(path.read_bytes())
    with pytest.raises(ModelChangedError):
        OpenFile(path, ConfigError)


def test_a_time_of_change_that_lies_ahead_is_no_reason_to_wait(folder, monkeypatch):
    long_ago = time.time_ns() - 10**15  # the clock has been set back since
    monkeypatch.setattr(files_module.time, "time_ns", lambda: long_ago)
    begin = time.perf_counter()
    OpenFile(folder / "config.json", ConfigError)
    assert time.perf_counter() - begin < 10  # and not 10 days


def test_a_model_that_is_replaced_again_and_again_is_loaded_whole_or_refused(folder):
    """Whole folders' worth of two models take turns, file by file and in place; no load may mix them."""
    twin = copy_checkpoint("narrow", folder.parent / "twin")
    edit_tensors(twin / "model.safetensors", lambda tensors: tensors.update({n: -a for n, a in tensors.items()}))
    models = [(path / "model.safetensors").read_bytes() for path in (folder, twin)]
    right = {CrossEncoder(path, backend="reference", activation_fn="identity").predict(PAIR) for path in (folder, twin)}
    stop = threading.Event()

    def keep_replacing() -> None:
        place, turn = folder / "model.safetensors", 0
        while not stop.is_set():
            turn += 1
            if turn % 3:
                (folder / "new").write_bytes(models[turn % 2])
                os.replace(folder / "new", place)
            else:
                place.write_bytes(models[turn % 2])
            time.sleep(0.02 * (turn % 5))

    writer = threading.Thread(target=keep_replacing)
    writer.start()
    scores, refused = [], 0
    try:
        for _ in range(30):
            try:
                scores.append(CrossEncoder(folder, backend="reference", activation_fn="identity").predict(PAIR))
            except (ModelChangedError, WeightsError):  # WeightsError: it was cut when it was looked at
                refused += 1
    finally:
        stop.set()
        writer.join()
    assert len(right) == 2
    assert set(scores) <= right
    assert refused + len(scores) == 30


def test_files_are_opened_once(folder, monkeypatch):
    opened: list[str] = []
    original = os.open

    def note(path, *rest, **named):
        opened.append(os.path.basename(path))
        return original(path, *rest, **named)

    monkeypatch.setattr(os, "open", note)
    CrossEncoder(folder, backend="reference")
    ours = sorted(name for name in opened if name.endswith((".json", ".safetensors")))
    assert ours == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_absent_and_present_names_are_told_apart(folder):
    with ModelFiles(folder) as files:
        assert "config.json" in files
        assert "nothing.json" not in files
        assert files.open("config.json", ConfigError) is files.open("config.json", ConfigError)
        assert "config.json" in files
        assert [file.path.name for file in files] == ["config.json"]


# ---- what is made at load


def test_token_types_are_few_since_each_is_added_to_every_position(folder):
    edit_json(folder / "config.json", lambda config: config.update(type_vocab_size=17))
    with pytest.raises(ConfigError, match="type_vocab_size: found 17, expected an integer from 1 to 16"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_running_out_of_memory_is_not_called_a_damaged_file(folder, monkeypatch, name):
    def exhaust(content):
        raise MemoryError

    monkeypatch.setattr(json, "loads", exhaust)
    with pytest.raises(MemoryError):
        load_checkpoint(folder)


# ---- numbers beyond float32


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bfloat16"])
@pytest.mark.parametrize("size", [1e20, 3e38])
def test_weights_whose_squares_leave_float32_are_no_score(folder, backend, dtype, size):
    if backend == "reference" and dtype != "float32":
        pytest.skip("the reference does not compute it")

    def spoil(tensors):
        tensors["bert.embeddings.word_embeddings.weight"][:, 3] = size

    edit_tensors(folder / "model.safetensors", spoil)
    with pytest.raises(NonFiniteScoreError):
        CrossEncoder(folder, backend=backend, dtype=dtype).predict(PAIR)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["xlm-roberta", "electra", "distilbert"])  # tanh, GELU and ReLU hide what is infinite
def test_sums_of_the_head_that_leave_float32_are_no_score(tmp_path, backend, name):
    folder = copy_checkpoint(name, tmp_path)

    def spoil(tensors):
        last = max(key for key in tensors if key.endswith(("output.LayerNorm.bias", "output_layer_norm.bias")))
        tensors[last][:] = -3.4e38

    edit_tensors(folder / "model.safetensors", spoil)
    with pytest.raises(NonFiniteScoreError):
        CrossEncoder(folder, backend=backend).predict(PAIR)


def test_a_folded_bias_beyond_float32_is_no_warning_and_no_score(folder):
    def spoil(tensors):
        tensors["bert.encoder.layer.0.attention.self.value.bias"][:] = 3e38

    edit_tensors(folder / "model.safetensors", spoil)
    with pytest.raises(NonFiniteScoreError):
        CrossEncoder(folder, backend="cpu").predict(PAIR)


def test_a_file_that_loading_did_not_need_is_not_copied_without_bound(folder, tmp_path):
    with (folder / "vocab.txt").open("wb") as file:
        file.truncate(2**40)  # without writing that much
    model = CrossEncoder(folder, backend="reference")
    with pytest.raises(SaveError, match=r"vocab\.txt: found 1099511627776 bytes, expected at most"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
