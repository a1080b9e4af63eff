"""Weights in GPU memory, in the order in which the kernels read them; done once, when a model is loaded.

Every size is filled up with zeros to whole blocks (C to C', F to F'; heads to multiples of 4, D to D'), and every array
of activations has whole blocks of rows. A zero column of a weight adds nothing, and a zero output stays zero through
every block; so no kernel has to treat a remainder.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError
from numpy import float32, int32
from numpy.typing import NDArray

from ..parameters import Linear, Norm
from .linear import BLOCK_COLUMNS, BLOCK_ROWS

DeviceArray = Any  # numba.cuda's array in GPU memory; flat, all of them


class PackedLinear(NamedTuple):
    """A Linear in one of two forms: float32 (K', N'), or bfloat16 (N', K'/2) in words of two."""

    weight: DeviceArray
    bias: DeviceArray  # (N',)
    inputs: int  # K'
    outputs: int  # N'
    precision: str


class PackedNorm(NamedTuple):
    """A LayerNorm filled up with zeros, and the number of columns that are real."""

    gain: DeviceArray  # (C',)
    bias: DeviceArray  # (C',)
    eps: float
    width: int  # C
    stride: int  # C'


def round_up(size: int, unit: int = BLOCK_COLUMNS) -> int:
    """Return the next multiple."""
    return -(-size // unit) * unit


def round_up_rows(rows: int) -> int:
    """Return the rows that an array of activations has for so many tokens: whole blocks."""
    return round_up(rows, BLOCK_ROWS)


def fill_up(array: NDArray[float32] | None, *shape: int) -> NDArray[float32]:
    """Copy into an array of a larger shape; what is beyond the old one is zero, or all where there is none."""
    result = np.zeros(shape, float32)
    if array is not None:
        result[tuple(slice(size) for size in array.shape)] = array
    return result


def upload(array: NDArray[Any], stream: Any = 0) -> DeviceArray:
    """Copy to GPU memory, flat.

    Raises
    ------
    MemoryError
        When there is no room for it.
    """
    try:
        return cuda.to_device(np.ascontiguousarray(array).ravel(), stream=stream)
    except CudaAPIError as error:
        if "OUT_OF_MEMORY" not in str(error):
            raise
        raise MemoryError(
            f"GPU memory: found no room for {array.nbytes / 2**20:.0f} MiB more; use a smaller batch_size or model, or"
            " end other programs that use the GPU"
        ) from error


def pack_linear(layer: Linear, precision: str) -> PackedLinear:
    """Fill up, round or transpose, and upload a weight (N, K) and its bias (N,).

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
    """
    outputs, inputs = (round_up(size) for size in layer.weight.shape)
    weight = fill_up(layer.weight, outputs, inputs)
    packed = upload(to_bfloat16_words(weight)) if precision == "bfloat16" else upload(weight.T)
    return PackedLinear(packed, upload(fill_up(layer.bias, outputs)), inputs, outputs, precision)


def to_bfloat16_words(values: NDArray[float32]) -> NDArray[int32]:
    """Round to the nearest bfloat16, ties to even, and join neighbours: (N, K) to (N, K/2), the earlier one below."""
    bits = values.view(np.uint32)
    halves = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    return halves.view("<i4").astype(int32, copy=False)


def pack_norm(norm: Norm) -> PackedNorm:
    """Fill up and upload gain and bias."""
    width, stride = len(norm.gain), round_up(len(norm.gain))
    return PackedNorm(upload(fill_up(norm.gain, stride)), upload(fill_up(norm.bias, stride)), norm.eps, width, stride)
