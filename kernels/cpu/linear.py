"""Matrix products over blocks of rows, and what is done to their results while these are still in the cache.

Loop order: a block of ROW_BLOCK rows of the input stays in the L2 cache while every panel of the weight passes by
once; within a panel (in L1, or L2 where it is deep), tile after tile of rows is computed.
"""

from typing import Any

from numpy import float32, int64
from numpy.typing import NDArray

from ..parameters import Positions, Stream
from .elementwise import add_and_normalize
from .isa import ISA, LANES, TILE_WIDTH
from .jit import kernel
from .packed import Operand, PackedConvolution, PackedFeedForward, PackedLinear, PackedNorm
from .positions import turn_rows
from .products import begin_tiles, end_tiles, multiply, prepare, rows_in_tile
from .simd import keep_between, load, splat, store
from .vector_math import activate
from .view import View

ROW_BLOCK = ISA.row_block


@kernel
def project_heads(
    x: NDArray[float32],
    places: NDArray[int64],
    layer: PackedLinear,
    positions: Positions,
    turned: int,
    operand: Operand,
    out: NDArray[float32],
    out_row: int,
) -> None:
    """Write x @ weight.T + bias from row `out_row` on, each head's columns as a matrix of their own.

    The first `turned` heads, those of queries and keys, are turned by their rows' places in the pair, while they are in
    the cache. x: (T, C'); places: (T,), or anything where nothing is turned; operand: scratch for ROW_BLOCK rows; out:
    (heads in the layer, out_row + T or more, D').
    """
    depth, capacity, width = x.shape[1], out.shape[1], out.shape[2]
    step = rows_in_tile(layer)
    begin_tiles(layer)
    for first in range(0, x.shape[0], ROW_BLOCK):
        rows = min(ROW_BLOCK, x.shape[0] - first)
        a = prepare(View(x, first * depth, depth), rows, layer, operand)
        for panel in range(layer.panels.shape[0]):
            head, column = divmod(panel * TILE_WIDTH, width)
            block = (head * capacity + out_row + first) * width
            for row in range(0, rows, step):
                to = block + row * width + column
                multiply(a, operand, row, min(step, rows - row), layer, panel, View(out, to, width))
            if head < turned and column + TILE_WIDTH == width:
                turn_rows(out, block, width, places[first : first + rows], positions)
    end_tiles(layer)


@kernel
def linear_rows(x: Any, first: int, rows: int, layer: PackedLinear, operand: Operand, out: Any) -> None:
    """Write x @ weight.T + bias for `rows` rows of x (T, K') from row `first` on into the first rows of out (R, N')."""
    depth, width, step = x.shape[1], layer.bias.size, rows_in_tile(layer)
    a = prepare(View(x, first * depth, depth), rows, layer, operand)
    begin_tiles(layer)
    for panel in range(layer.panels.shape[0]):
        for row in range(0, rows, step):
            to = row * width + panel * TILE_WIDTH
            multiply(a, operand, row, min(step, rows - row), layer, panel, View(out, to, width))
    end_tiles(layer)


@kernel
def activated_linear_rows(
    x: Any, first: int, rows: int, layer: PackedLinear, activation: int, operand: Operand, out: Any
) -> None:
    """Write activation(x @ weight.T + bias), as `linear_rows`; each tile is bent while it is in the L1 cache."""
    depth, width, step = x.shape[1], layer.bias.size, rows_in_tile(layer)
    a = prepare(View(x, first * depth, depth), rows, layer, operand)
    begin_tiles(layer)
    for panel in range(layer.panels.shape[0]):
        for row in range(0, rows, step):
            count = min(step, rows - row)
            at = row * width + panel * TILE_WIDTH
            multiply(a, operand, row, count, layer, panel, View(out, at, width))
            for i in range(count):
                for j in range(0, TILE_WIDTH, LANES):
                    store(out, at + i * width + j, activate(load(out, at + i * width + j), activation))
    end_tiles(layer)


@kernel
def multiply_rows_into(
    x: Any, first: int, rows: int, layer: PackedLinear, operand: Operand, column: Any, out: NDArray[float32]
) -> None:
    """Multiply the first rows of out (R, N'), number by number, by x @ weight.T + bias of rows from `first` on.

    column: scratch for TILE_WIDTH numbers of so many rows as a tile has.
    """
    depth, width, step = x.shape[1], layer.bias.size, rows_in_tile(layer)
    a = prepare(View(x, first * depth, depth), rows, layer, operand)
    begin_tiles(layer)
    for panel in range(layer.panels.shape[0]):
        for row in range(0, rows, step):
            count = min(step, rows - row)
            multiply(a, operand, row, count, layer, panel, View(column, 0, TILE_WIDTH))
            for i in range(count):
                for j in range(0, TILE_WIDTH, LANES):
                    at = (row + i) * width + panel * TILE_WIDTH + j
                    store(out, at, load(out, at) * load(column, i * TILE_WIDTH + j))
    end_tiles(layer)


@kernel
def convolve_rows(
    x: NDArray[float32],
    starts: NDArray[int64],
    stops: NDArray[int64],
    first: int,
    weights: PackedConvolution,
    operand: Operand,
    beside: NDArray[float32],
    out: NDArray[float32],
) -> None:
    """Write activation(layer(rows around each row)) for the rows of x from `first` on; beyond their pair are zeros.

    x: (T, C'); starts, stops: (rows,), of the pair of each row; beside: (ROW_BLOCK, W*C'), scratch; out: (rows, C').
    """
    width = x.shape[1]
    taps = weights.width
    for block in range(0, out.shape[0], ROW_BLOCK):
        rows = min(ROW_BLOCK, out.shape[0] - block)
        for i in range(rows):
            for tap in range(taps):
                row, at = first + block + i + tap - taps // 2, (i * taps + tap) * width
                inside = starts[block + i] <= row and row < stops[block + i]
                for j in range(0, width, LANES):
                    store(beside, at + j, load(x, row * width + j) if inside else splat(float32(0)))
        activated_linear_rows(beside, 0, rows, weights.layer, weights.activation, operand, out[block : block + rows])


@kernel
def add_rows(change: NDArray[float32], norm: PackedNorm, stream: Stream) -> None:
    """Add rows to the sum, and write LayerNorm of that; change: (T, C'), like the stream.

    What fills up its rows becomes 0 again: there are activations that make something of nothing.
    """
    for at in range(0, change.size, change.shape[1]):
        for i in range(0, change.shape[1], LANES):
            store(change, at + i, keep_between(load(change, at + i), 0, norm.width - i, splat(float32(0))))
        add_and_normalize(stream.sum, at, change, at, norm, stream.normed, at)


@kernel
def linear_residual_norm(
    a: NDArray[float32],
    layer: PackedLinear,
    norm: PackedNorm,
    operand: Operand,
    product: NDArray[float32],
    stream: Stream,
) -> None:
    """Add a @ weight.T + bias to the sum, and write LayerNorm of that, block by block of rows.

    In post-norm models sum and normed are one array, so that the norm takes the place of the sum.

    a: (T, K'); operand, product (ROW_BLOCK, C'): scratch; stream: of (T, C').
    """
    width = stream.sum.shape[1]
    for first in range(0, a.shape[0], ROW_BLOCK):
        rows = min(ROW_BLOCK, a.shape[0] - first)
        linear_rows(a, first, rows, layer, operand, product)
        for i in range(rows):
            at = (first + i) * width
            add_and_normalize(stream.sum, at, product, i * width, norm, stream.normed, at)


@kernel
def feed_forward(
    stream: Stream,
    weights: PackedFeedForward,
    gate: PackedLinear | None,
    operand: Operand,
    hidden: NDArray[float32],
    product: NDArray[float32],
) -> None:
    """Add down(activation(up(x))), or down(activation(gate(x)) * up(x)), to the sum, and write LayerNorm of that.

    x is what is normed in the stream, of (T, C'). The F-wide intermediate exists for one block of rows only.
    gate: that of the weights, as a parameter of its own: only so Numba leaves out what there is not.
    operand, hidden (ROW_BLOCK, F'), product (ROW_BLOCK, C'): scratch.
    """
    x, width, activation = stream.normed, stream.normed.shape[1], weights.activation
    for first in range(0, x.shape[0], ROW_BLOCK):
        rows = min(ROW_BLOCK, x.shape[0] - first)
        if gate is None:
            activated_linear_rows(x, first, rows, weights.up, activation, operand, hidden)
        else:
            activated_linear_rows(x, first, rows, gate, activation, operand, hidden)
            multiply_rows_into(x, first, rows, weights.up, operand, product, hidden)  # product is not in use yet: lent
        linear_rows(hidden, 0, rows, weights.down, operand, product)
        for i in range(rows):
            at = (first + i) * width
            add_and_normalize(stream.sum, at, product, i * width, weights.norm, stream.normed, at)
