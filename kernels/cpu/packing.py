"""Weights in the order in which the kernels read them; done once, when a model is loaded.

The tile of micro_kernel.py wants TILE_WIDTH neighbouring outputs for one k, then the same outputs for the next k. So a
weight (N, K) becomes panels (N/TILE_WIDTH, K, TILE_WIDTH), read from beginning to end without a jump.

Sizes that are not multiples of TILE_WIDTH are filled up with zeros (C to C', D to D', F to F'). A zero column of a
weight times anything finite adds nothing, and a zero output stays zero through every block: no kernel has to treat a
remainder, and the zeros change no bit of a result. With the usual sizes nothing is filled.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from ..parameters import LayerNorm, Linear
from .isa import TILE_WIDTH

CACHE_LINE = 64  # bytes; a vector that crosses two lines costs two reads


class PackedLinear(NamedTuple):
    """A Linear in panels."""

    panels: NDArray[float32]  # (N'/TILE_WIDTH, K', TILE_WIDTH)
    bias: NDArray[float32]  # (N',)


class PackedNorm(NamedTuple):
    """A LayerNorm filled up with zeros, and the number of columns that are real."""

    gain: NDArray[float32]  # (C',)
    bias: NDArray[float32]  # (C',)
    eps: float
    width: int  # C


def aligned_empty(*shape: int) -> NDArray[float32]:
    """Make an uninitialised float32 array that begins on a cache line (NumPy promises 16 bytes only)."""
    size = int(np.prod(shape)) * 4
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(float32).reshape(shape)


def round_up(size: int) -> int:
    """Return the next multiple of TILE_WIDTH."""
    return -(-size // TILE_WIDTH) * TILE_WIDTH


def fill_up(array: NDArray[Any], *shape: int) -> NDArray[float32]:
    """Copy into an aligned array of a larger shape; what is beyond the old one is zero."""
    result = aligned_empty(*shape)
    if array.shape != shape:
        result.fill(0)
    result[tuple(slice(size) for size in array.shape)] = array
    return result


def pack_linear(layer: Linear) -> PackedLinear:
    """Fill up and reorder a weight (N, K) and its bias (N,)."""
    outputs, inputs = (round_up(size) for size in layer.weight.shape)
    weight = layer.weight
    if weight.shape != (outputs, inputs):
        weight = fill_up(weight, outputs, inputs)
    panels = aligned_empty(outputs // TILE_WIDTH, inputs, TILE_WIDTH)
    panels[...] = weight.reshape(-1, TILE_WIDTH, inputs).transpose(0, 2, 1)
    return PackedLinear(panels, fill_up(layer.bias, outputs))


def pack_norm(norm: LayerNorm) -> PackedNorm:
    """Fill up gain and bias."""
    width = len(norm.gain)
    return PackedNorm(fill_up(norm.gain, round_up(width)), fill_up(norm.bias, round_up(width)), norm.eps, width)


def split_outputs(layer: Linear, num_heads: int) -> Linear:
    """Fill up each head of a query, key or value weight (H*D, C) to D' rows: (H*D', C)."""
    width = len(layer.bias) // num_heads
    padding = round_up(width) - width
    weight = np.pad(layer.weight.reshape(num_heads, width, -1), ((0, 0), (0, padding), (0, 0)))
    bias = np.pad(layer.bias.reshape(num_heads, width), ((0, 0), (0, padding)))
    return Linear(weight.reshape(num_heads * (width + padding), -1), bias.ravel())


def split_inputs(layer: Linear, num_heads: int) -> Linear:
    """Fill up each head's columns of the output weight (C, H*D): (C, H*D')."""
    outputs, inputs = layer.weight.shape
    width = inputs // num_heads
    padding = round_up(width) - width
    weight = np.pad(layer.weight.reshape(outputs, num_heads, width), ((0, 0), (0, 0), (0, padding)))
    return Linear(weight.reshape(outputs, -1), layer.bias)
