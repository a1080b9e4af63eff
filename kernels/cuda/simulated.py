"""The primitives in plain Python, for Numba's simulator, where a thread of the GPU is a thread of Python.

primitives.py says what each does. `lane_sum` goes by way of shared memory, as the simulator has no shuffles, with fewer
lanes, as its threads are slow; `multiply_fragments` computes a lane's sums from the definition of the matrix product.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .fragments import PLACES

LANES = 4
Values = NDArray[Any]  # a thread's own numbers, tuples on hardware; NumPy's arrays are faster here


def device_function(function: Callable[..., Any]) -> Any:
    """See primitives.py. (The simulator's own way costs 0.1 ms a call.)"""
    return function


def load(array: Any, at: int, count: int) -> Values:
    """See primitives.py."""
    return np.array(array[at : at + count])


def store(array: Any, at: int, values: Any) -> None:
    """See primitives.py."""
    array[at : at + len(values)] = values


def load_rows(array: Any, at: int, stride: int, count: int) -> Values:
    """See primitives.py."""
    return np.concatenate([load(array, at + row * stride, 4) for row in range(count)])


def store_rows(array: Any, at: int, stride: int, values: Values, count: int) -> None:
    """See primitives.py."""
    for row, part in enumerate(np.split(values, count)):
        store(array, at + row * stride, part)


def store_columns(array: Any, at: int, column_stride: int, stride: int, values: Values) -> None:
    """See primitives.py."""
    for i, value in enumerate(values):
        array[at + i % 4 * column_stride + i // 4 * stride] = value


def zeros(count: int) -> Values:
    """See primitives.py."""
    return np.zeros(count, np.float32)


def round_pairs(values: Values) -> Values:
    """See primitives.py."""
    bits = values.view(np.uint32)
    halves = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return (halves[::2] | halves[1::2] << 16).view(np.int32)


def scaled(values: Values, factor: Any) -> Values:
    """See primitives.py."""
    return values * np.float32(factor)


def outer_products(
    a: Any, a_at: int, a_stride: int, b: Any, b_at: int, b_stride: int, half: int, steps: int, sums: Values
) -> Values:
    """See primitives.py."""
    for step in range(steps):
        b_from = b_at + step * b_stride
        b_values = np.concatenate([load(b, b_from, 4), load(b, b_from + half, 4)])
        sums = sums + np.multiply.outer(load(a, a_at + step * a_stride, 8), b_values).ravel()
    return sums


def _rows(array: Any, at: int, stride: int, count: int, width: int) -> Values:
    return np.array([load(array, at + i * stride, width) for i in range(count)])


def dots(query: Values, array: Any, at: int, stride: int, count: int) -> Values:
    """See primitives.py."""
    return _rows(array, at, stride, count, len(query)) @ query


def weighted_sum(sums: Values, factor: Any, weights: Any, array: Any, at: int, stride: int) -> Values:
    """See primitives.py."""
    rows = _rows(array, at, stride, len(weights), len(sums))
    return sums * np.float32(factor) + np.array(weights, np.float32) @ rows


def _bfloat16_rows(array: Any, at: int, rows: Any, stride: int) -> Values:
    words = np.array([load(array, at + row * stride, 8) for row in rows], np.int32)
    return (words.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def multiply_fragments(a: Any, a_at: int, b: Any, b_at: int, stride: int, lane: int, sums: Values) -> Values:
    """See primitives.py."""
    group, member = lane // 4, lane % 4
    rows, columns = sorted({row for row, _ in PLACES}), sorted({column for _, column in PLACES})
    a_first, b_first = a_at - member, b_at - member - group * stride  # of the group's row, of the warp's first column
    a_rows = _bfloat16_rows(a, a_first, rows, stride)
    b_rows = _bfloat16_rows(b, b_first + 2 * member * stride, columns, stride)
    products = a_rows @ b_rows.T
    return sums + np.array([products[rows.index(row), columns.index(column)] for row, column in PLACES])


def lane_sum(value: Any, thread: int, scratch: Any) -> Any:
    """See primitives.py."""
    meet: Any = threading.current_thread()  # the simulator's thread, which has `syncthreads`
    scratch[thread] = value
    meet.syncthreads()
    first = thread // LANES * LANES
    total = scratch[first : first + LANES].sum()
    meet.syncthreads()
    return total
