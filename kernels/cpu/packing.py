"""Weights in the form in which the kernels read them, which also says how they multiply; done once, at load."""

from typing import Any, NamedTuple

from numpy import float32
from numpy.typing import NDArray

from ..parameters import Linear, Norm
from .bfloat16 import Bfloat16Linear, TwoPartLinear, pack_bfloat16, pack_two_parts
from .float32 import Float32Linear, pack_float32
from .int8 import Int8Linear, pack_int8
from .isa import ISA, TILE_WIDTH
from .panels import fill_up, round_up

__all__ = ["fill_up", "pack_float32", "round_up"]  # for the blocks, beside what is below
PackedLinear = Float32Linear | Bfloat16Linear | TwoPartLinear | Int8Linear


class PackedNorm(NamedTuple):
    """A LayerNorm filled up with zeros, and the number of columns that are real."""

    gain: NDArray[float32]  # (C',)
    bias: NDArray[float32]  # (C',)
    eps: float
    width: int  # C


class PackedFeedForward(NamedTuple):
    """The layers of a feed-forward block."""

    up: PackedLinear  # (F', C')
    gate: PackedLinear | None  # (F', C')
    down: PackedLinear  # (C', F')
    activation: int  # place in ACTIVATIONS
    norm: PackedNorm


class PackedConvolution(NamedTuple):
    """What mixes neighbours."""

    layer: PackedLinear  # (C', W*C')
    width: int  # W
    activation: int
    norm: PackedNorm


def pack_linear(layer: Linear, precision: str) -> PackedLinear:
    """Fill up, round and reorder a weight (N, K) and its bias (N,).

    Parameters
    ----------
    precision : {"float32", "high", "bfloat16", "int8"}
        How weights are stored and multiplied. "high" is the same as "float32" where the processor has nothing faster.
    """
    if precision == "bfloat16":
        return pack_bfloat16(layer)
    if precision == "high" and ISA.amx:
        return pack_two_parts(layer)
    if precision == "int8":
        return pack_int8(layer)
    return pack_float32(layer)


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
