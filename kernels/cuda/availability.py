"""Whether this machine can compute on a GPU, and if not, what is missing and how to get it."""

import contextlib
import importlib.util

from numba import cuda

from .primitives import SIMULATED

INSTALL = "pip install 'numbert[cuda]' (with a driver older than 580: pip install 'numba-cuda[cu12]')"
TENSOR_CORES_FROM = (8, 0)  # compute capability that multiplies bfloat16


def find_problem(precision: str) -> str | None:
    """Return what is missing for this precision, with one thing to do, or None.

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
    """
    if importlib.util.find_spec("numba_cuda") is None:  # Numba's own numba.cuda is older, and cannot align memory
        return f"numba-cuda is not installed; {INSTALL}"
    if SIMULATED:
        return None
    if not _has_compiler():
        return f"the CUDA compiler library (libNVVM) is not installed; {INSTALL}"
    if not cuda.is_available():
        return f"no GPU can be used ({_reason()}); install NVIDIA's driver, or use device='cpu'"
    found = cuda.get_current_device().compute_capability
    if precision == "bfloat16" and tuple(found) < TENSOR_CORES_FROM:
        return f"the GPU has compute capability {found[0]}.{found[1]}, bfloat16 needs 8.0; use dtype='float32'"
    return None


def _has_compiler() -> bool:
    from numba.cuda.cudadrv import nvvm

    with contextlib.suppress(Exception):  # what is raised differs between numba-cuda and numba's own numba.cuda
        nvvm.NVVM()
        return True
    return False


def _reason() -> str:
    """Return the first line of the driver's complaint."""
    from numba.cuda.cudadrv.driver import driver

    lines = [line.strip().rstrip(".:") for line in str(driver.initialization_error or "").splitlines()]
    return next((line for line in lines if line and line != "Error at driver init"), "the driver finds none")
