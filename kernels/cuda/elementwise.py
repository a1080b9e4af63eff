"""What is done row by row: lookup, LayerNorm, and the choice of first tokens. LANES threads take a row."""

import math
from typing import Any

from numba import cuda, float32, int32

from .primitives import LANES, SIMULATED, device_function, lane_sum

ROWS = 2 if SIMULATED else 4  # of a block
THREADS = ROWS * LANES


@device_function
def _normalize_row(x: Any, at: int, gain: Any, bias: Any, eps: float, width: int, stride: int) -> None:
    """Replace a row by its LayerNorm; columns from `width` to `stride` become 0."""
    scratch = cuda.shared.array(THREADS, float32)
    thread = int32(cuda.threadIdx.x)
    lane = thread % LANES
    total = float32(0)
    for i in range(lane, width, LANES):
        total += x[at + i]
    mean = lane_sum(total, thread, scratch) / float32(width)
    total = float32(0)
    for i in range(lane, width, LANES):
        centred = x[at + i] - mean
        total += centred * centred
    variance = lane_sum(total, thread, scratch) / float32(width)
    inverse = float32(1) / math.sqrt(variance + float32(eps)) + (variance - variance)  # NaN of an infinite variance
    for i in range(lane, stride, LANES):
        x[at + i] = (x[at + i] - mean) * inverse * gain[i] + bias[i]  # beyond the width, gain and bias are 0


@cuda.jit
def embed(
    tokens: Any, count: int, word: Any, place: Any, positions: int,
    gain: Any, bias: Any, eps: float, width: int, stride: int, x: Any,
) -> None:  # fmt: skip
    """Write the normalised sum of word vector and place vector of each token.

    tokens: ids, token types, positions, `count` of each, int32; word, place: tables with rows of `stride`, the latter
    with `positions` rows for each token type; x: (count, stride). A grid of count / ROWS blocks of THREADS
    threads.
    """
    lane, row = int32(cuda.threadIdx.x) % LANES, int32(cuda.blockIdx.x) * ROWS + int32(cuda.threadIdx.x) // LANES
    token = min(row, count - 1)  # rows beyond the last token exist (packing.py) and can hold anything
    word_at = tokens[token] * stride
    place_at = (tokens[count + token] * positions + tokens[2 * count + token]) * stride
    for i in range(lane, stride, LANES):
        x[row * stride + i] = word[word_at + i] + place[place_at + i]
    _normalize_row(x, row * stride, gain, bias, eps, width, stride)


@cuda.jit
def normalize(x: Any, gain: Any, bias: Any, eps: float, width: int, stride: int) -> None:
    """Replace each row of x (any, stride) by its LayerNorm over the first `width` columns. Grid as `embed`."""
    row = int32(cuda.blockIdx.x) * ROWS + int32(cuda.threadIdx.x) // LANES
    _normalize_row(x, row * stride, gain, bias, eps, width, stride)


@cuda.jit
def gather(x: Any, rows: Any, stride: int, out: Any) -> None:
    """Copy rows of x: out[i] = x[rows[i]]. A grid of a block for each, of any number of threads."""
    row = int32(cuda.blockIdx.x)
    for i in range(int32(cuda.threadIdx.x), stride, int32(cuda.blockDim.x)):
        out[row * stride + i] = x[rows[row] * stride + i]
