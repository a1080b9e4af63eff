"""Float32 numbers brought to fewer bits: weights once, in NumPy; rows of activations in each product.

bfloat16    the nearest that has 8 significant bits, ties to even
int8        each row is divided by a scale of its own, so that its largest number becomes 127, and rounded
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy import float32
from numpy.typing import NDArray

from .amx import SIDE
from .isa import ISA, LANES
from .jit import inlined, intrinsic
from .simd import (
    INT_VECTOR,
    VECTOR,
    constant,
    element_pointer,
    larger_size,
    load,
    reduce_larger_size,
    splat,
    store_vector,
    vector,
    vector_function,
)

AMX = ISA.amx  # Numba takes a truth value as a global, but no InstructionSet

# ---- weights


def to_bfloat16(values: NDArray[float32]) -> NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even: the upper halves of the float32 numbers that come nearest."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def quantize(weight: NDArray[float32]) -> tuple[NDArray[np.int8], NDArray[float32]]:
    """Divide each row by its scale, so that its largest number becomes 127, and round: int8 (N, K) and scales (N,)."""
    scale = np.abs(weight).max(axis=1) / float32(127)
    safe = np.where(scale > 0, scale, float32(1))
    return np.rint(weight / safe[:, None]).astype(np.int8), scale


# ---- rows of activations


@inlined
def word_index(row: int, word: int, row_words: int) -> int:
    """Return where a word of a row stands: row after row, or for AMX in blocks of 16 rows by 16 words."""
    if AMX:
        return row // SIDE * SIDE * row_words + word // SIDE * SIDE * SIDE + row % SIDE * SIDE + word % SIDE
    return row * row_words + word


@inlined
def find_scale(a: Any, at: int, width: int, scales: NDArray[float32], row: int) -> float32:
    """Note the scale of a row of a, from flat position `at`, and return its inverse; for zeros, both are 0."""
    largest = splat(float32(0))
    for i in range(0, width, LANES):
        largest = larger_size(largest, load(a, at + i))
    size = reduce_larger_size(largest)
    scales[row] = size / float32(127)
    return float32(127) / size if size > 0 else size


def narrowing_store(narrow: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make a function that writes a vector as smaller numbers, to position `index` of an array of 32-bit words."""

    def declare(typingctx: Any, words: Any, index: Any, values: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            words, index, values = args
            pointer = element_pointer(context, builder, sig.args[0], words, index)
            store_vector(builder, narrow(builder, values), pointer)
            return context.get_dummy_value()

        return types.void(words, types.int64, vector), codegen

    return intrinsic(declare)


def _bfloat16_bits(builder: Any, values: Any) -> Any:
    """Round to the nearest, ties to even; the lower half is not cleared. (NaN as arithmetic makes it stays NaN.)"""
    bits = builder.bitcast(values, INT_VECTOR)
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    return builder.add(builder.add(bits, constant(0x7FFF)), odd)


def _to_bfloat16(builder: Any, values: Any) -> Any:
    halves = builder.lshr(_bfloat16_bits(builder, values), constant(16))
    return builder.trunc(halves, ir.VectorType(ir.IntType(16), LANES))


def _nearest_bfloat16(builder: Any, values: Any) -> Any:
    return builder.bitcast(builder.and_(_bfloat16_bits(builder, values), constant(-65536)), VECTOR)


nearest_bfloat16 = vector_function(1, _nearest_bfloat16)  # as float32
store_bfloat16 = narrowing_store(_to_bfloat16)
