"""What a machine or its settings can withhold: each is a BackendError that says so, and no process ends or hangs."""

import os
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("numba", reason="the settings are Numba's, or of kernels that it compiles")

# What follows may fail; afterwards the reference must still compute.
TRY = """
import logging, sys
logging.basicConfig()
from numbert import BackendError, CrossEncoder
try:
    CrossEncoder(num_threads=1).predict(("a", "b"))
    print("no error")
except BackendError as error:
    print(error)
print(CrossEncoder(backend="reference").predict(("a", "b")).dtype)
"""


def run(program: str, **environment: str) -> list[str]:
    """Run a program in a new process; return the lines that it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, timeout=120, cwd=ROOT.parent, env={**os.environ, **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NUMBERT_ISA": "foo"}, "NUMBERT_ISA: found 'foo', expected one of"),
        ({"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT: found 1, expected 0"),
        pytest.param(
            # An extension that AMD has given up and Intel never had.
            {"NUMBA_CPU_FEATURES": "+tbm"},
            "NUMBA_CPU_FEATURES: found None, '+tbm', expected no more than",
            marks=pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="it is of x86-64"),
        ),
    ],
    ids=["NUMBERT_ISA", "NUMBA_DISABLE_JIT", "NUMBA_CPU_FEATURES"],
)
def test_a_setting_that_kernels_cannot_have_is_named(environment, message):
    found, reference = run(TRY, **environment)
    assert found.startswith("backend 'cpu': ")
    assert message in found
    assert reference == "float32"


# All that numbert needs besides is imported before, so that Numba is what does not fit.
LITTLE_MEMORY = """
import resource
from numbert import CrossEncoder
CrossEncoder(backend="reference").predict(("a", "b"))
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**26, -1))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit and the size are Linux's")
def test_too_little_address_space_is_named():
    found, reference = run(LITTLE_MEMORY + TRY)
    assert found.startswith("backend 'cpu': Numba cannot be loaded (OSError: ")
    assert "address space" in found
    assert reference == "float32"


REFUSED_MEMORY = """
import sys
class Refusal:
    def find_spec(name, path, target=None):
        if name == "numba":
            raise MemoryError
sys.meta_path.insert(0, Refusal)
"""


def test_too_little_memory_is_named():
    found, reference = run(REFUSED_MEMORY + TRY)
    assert found.startswith("backend 'cpu': Numba cannot be loaded (MemoryError: ")
    assert reference == "float32"


# One thread after the other is refused: while the model is loaded, for requests of many shards and of a shared one.
NO_THREADS = """
import threading
import numpy as np
from numbert import BackendError, CrossEncoder
from numbert.engine import workers
start, left = threading.Thread.start, 0
def start_some(thread):
    global left
    if left == 0:
        raise RuntimeError("can't start new thread")
    left -= 1
    start(thread)
def forget_threads():
    if workers._crew is not None:
        workers._crew.close()
    workers._crew = workers.Crew(3)
few, many = [("a", "b " * 60)] * 2 + [("a", "c " * 90)], [("a", f"b {number} " * 30) for number in range(60)]
model = CrossEncoder(num_threads=3)
expected = [model.predict(pairs) for pairs in (few, many)]
threading.Thread.start = start_some
for allowed in range(3):
    left = allowed
    try:
        CrossEncoder(num_threads=3)
    except BackendError as error:
        print("load:", error)
    for pairs, scores in zip((few, many), expected):
        forget_threads()
        for call in range(2):
            left = allowed
            try:
                assert (model.predict(pairs) == scores).all()
                assert allowed or pairs is few  # what is small, the caller can compute
            except BackendError as error:
                print("predict:", error)
        left = 3
        assert (model.predict(pairs) == scores).all()
print("done")
"""


def test_threads_that_cannot_be_started_are_named_and_the_model_is_usable_afterwards():
    *messages, last = run(NO_THREADS)
    assert last == "done"
    assert len(messages) == 2  # from the calls that are allowed none; loading does without
    for message in messages:
        assert message.startswith("predict: threads: the system starts none, expected one at least; let it allow")
