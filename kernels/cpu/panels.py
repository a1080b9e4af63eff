"""The order in which a weight's numbers lie in memory: that in which the kernels read them.

The tile of micro_kernel.py wants TILE_WIDTH neighbouring outputs for one k, then the same outputs for the next k. So a
weight (N, K) becomes panels (N/TILE_WIDTH, K, TILE_WIDTH), read from beginning to end without a jump.

Sizes that are not multiples of TILE_WIDTH are filled up with zeros (C to C', D to D', F to F'). A zero column of a
weight times anything finite adds nothing, and a zero output stays zero through every block: no kernel has to treat a
remainder, and the zeros change no bit of a result. What sums over a row masks (elementwise.py, head.py). With the usual
sizes nothing is filled.
"""

from typing import Any

from numpy import float32, int32
from numpy.typing import NDArray

from ..parameters import Linear
from .isa import ISA, TILE_WIDTH
from .memory import aligned_empty


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


def fill_up_linear(layer: Linear) -> tuple[NDArray[float32], NDArray[float32]]:
    """Fill up a weight (N, K), copied only if need be, and its bias (N,)."""
    outputs, inputs = (round_up(size) for size in layer.weight.shape)
    weight = layer.weight
    if weight.shape != (outputs, inputs):
        weight = fill_up(weight, outputs, inputs)
    return weight, fill_up(layer.bias, outputs)


def make_panels(weight: NDArray[Any]) -> NDArray[int32]:
    """Reorder a weight (N', K') of numbers of 1 or 2 bytes into panels of 32-bit words, of neighbouring k each.

    Where matrices of 2 rows are multiplied (mmla.py), two words of an output stand side by side; so do two rows of B.
    """
    outputs, inputs = weight.shape
    together = (8 if ISA.int8 == "matrix" else 4) // weight.itemsize
    panels = aligned_empty(outputs // TILE_WIDTH, inputs // together, TILE_WIDTH, together, dtype=weight.dtype)
    panels[...] = weight.reshape(-1, TILE_WIDTH, inputs // together, together).transpose(0, 2, 1, 3)
    return panels.reshape(len(panels), -1).view(int32).reshape(len(panels), -1, TILE_WIDTH)
