"""Multi-head attention over ragged pairs: softmax(Q K^T / sqrt(D)) V, one head of one pair at a time.

A pair's keys, TILE_ROWS rows of its scores and its values fit in the L1 and L2 caches together, so the plain three
steps run at the speed of the matrix products; the L x L matrix of scores never exists as a whole.
"""

from typing import Any

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from .isa import LANES, TILE_ROWS, TILE_WIDTH
from .jit import inlined, kernel
from .micro_kernel import tile
from .simd import fma, keep_first, load, maximum, reduce_add, reduce_max, splat, store, transpose_block
from .vector_math import exp

ZEROS = np.zeros(TILE_WIDTH, np.float32)  # what the sums of a product without a bias begin with


@inlined
def transpose_keys(key: Any, key_at: int, length: int, width: int, panels: Any) -> None:
    """Write K^T of one head (L, D') as panels (L'/TILE_WIDTH, D', TILE_WIDTH), the form in which `tile` reads B."""
    for row in range(0, length, LANES):
        panel, lane = divmod(row, TILE_WIDTH)
        for d in range(0, width, LANES):
            to = (panel * width + d) * TILE_WIDTH + lane
            transpose_block(key, key_at + row * width + d, width, panels, to, TILE_WIDTH)


@inlined
def exponentiate_row(scores: Any, at: int, length: int, scale: float) -> float32:
    """Replace a row of scores by exp(scale * (score - maximum)) and return the sum.

    Columns from `length` on hold the products of what follows the pair in memory; they become 0.
    """
    lowest = splat(float32(-np.inf))
    highest = lowest
    whole = length // LANES * LANES
    for j in range(0, whole, LANES):
        highest = maximum(highest, load(scores, at + j))
    if whole < length:
        highest = maximum(highest, keep_first(load(scores, at + whole), length - whole, lowest))
    peak = reduce_max(highest)
    total = splat(float32(0))
    for j in range(0, whole, LANES):
        weight = exp((load(scores, at + j) - peak) * scale)
        store(scores, at + j, weight)
        total = total + weight
    if whole < length:
        rest = keep_first(exp((load(scores, at + whole) - peak) * scale), length - whole, splat(float32(0)))
        store(scores, at + whole, rest)
        total = total + rest
    return reduce_add(total)


@inlined
def add_bias(scores: Any, at: int, length: int, scale: float, bias: Any, bias_at: int) -> None:
    """Replace a row of scores by scale * score + bias of each distance."""
    factor = splat(float32(scale))
    for j in range(0, length, LANES):
        store(scores, at + j, fma(load(scores, at + j), factor, load(bias, bias_at + j)))


@kernel
def attend(
    query: NDArray[float32],
    query_offsets: NDArray[int64],
    query_positions: NDArray[int64],
    key_value: NDArray[float32],
    offsets: NDArray[int64],
    scale: float,
    relative_bias: NDArray[float32] | None,
    key_panels: NDArray[float32],
    scores: NDArray[float32],
    sums: NDArray[float32],
    context: NDArray[float32],
) -> None:
    """Write the attention of each query row over the keys and values of its pair.

    Parameters
    ----------
    query : ndarray, shape (H, queries or more, D')
        Pair b asks with the rows query_offsets[b] to query_offsets[b+1]; the first of them is query_positions[b] in
        the pair.
    key_value : ndarray, shape (2H, T + TILE_WIDTH, D')
        Keys of all heads, then values; pair b is rows offsets[b] to offsets[b+1]. The rows after T are read, not used.
    scale : float
        1 / sqrt(D).
    relative_bias : ndarray, shape (H, 2 positions - 1 + TILE_WIDTH), or None
        What is added to the scaled scores; column positions - 1 is distance 0. (With None, Numba leaves the addition
        out of the machine code.)
    key_panels : ndarray, shape (D' * longest pair rounded up,)
        Scratch.
    scores : ndarray, shape (TILE_ROWS, longest pair rounded up)
        Scratch; the row length in use is that of the pair.
    sums : ndarray, shape (TILE_ROWS,)
        Scratch.
    context : ndarray, shape (queries, H*D')
        Its first row belongs to query_offsets[0].
    """
    heads, queries, width = query.shape
    capacity = key_value.shape[1]
    for pair in range(offsets.size - 1):
        if query_offsets[pair] == query_offsets[pair + 1]:
            continue
        start, length = offsets[pair], offsets[pair + 1] - offsets[pair]
        padded = (length + TILE_WIDTH - 1) // TILE_WIDTH * TILE_WIDTH
        for head in range(heads):
            value_at = ((heads + head) * capacity + start) * width
            transpose_keys(key_value, (head * capacity + start) * width, length, width, key_panels)
            for row in range(query_offsets[pair], query_offsets[pair + 1], TILE_ROWS):
                rows = min(TILE_ROWS, query_offsets[pair + 1] - row)
                for column in range(0, padded, TILE_WIDTH):
                    tile(
                        query, (head * queries + row) * width, width, rows,
                        key_panels, column * width, TILE_WIDTH, width, ZEROS, 0, scores, column, padded,
                    )  # fmt: skip
                out_at = ((row - query_offsets[0]) * heads + head) * width
                for i in range(rows):
                    if relative_bias is not None:
                        columns = relative_bias.shape[1]
                        place = query_positions[pair] + row + i - query_offsets[pair]
                        distance_0 = head * columns + (columns - TILE_WIDTH) // 2
                        add_bias(scores, i * padded, length, scale, relative_bias, distance_0 - place)
                        sums[i] = exponentiate_row(scores, i * padded, length, 1.0)
                    else:
                        sums[i] = exponentiate_row(scores, i * padded, length, scale)
                for column in range(0, width, TILE_WIDTH):
                    tile(
                        scores, 0, padded, rows, key_value, value_at + column, width, length,
                        ZEROS, 0, context, out_at + column, heads * width,
                    )  # fmt: skip
                for i in range(rows):
                    inverse = float32(1) / sums[i]
                    for column in range(0, width, LANES):
                        at = out_at + i * heads * width + column
                        store(context, at, load(context, at) * inverse)
