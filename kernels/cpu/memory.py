"""Arrays that begin on a cache line."""

import math
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

CACHE_LINE = 64  # bytes; a vector that crosses two lines costs two reads


def aligned_empty(*shape: int, dtype: Any = float32) -> NDArray[Any]:
    """Make an uninitialised array that begins on a cache line (NumPy promises 16 bytes only)."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(dtype).reshape(shape)
