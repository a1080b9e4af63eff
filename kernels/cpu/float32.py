"""The arithmetic of float32: a word holds one number, a step is one k, and A is read where it is."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..parameters import Linear
from .isa import TILE_WIDTH
from .jit import kernel
from .memory import aligned_empty
from .micro_kernel import Product, float_tile, keep_whole
from .packed import Float32Linear, Operand
from .panels import fill_up_linear
from .simd import VECTOR, multiply_add
from .view import View, from_row

ZEROS = np.zeros(TILE_WIDTH, np.float32)  # what the sums of a product without a bias begin with


def pack_float32(layer: Linear) -> Float32Linear:
    """Fill up and reorder a layer; one that is little work stays float32 in every precision."""
    weight, bias = fill_up_linear(layer)
    outputs, inputs = weight.shape
    panels = aligned_empty(outputs // TILE_WIDTH, inputs, TILE_WIDTH)
    panels[...] = weight.reshape(-1, TILE_WIDTH, inputs).transpose(0, 2, 1)
    return Float32Linear(panels, bias)


def multiply_floats(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    """Emit a multiply-add of words that are floats."""
    return multiply_add(builder, builder.bitcast(a, VECTOR), builder.bitcast(b, VECTOR), sums)


_tile = float_tile(Product(keep_whole, multiply_floats, words=1, sums=VECTOR))


@kernel
def tile(a: View, rows: int, b: View, steps: int, start: View, c: View) -> None:
    """Compute one tile of a product, ``c = start + a @ b``, for the first `rows` of TILE_ROWS rows.

    Parameters
    ----------
    a, b, c : View
        Rows of the operands and of the result, which is TILE_WIDTH wide.
    rows : int
        Rows of A and C that exist, 1 to TILE_ROWS.
    steps : int
        Rows of B; the length K of the sums.
    start : View
        The row that the sums begin with: the bias, or zeros.
    """
    _tile(a, rows, b, steps, start, c)


def product_by(tile: Callable[..., None]) -> Callable[..., None]:
    """Make the `multiply` (products.py) of a kind of layer from its tile; all words of A are in `a`."""

    def multiply(a: View, operand: Operand, row: int, rows: int, layer: Any, panel: int, c: View) -> None:
        steps = layer.panels.shape[1]
        b = View(layer.panels, panel * steps * TILE_WIDTH, TILE_WIDTH)
        tile(from_row(a, row), rows, b, steps, View(layer.bias, panel * TILE_WIDTH, 0), c)

    return multiply


multiply_float32 = product_by(tile)
