"""What a machine without a GPU, a driver or numbert[cuda] gets to hear."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba", reason="needs Numba")
from conftest import ROOT
from numba import cuda
from numbert import BackendError, CrossEncoder
from numbert.kernels.cuda import availability


def finding(other):
    """A find_spec that asks `other` for packages of others, and finds modules of numbert, which have relative names."""
    find = availability.importlib.util.find_spec
    return lambda name, package=None: find(name, package) if name.startswith(".") else other(name)


@pytest.fixture
def machine(monkeypatch):
    """A machine that has everything; tests take things away."""
    monkeypatch.setattr(availability, "SIMULATED", False)
    monkeypatch.setattr(availability.importlib.util, "find_spec", finding(lambda name: name))
    monkeypatch.setattr(availability, "_has_compiler", lambda: True)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_current_device", lambda: type("Device", (), {"compute_capability": (7, 5)}))
    return monkeypatch


def test_nothing_is_missing(machine):
    assert availability.find_problem("float32") is None


def test_the_extra_is_missing(machine):
    machine.setattr(availability.importlib.util, "find_spec", finding(lambda name: None))
    with pytest.raises(BackendError, match=r"numba-cuda is not installed; pip install 'numbert\[cuda\]'"):
        CrossEncoder(device="cuda")


def test_kernels_that_cannot_be_imported_are_an_error_and_no_reason_to_compute_with_numpy(machine):
    machine.setitem(sys.modules, "numbert.kernels.cuda.blocks", None)
    with pytest.raises(BackendError, match=r"device 'cuda': numba\.cuda cannot be imported .*install numbert\[cuda\]"):
        CrossEncoder(device="cuda")


def test_the_compiler_is_missing(machine):
    machine.setattr(availability, "_has_compiler", lambda: False)
    with pytest.raises(BackendError, match=r"libNVVM\) is not installed; pip install"):
        CrossEncoder(backend="cuda")


def test_the_driver_is_missing(machine):
    machine.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"no GPU can be used \(.+\); install NVIDIA's driver, or use device='cpu'"):
        CrossEncoder(device="cuda:0")


def test_the_gpu_is_too_old_for_bfloat16(machine):
    with pytest.raises(BackendError, match=r"compute capability 7.5, bfloat16 needs 8.0; use dtype='float32'"):
        CrossEncoder(device="cuda", dtype="bfloat16")


def test_no_device_means_the_cpu_and_nothing_of_cuda_is_imported():
    code = """
import sys
from numbert import CrossEncoder
model = CrossEncoder()
model.predict(("a", "b"))
print(model.device, any(name.startswith(("numba.cuda", "numba_cuda", "numbert.kernels.cuda")) for name in sys.modules))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, env=os.environ, check=True
    )
    assert result.stdout.split() == ["cpu", "False"]


def test_small_grids_are_no_reason_to_warn_unless_the_user_wants_it():
    code = "import numbert.kernels.cuda.blocks, numba; print(numba.config.CUDA_LOW_OCCUPANCY_WARNINGS)"
    found = []
    for wish in ({}, {"NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": "1"}):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent,
            env=os.environ | wish, check=True,
        )  # fmt: skip
        found.append(result.stdout.strip())
    assert found == ["0", "1"]
