"""The primitives in plain Python, for Numba's simulator, where a thread of the GPU is a thread of Python.

primitives.py says what each does. `lane_sum` goes by way of shared memory, as the simulator has no shuffles, with fewer
lanes, as its threads are slow; `multiply_fragments` computes a lane's sums from the definition of the matrix product.
"""

from typing import Any

import numpy as np
from numba import cuda, float32

from .fragments import PLACES

LANES = 4
MOST_THREADS = 256
Values = tuple[Any, ...]


def load(array: Any, at: int, count: int) -> Values:
    """See primitives.py."""
    return tuple(array[at + i] for i in range(count))


def store(array: Any, at: int, values: Values) -> None:
    """See primitives.py."""
    for i, value in enumerate(values):
        array[at + i] = value


def load_rows(array: Any, at: int, stride: int, count: int) -> Values:
    """See primitives.py."""
    return tuple(value for row in range(count) for value in load(array, at + row * stride, 4))


def store_rows(array: Any, at: int, stride: int, values: Values, count: int) -> None:
    """See primitives.py."""
    width = len(values) // count
    for row in range(count):
        store(array, at + row * stride, values[row * width : (row + 1) * width])


def store_columns(array: Any, at: int, column_stride: int, stride: int, values: Values) -> None:
    """See primitives.py."""
    for i, value in enumerate(values):
        array[at + i % 4 * column_stride + i // 4 * stride] = value


def zeros(count: int) -> Values:
    """See primitives.py."""
    return (np.float32(0),) * count


def round_pairs(values: Values) -> Values:
    """See primitives.py."""
    bits = np.array(values, np.float32).view(np.uint32)
    halves = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return tuple((halves[::2] | halves[1::2] << 16).view(np.int32))


def scaled(values: Values, factor: Any) -> Values:
    """See primitives.py."""
    return tuple(value * factor for value in values)


def outer_product(a: Values, b: Values, sums: Values) -> Values:
    """See primitives.py."""
    added = np.array(sums, np.float32).reshape(len(a), len(b)) + np.outer(a, b)
    return tuple(added.ravel())


def _rows(array: Any, at: int, stride: int, count: int, width: int) -> Any:
    return np.array([load(array, at + i * stride, width) for i in range(count)], np.float32)


def dots(query: Values, array: Any, at: int, stride: int, count: int) -> Values:
    """See primitives.py."""
    return tuple(_rows(array, at, stride, count, len(query)) @ np.array(query, np.float32))


def weighted_sum(sums: Values, factor: Any, weights: Values, array: Any, at: int, stride: int) -> Values:
    """See primitives.py."""
    rows = _rows(array, at, stride, len(weights), len(sums))
    return tuple(np.array(sums, np.float32) * np.float32(factor) + np.array(weights, np.float32) @ rows)


def _bfloat16_row(array: Any, at: int) -> Any:
    words = np.array(load(array, at, 8), np.int32)
    return (words.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


@cuda.jit(device=True)
def multiply_fragments(a: Any, a_at: int, b: Any, b_at: int, stride: int, sums: Values) -> Values:
    """See primitives.py."""
    group, member = cuda.threadIdx.x % 32 // 4, cuda.threadIdx.x % 4
    a_first, b_first = a_at - member, b_at - member - group * stride  # of the group's row, of the warp's first column
    added = []
    for (row, column), total in zip(PLACES, sums, strict=True):
        a_row = _bfloat16_row(a, a_first + row * stride)
        b_row = _bfloat16_row(b, b_first + (2 * member + column) * stride)
        added.append(total + a_row @ b_row)
    return tuple(added)


@cuda.jit(device=True)
def lane_sum(value: Any) -> Any:
    """See primitives.py."""
    scratch = cuda.shared.array(MOST_THREADS, float32)
    scratch[cuda.threadIdx.x] = value
    cuda.syncthreads()
    first = cuda.threadIdx.x // LANES * LANES
    total = scratch[first : first + LANES].sum()
    cuda.syncthreads()
    return total
