"""Weights in the order in which the kernels read them; done once, when a model is loaded.

The tile of micro_kernel.py wants TILE_WIDTH neighbouring outputs for one k, then the same outputs for the next k. So a
weight (N, K) becomes panels (N/TILE_WIDTH, K, TILE_WIDTH), read from beginning to end without a jump.

Sizes that are not multiples of TILE_WIDTH are filled up with zeros (C to C', D to D', F to F'). A zero column of a
weight times anything finite adds nothing, and a zero output stays zero through every block: no kernel has to treat a
remainder, and the zeros change no bit of a result. With the usual sizes nothing is filled.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy import float32, int32
from numpy.typing import NDArray

from ..parameters import Linear, Norm
from .isa import ISA, TILE_WIDTH
from .multiply import INT8_SHIFT

INT8_DEPTH = 64 if ISA.amx else TILE_WIDTH  # K' is a multiple of it in panels of int8
CACHE_LINE = 64  # bytes; a vector that crosses two lines costs two reads


class Float32Linear(NamedTuple):
    """A Linear in panels."""

    panels: NDArray[float32]  # (N'/TILE_WIDTH, K', TILE_WIDTH)
    bias: NDArray[float32]  # (N',)


class Bfloat16Linear(NamedTuple):
    """A Linear in panels of bfloat16: a word holds two neighbouring k."""

    panels: NDArray[int32]  # (N'/TILE_WIDTH, K'/2, TILE_WIDTH)
    bias: NDArray[float32]  # (N',)


class TwoPartLinear(NamedTuple):
    """A Linear whose weights are sums of two bfloat16; panels of the first parts, then of the second (amx.py)."""

    panels: NDArray[int32]  # (N'/TILE_WIDTH, 2*K'/2, TILE_WIDTH)
    bias: NDArray[float32]  # (N',)


class Int8Linear(NamedTuple):
    """A Linear in panels of int8: a word holds four neighbouring k."""

    panels: NDArray[int32]  # (N'/TILE_WIDTH, K'/4, TILE_WIDTH)
    bias: NDArray[float32]  # (N',)
    scale: NDArray[float32]  # (N',): weight = scale * int8
    start: NDArray[int32]  # (N',): what the sums begin with


PackedLinear = Float32Linear | Bfloat16Linear | TwoPartLinear | Int8Linear


class PackedNorm(NamedTuple):
    """A LayerNorm filled up with zeros, and the number of columns that are real."""

    gain: NDArray[float32]  # (C',)
    bias: NDArray[float32]  # (C',)
    eps: float
    width: int  # C


def aligned_empty(*shape: int, dtype: Any = float32) -> NDArray[Any]:
    """Make an uninitialised array that begins on a cache line (NumPy promises 16 bytes only)."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


def round_up(size: int) -> int:
    """Return the next multiple of TILE_WIDTH."""
    return -(-size // TILE_WIDTH) * TILE_WIDTH


def fill_up(array: NDArray[float32] | None, *shape: int) -> NDArray[float32]:
    """Copy into an aligned array of a larger shape; what is beyond the old one is zero, or all where there is none."""
    result = aligned_empty(*shape)
    if array is None or array.shape != shape:
        result.fill(0)
    if array is not None:
        result[tuple(slice(size) for size in array.shape)] = array
    return result


def pack_linear(layer: Linear, precision: str) -> PackedLinear:
    """Fill up, round and reorder a weight (N, K) and its bias (N,).

    Parameters
    ----------
    precision : {"float32", "high", "bfloat16", "int8"}
        How weights are stored and multiplied. "high" is the same as "float32" where the processor has nothing faster.
    """
    if precision == "bfloat16":
        weight, bias = _fill_up_linear(layer)
        return Bfloat16Linear(_pack_words(to_bfloat16(weight)), bias)
    if precision == "high" and ISA.amx:
        return _pack_two_parts(layer)
    if precision == "int8":
        return _pack_int8(layer)
    return pack_float32(layer)


def pack_float32(layer: Linear) -> Float32Linear:
    """Fill up and reorder a layer that stays float32 in every precision: one that is little work."""
    weight, bias = _fill_up_linear(layer)
    outputs, inputs = weight.shape
    panels = aligned_empty(outputs // TILE_WIDTH, inputs, TILE_WIDTH)
    panels[...] = weight.reshape(-1, TILE_WIDTH, inputs).transpose(0, 2, 1)
    return Float32Linear(panels, bias)


def _pack_two_parts(layer: Linear) -> TwoPartLinear:
    """Write the weight as a sum of two bfloat16: the nearest, and the nearest to what is left."""
    weight, bias = _fill_up_linear(layer)
    first = to_bfloat16(weight)
    second = to_bfloat16(weight - (first.astype(np.uint32) << 16).view(float32))
    parts = [_pack_words(first), _pack_words(second)]
    panels = aligned_empty(parts[0].shape[0], 2 * parts[0].shape[1], TILE_WIDTH, dtype=int32)
    np.concatenate(parts, axis=1, out=panels)
    return TwoPartLinear(panels, bias)


def _pack_int8(layer: Linear) -> Int8Linear:
    weight, bias = _fill_up_linear(layer)
    numbers, scale = quantize(weight)
    start = numbers.sum(axis=1, dtype=int32) * int32(-INT8_SHIFT)
    padding = -numbers.shape[1] % INT8_DEPTH
    if padding:  # of AMX registers. The numbers that the zeros meet can be any: whole numbers have no NaN
        numbers = np.pad(numbers, ((0, 0), (0, padding)))
    return Int8Linear(_pack_words(numbers), bias, scale, start)


def _fill_up_linear(layer: Linear) -> tuple[NDArray[float32], NDArray[float32]]:
    outputs, inputs = (round_up(size) for size in layer.weight.shape)
    weight = layer.weight
    if weight.shape != (outputs, inputs):  # else it is not copied
        weight = fill_up(weight, outputs, inputs)
    return weight, fill_up(layer.bias, outputs)


def _pack_words(weight: NDArray[Any]) -> NDArray[int32]:
    """Reorder a weight (N', K') of small numbers into panels of 32-bit words."""
    outputs, inputs = weight.shape
    in_word = 4 // weight.itemsize
    panels = aligned_empty(outputs // TILE_WIDTH, inputs // in_word, TILE_WIDTH, in_word, dtype=weight.dtype)
    panels[...] = weight.reshape(-1, TILE_WIDTH, inputs // in_word, in_word).transpose(0, 2, 1, 3)
    return panels.reshape(*panels.shape[:2], -1).view(int32)


def to_bfloat16(values: NDArray[float32]) -> NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even: the upper halves of the float32 numbers that come nearest."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def quantize(weight: NDArray[float32]) -> tuple[NDArray[np.int8], NDArray[float32]]:
    """Divide each row by its scale, so that its largest number becomes 127, and round: int8 (N, K) and scales (N,)."""
    scale = np.abs(weight).max(axis=1) / float32(127)
    safe = np.where(scale > 0, scale, float32(1))
    return np.rint(weight / safe[:, None]).astype(np.int8), scale


def take_panels(layer: PackedLinear, first: int, stop: int) -> PackedLinear:
    """Return some panels of a layer as a layer of their own; nothing is copied."""
    columns = slice(first * TILE_WIDTH, stop * TILE_WIDTH)
    kind: Any = type(layer)
    taken: PackedLinear = kind(layer.panels[first:stop], *(row[columns] for row in layer[1:]))
    return taken


def pack_norm(norm: Norm) -> PackedNorm:
    """Fill up gain and bias, which is 0 where there is none."""
    width = len(norm.gain)
    return PackedNorm(fill_up(norm.gain, round_up(width)), fill_up(norm.bias, round_up(width)), norm.eps, width)
