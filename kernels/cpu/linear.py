"""Matrix products over blocks of rows, and what is done to their results while these are still in the cache.

Loop order: a block of ROW_BLOCK rows of the input stays in the L2 cache while every panel of the weight passes by
once; within a panel (in L1), tile after tile of rows is computed.
"""

from typing import Any

from numpy import float32
from numpy.typing import NDArray

from .elementwise import add_and_normalize
from .isa import LANES, TILE_ROWS, TILE_WIDTH
from .jit import kernel
from .operands import Operand, begin_tiles, end_tiles, multiply, prepare, rows_in_tile
from .packing import PackedLinear, PackedNorm
from .simd import load, store
from .vector_math import gelu, relu, tanh

ROW_BLOCK = 8 * TILE_ROWS  # 96 where AMX is: whole tiles of AMX too
TANH, GELU, RELU = range(3)  # activations of a head


@kernel
def project_heads(
    x: NDArray[float32], layer: PackedLinear, operand: Operand, out: NDArray[float32], out_row: int
) -> None:
    """Write x @ weight.T + bias from row `out_row` on, each head's columns as a matrix of their own.

    x: (T, C'); operand: scratch for ROW_BLOCK rows; out: (heads in the layer, out_row + T or more, D').
    """
    depth, capacity, width = x.shape[1], out.shape[1], out.shape[2]
    step = rows_in_tile(layer)
    begin_tiles(layer)
    for first in range(0, x.shape[0], ROW_BLOCK):
        rows = min(ROW_BLOCK, x.shape[0] - first)
        prepare(x, first * depth, rows, layer, operand)
        for panel in range(layer.panels.shape[0]):
            head, column = divmod(panel * TILE_WIDTH, width)
            for row in range(0, rows, step):
                to = (head * capacity + out_row + first + row) * width + column
                multiply(x, first * depth, operand, row, min(step, rows - row), layer, panel, out, to, width)
    end_tiles(layer)


@kernel
def linear_rows(a: Any, a_at: int, rows: int, layer: PackedLinear, operand: Operand, out: Any) -> None:
    """Write a @ weight.T + bias for `rows` rows of a (from position `a_at`) into the first rows of out (R, N')."""
    width, step = layer.bias.size, rows_in_tile(layer)
    prepare(a, a_at, rows, layer, operand)
    begin_tiles(layer)
    for panel in range(layer.panels.shape[0]):
        for row in range(0, rows, step):
            at = row * width + panel * TILE_WIDTH
            multiply(a, a_at, operand, row, min(step, rows - row), layer, panel, out, at, width)
    end_tiles(layer)


@kernel
def gelu_linear_rows(a: Any, a_at: int, rows: int, layer: PackedLinear, operand: Operand, out: Any) -> None:
    """Write gelu(a @ weight.T + bias), as `linear_rows`; each tile is bent while it is in the L1 cache."""
    width, step = layer.bias.size, rows_in_tile(layer)
    prepare(a, a_at, rows, layer, operand)
    begin_tiles(layer)
    for panel in range(layer.panels.shape[0]):
        for row in range(0, rows, step):
            count = min(step, rows - row)
            at = row * width + panel * TILE_WIDTH
            multiply(a, a_at, operand, row, count, layer, panel, out, at, width)
            for i in range(count):
                for j in range(0, TILE_WIDTH, LANES):
                    store(out, at + i * width + j, gelu(load(out, at + i * width + j)))
    end_tiles(layer)


@kernel
def linear_residual_norm(
    a: NDArray[float32],
    layer: PackedLinear,
    norm: PackedNorm,
    operand: Operand,
    product: NDArray[float32],
    x: NDArray[float32],
) -> None:
    """Replace x by LayerNorm(x + a @ weight.T + bias), block by block of rows.

    a: (T, K'); operand, product (ROW_BLOCK, C'): scratch; x: (T, C').
    """
    depth, width = a.shape[1], x.shape[1]
    for first in range(0, x.shape[0], ROW_BLOCK):
        rows = min(ROW_BLOCK, x.shape[0] - first)
        linear_rows(a, first * depth, rows, layer, operand, product)
        for i in range(rows):
            at = (first + i) * width
            add_and_normalize(x, at, product, i * width, norm, x, at)


@kernel
def feed_forward(
    x: NDArray[float32],
    up: PackedLinear,
    down: PackedLinear,
    norm: PackedNorm,
    operand: Operand,
    hidden: NDArray[float32],
    product: NDArray[float32],
) -> None:
    """Replace x by LayerNorm(x + down(gelu(up(x)))); the F-wide intermediate exists for one block of rows only.

    x: (T, C'); operand, hidden (ROW_BLOCK, F'), product (ROW_BLOCK, C'): scratch.
    """
    width = x.shape[1]
    for first in range(0, x.shape[0], ROW_BLOCK):
        rows = min(ROW_BLOCK, x.shape[0] - first)
        gelu_linear_rows(x, first * width, rows, up, operand, hidden)
        linear_rows(hidden, 0, rows, down, operand, product)
        for i in range(rows):
            at = (first + i) * width
            add_and_normalize(x, at, product, i * width, norm, x, at)


@kernel
def head(
    x: NDArray[float32],
    dense: PackedLinear,
    activation: int,
    output: PackedLinear,
    operand: Operand,
    pooled: NDArray[float32],
    logits: NDArray[float32],
) -> None:
    """Write output(activation(dense(x))). x: (B, C'); operand, pooled (B, C'): scratch; logits: (B, labels')."""
    rows = x.shape[0]
    linear_rows(x, 0, rows, dense, operand, pooled)
    for i in range(0, pooled.size, LANES):
        value = load(pooled, i)
        value = value + (value - value)  # NaN of what has left float32: the activations would hide it
        if activation == TANH:
            store(pooled, i, tanh(value))
        elif activation == GELU:
            store(pooled, i, gelu(value))
        else:
            store(pooled, i, relu(value))
    linear_rows(pooled, 0, rows, output, operand, logits)
