"""The kernel cache can be neither a cause of failure nor of a wrong answer. Each case is a process of its own."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("numba", reason="the kernel cache is Numba's")

SCORE = """
import logging
logging.basicConfig()
from numbert import CrossEncoder
print(repr(CrossEncoder(num_threads=1).predict(("How many people?", "Seven people."))))
from numbert.kernels.cpu import micro_kernel, linear
print("hits", sum(sum(k.stats.cache_hits.values()) for k in (micro_kernel.tile, linear.feed_forward)))
"""


def score(cache: str, **environment: str) -> tuple[str, int, str]:
    """Score one pair in a new process; return the score, the cache hits of two kernels, and what was logged."""
    result = subprocess.run(
        [sys.executable, "-c", SCORE],
        capture_output=True, text=True, timeout=300, cwd=ROOT.parent,
        env={**os.environ, "NUMBERT_CACHE_DIR": cache, **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    value, hits = result.stdout.split("hits")
    return value.strip(), int(hits), result.stderr


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that one process has filled, and the score that it computed."""
    folder = tmp_path_factory.mktemp("cache")
    value, hits, log = score(str(folder))
    assert hits == 0
    assert log == ""
    return folder, value


def test_a_second_process_finds_the_kernels(filled):
    folder, value = filled
    assert score(str(folder)) == (value, 1, "")  # `tile` is part of the machine code of `feed_forward`


def test_the_directory_is_private_and_named_after_the_sources(filled):
    (folder,) = filled[0].iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert len(folder.name) == 24
    assert any(path.suffix == ".nbc" for path in folder.iterdir())


@pytest.mark.parametrize("damage", [b"", b"garbage", None], ids=["empty", "garbage", "cut"])
def test_a_damaged_entry_means_compile_again(filled, tmp_path, damage):
    source, value = filled
    (inner,) = source.iterdir()
    copy = tmp_path / inner.name
    copy.mkdir(mode=0o700)
    for path in inner.iterdir():
        content = path.read_bytes()
        (copy / path.name).write_bytes(content[: len(content) // 2] if damage is None else damage)
    again, hits, log = score(str(tmp_path))
    assert (again, hits) == (value, 0)
    assert log.count("kernel cache") == 1


def test_no_cache_at_all(filled):
    assert score("off") == (filled[1], 0, "")


def test_a_place_that_cannot_be_made_means_memory(filled, tmp_path):
    (tmp_path / "file").write_text("")
    assert score(str(tmp_path / "file" / "cache")) == (filled[1], 0, "")


def test_a_directory_that_others_can_write_is_not_used(filled, tmp_path):
    # Entries are pickles: whoever can write them can run code as us.
    tmp_path.chmod(0o777)
    value, hits, log = score(str(tmp_path))
    assert (value, hits) == (filled[1], 0)
    assert "can be written by other users" in log


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root can write everywhere")
def test_a_filled_read_only_cache_is_used(filled):
    folder, value = filled
    (inner,) = folder.iterdir()
    inner.chmod(0o500)
    try:
        assert score(str(folder)) == (value, 1, "")
    finally:
        inner.chmod(0o700)


@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_lower_instruction_sets_compute_the_same_score_and_keep_their_own_kernels(filled, tmp_path, isa):
    import numpy as np
    from numbert.kernels.cpu.isa import REQUIRED_FEATURES, target_features

    if not REQUIRED_FEATURES.get(isa, set()) <= target_features():
        pytest.skip(f"this processor has no {isa}")
    value, _, log = score(str(tmp_path), NUMBERT_ISA=isa)
    assert log == ""
    number, expected = (float(text.removeprefix("np.float32(").removesuffix(")")) for text in (value, filled[1]))
    np.testing.assert_allclose(number, expected, atol=2e-5)  # other sums, same precision; see test_blocks
    assert next(tmp_path.iterdir()).name != next(filled[0].iterdir()).name


def test_an_unknown_instruction_set_is_refused():
    result = subprocess.run(
        [sys.executable, "-c", "import numbert; numbert.CrossEncoder()"],
        capture_output=True, text=True, timeout=60, cwd=ROOT.parent, env={**os.environ, "NUMBERT_ISA": "avx1024"},
    )  # fmt: skip
    assert "NUMBERT_ISA: found 'avx1024', expected one of" in result.stderr


FORK_WHILE_COMPILING = """
import os, threading, time, warnings
warnings.simplefilter("ignore")
from numbert import CrossEncoder
model = CrossEncoder(num_threads=1)
thread = threading.Thread(target=model.predict, args=(("a", "b"),))
thread.start()
time.sleep(0.5)  # long before the kernels are compiled
child = os.fork()
if child == 0:
    model.predict(("a", "b"))
    os._exit(0)
_, status = os.waitpid(child, 0)
thread.join()
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_while_kernels_are_compiled_can_compile_them_too():
    environment = {**os.environ, "NUMBERT_CACHE_DIR": "off"}
    result = subprocess.run(
        [sys.executable, "-c", FORK_WHILE_COMPILING],
        capture_output=True, text=True, timeout=120, cwd=ROOT.parent, env=environment,
    )  # fmt: skip
    assert result.stdout.strip() == "0", result.stderr
