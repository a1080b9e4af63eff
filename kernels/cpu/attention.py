"""Multi-head attention over ragged pairs: softmax(Q K^T / sqrt(D)) V, one head of one pair at a time.

A pair's keys, TILE_ROWS rows of its scores and its values fit in the L1 and L2 caches together, so the plain three
steps run at the speed of the matrix products; the L x L matrix of scores never exists as a whole. Where queries see a
window only, TILE_ROWS of them are compared with no more keys than one of them sees.
"""

from typing import Any

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from .disentangled import BLOCK, Tile, add_c2p, add_p2c, prepare_p2c
from .float32 import ZEROS, tile
from .isa import LANES, TILE_ROWS, TILE_WIDTH
from .jit import inlined, kernel
from .packed import ScoreRule
from .positions import add_distance_scores, seen
from .simd import keep_between, load, maximum, reduce_add, reduce_max, splat, store
from .transpose import transpose_block
from .vector_math import exp
from .view import View


@inlined
def transpose_keys(key: View, length: int, panels: Any) -> None:
    """Write K^T of one head (L, D') as panels (L'/TILE_WIDTH, D', TILE_WIDTH), the form in which `tile` reads B.

    Of the last panel, lanes beyond the pair may stay as they were: their scores are hidden.
    """
    width = key.stride
    for row in range(0, length, LANES):
        panel, lane = divmod(row, TILE_WIDTH)
        for d in range(0, width, LANES):
            block = View(key.array, key.at + row * width + d, width)
            transpose_block(block, View(panels, (panel * width + d) * TILE_WIDTH + lane, TILE_WIDTH))


@inlined
def exponentiate_row(scores: Any, at: int, begin: int, first: int, last: int, stop: int, scale: float) -> float32:
    """Replace a row of scores, from flat position `at` on, by exp(scale * (score - maximum)) and return the sum.

    Parameters
    ----------
    begin, stop : int
        Columns that are read afterwards; `begin` is a multiple of LANES.
    first, last : int
        Those of them that count. The others, before `first` and from `last` on, become 0: they hold products with keys
        that this query does not see, or with what follows the pair in memory.
    """
    lowest, zero = splat(float32(-np.inf)), splat(float32(0))
    whole = (first + LANES - 1) // LANES * LANES  # the vectors from here to `rest` count as a whole
    rest = max(last // LANES * LANES, whole)
    highest = lowest
    for j in range(begin, whole, LANES):
        highest = maximum(highest, keep_between(load(scores, at + j), first - j, last - j, lowest))
    for j in range(whole, rest, LANES):
        highest = maximum(highest, load(scores, at + j))
    for j in range(rest, stop, LANES):
        highest = maximum(highest, keep_between(load(scores, at + j), first - j, last - j, lowest))
    peak = reduce_max(highest)
    total = zero
    for j in range(begin, whole, LANES):
        weight = keep_between(exp((load(scores, at + j) - peak) * scale), first - j, last - j, zero)
        store(scores, at + j, weight)
        total = total + weight
    for j in range(whole, rest, LANES):
        weight = exp((load(scores, at + j) - peak) * scale)
        store(scores, at + j, weight)
        total = total + weight
    for j in range(rest, stop, LANES):
        weight = keep_between(exp((load(scores, at + j) - peak) * scale), first - j, last - j, zero)
        store(scores, at + j, weight)
        total = total + weight
    return reduce_add(total)


@kernel
def attend(
    query: NDArray[float32],
    query_offsets: NDArray[int64],
    query_places: NDArray[int64],
    key_value: NDArray[float32],
    offsets: NDArray[int64],
    rule: ScoreRule,
    scratch: NDArray[float32],
    context: NDArray[float32],
) -> None:
    """Write the attention of each query row over the keys and values of its pair.

    Parameters
    ----------
    query : ndarray, shape (H or more, queries or more, D')
        Its first heads are those of queries. Pair b asks with the rows query_offsets[b] to query_offsets[b+1]; the
        first of them is query_places[b] in the pair.
    key_value : ndarray, shape (2H or more, T + TILE_WIDTH, D')
        Its last heads are the keys of all heads, then values; pair b is rows offsets[b] to offsets[b+1]. The rows
        after T are read, not used.
    rule : ScoreRule
    scratch : ndarray, shape (scratch_size(longest pair, D'),): see scratch.py
    context : ndarray, shape (queries, H*D')
        Its first row belongs to query_offsets[0].
    """
    queries, capacity, width = query.shape[1], key_value.shape[1], query.shape[2]
    heads = context.shape[1] // width
    first_key = key_value.shape[0] - 2 * heads
    for pair in range(offsets.size - 1):
        if query_offsets[pair] == query_offsets[pair + 1]:
            continue
        start, length = offsets[pair], offsets[pair + 1] - offsets[pair]
        padded = (length + TILE_WIDTH - 1) // TILE_WIDTH * TILE_WIDTH
        # The scratch: keys in panels, then TILE_ROWS rows of scores, then the sum of each, then what distances add
        scores_at = width * padded
        sums_at = scores_at + TILE_ROWS * padded
        met_at = sums_at + TILE_ROWS
        first_row, end = query_offsets[pair], query_offsets[pair + 1]
        for head in range(heads):
            value_at = ((first_key + heads + head) * capacity + start) * width
            head_keys = View(key_value, ((first_key + head) * capacity + start) * width, width)
            transpose_keys(head_keys, length, scratch)
            for row in range(first_row, end, TILE_ROWS):
                rows = min(TILE_ROWS, end - row)
                place = query_places[pair] + row - first_row
                first_seen, stop = seen(rule.reach, place, place + rows - 1, length)
                begin = first_seen // TILE_WIDTH * TILE_WIDTH
                asked = View(query, (head * queries + row) * width, width)
                in_block = (row - first_row) % BLOCK
                if in_block == 0:
                    block = Tile(asked, min(BLOCK, end - row), place, head, length, padded)
                    prepare_p2c(head_keys, block, rule.positions, scratch, met_at)
                for column in range(begin, stop, TILE_WIDTH):
                    keys, to = View(scratch, column * width, TILE_WIDTH), View(scratch, scores_at + column, padded)
                    tile(asked, rows, keys, width, View(ZEROS, 0, 0), to)
                some = Tile(asked, rows, place, head, length, padded)
                add_p2c(View(scratch, scores_at, padded), some, in_block, rule.positions, met_at)
                add_c2p(View(scratch, scores_at, padded), some, rule.positions, met_at)
                out_at = ((row - query_offsets[0]) * heads + head) * width
                for i in range(rows):
                    at = scores_at + i * padded
                    first, last = seen(rule.reach, place + i, place + i, length)
                    scale = add_distance_scores(scratch, at, length, head, place + i, rule)
                    scratch[sums_at + i] = exponentiate_row(scratch, at, begin, first, last, stop, scale)
                weights = View(scratch, scores_at + begin, padded)
                for column in range(0, width, TILE_WIDTH):
                    values = View(key_value, value_at + begin * width + column, width)
                    to = View(context, out_at + column, heads * width)
                    tile(weights, rows, values, stop - begin, View(ZEROS, 0, 0), to)
                for i in range(rows):
                    inverse = float32(1) / scratch[sums_at + i]
                    for column in range(0, width, LANES):
                        at = out_at + i * heads * width + column
                        store(context, at, load(context, at) * inverse)
