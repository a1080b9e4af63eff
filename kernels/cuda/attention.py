"""Attention within pairs of any lengths, without padding and without a matrix of scores in memory.

A block of threads takes up to QUERIES queries of one head of one pair, a thread each. Keys and values pass by in shared
memory, KEYS at a time; every thread reads the same ones at once. Softmax is computed as they pass: the weights are
exponentials relative to the largest score so far, and when a larger one comes, what was summed up is scaled down.
Source: M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax" (2018); T. Dao et al.,
"FlashAttention" (2022).
"""

import functools
import math
from typing import Any

from numba import cuda, float32, int32

from .primitives import ALIGNMENT, SIMULATED, dots, load, scaled, store, weighted_sum, zeros

QUERIES, KEYS = (8, 8) if SIMULATED else (64, 32)
AT_ONCE = 4  # keys whose scores are computed together; the four chains of sums do not wait for each other


@functools.cache
def make_attention(head_width: int, has_bias: bool) -> Any:
    """Make the kernel for heads of `head_width` numbers, a multiple of 4; with or without a bias for the distance.

    Returns
    -------
    kernel
        Takes `query` (rows, stride) with the first column of the first head and the stride; `key_value` the same way
        with first columns of keys and of values; where the queries and the keys of each pair begin, (B+1,) each,
        int32; the scale of the scores; `bias` (H, 2 `positions` - 1), of which one column is taken for each distance
        from query to key; and `out` (rows, stride). Queries are those of the first tokens of their pair. A grid of
        (most queries of a pair / QUERIES, heads, pairs) blocks of QUERIES threads.
    """
    tile = KEYS * head_width
    vectors = head_width // 4

    @cuda.jit
    def attend(
        query: Any, query_column: int, query_stride: int,
        key_value: Any, key_column: int, value_column: int, key_value_stride: int,
        query_offsets: Any, key_offsets: Any, scale: float, bias: Any, positions: int, out: Any, out_stride: int,
    ) -> None:  # fmt: skip
        keys = cuda.shared.array(tile, float32, alignment=ALIGNMENT)  # the simulator wants a line for each
        values = cuda.shared.array(tile, float32, alignment=ALIGNMENT)
        thread, head, pair = int32(cuda.threadIdx.x), int32(cuda.blockIdx.y), int32(cuda.blockIdx.z)
        first_query, first_key = query_offsets[pair], key_offsets[pair]
        queries, length = query_offsets[pair + 1] - first_query, key_offsets[pair + 1] - first_key
        if int32(cuda.blockIdx.x) * QUERIES >= queries:
            return
        # Threads without a query compute the last one again, and do not store it
        own_place = int32(cuda.blockIdx.x) * QUERIES + thread
        place = min(own_place, queries - 1)
        row = first_query + place
        own = load(query, row * query_stride + query_column + head * head_width, head_width)
        own = scaled(own, float32(scale))
        sums, total, largest = zeros(head_width), float32(0), float32(-math.inf)
        for first in range(0, length, KEYS):
            count = min(KEYS, length - first)
            for vector in range(thread, KEYS * vectors, QUERIES):
                key, part = vector // vectors, vector % vectors * 4
                # Beyond the last key, the last one: its weight will be 0, and 0 times what lies there may be NaN
                at = (first_key + first + min(key, count - 1)) * key_value_stride + head * head_width + part
                store(keys, vector * 4, load(key_value, at + key_column, 4))
                store(values, vector * 4, load(key_value, at + value_column, 4))
            cuda.syncthreads()
            for key in range(0, count, AT_ONCE):
                scores = dots(own, keys, key * head_width, head_width, AT_ONCE)
                s0, s1, s2, s3 = scores[0], scores[1], scores[2], scores[3]
                if has_bias:
                    distance = head * (2 * positions - 1) + positions - 1 - place + first + key
                    last = count - 1 - key
                    s0 += bias[distance]
                    s1 += bias[distance + min(1, last)]
                    s2 += bias[distance + min(2, last)]
                    s3 += bias[distance + min(3, last)]
                s1 = s1 if key + 1 < count else float32(-math.inf)
                s2 = s2 if key + 2 < count else float32(-math.inf)
                s3 = s3 if key + 3 < count else float32(-math.inf)
                new_largest = max(max(s0, s1), max(s2, s3), largest)
                factor = math.exp(largest - new_largest)
                weights = (
                    math.exp(s0 - new_largest),
                    math.exp(s1 - new_largest),
                    math.exp(s2 - new_largest),
                    math.exp(s3 - new_largest),
                )
                total = total * factor + ((weights[0] + weights[1]) + (weights[2] + weights[3]))
                sums = weighted_sum(sums, factor, weights, values, key * head_width, head_width)
                largest = new_largest
            cuda.syncthreads()
        if own_place < queries:
            store(out, row * out_stride + head * head_width, scaled(sums, float32(1) / total))

    return attend
