"""Matrix products out = finish(a @ weight + bias), in two tiers of one shape.

A block of threads computes a block of rows and columns. Step by step along the inner size, it copies a piece of `a` and
of the weight to shared memory, while the piece before is multiplied: two buffers in turns, one meeting of the threads
for each step. The next piece is on its way from memory in registers meanwhile.

    float32    each thread keeps 8 x 8 sums; 16 numbers from shared memory serve 64 multiply-adds
    bfloat16   each warp keeps 64 x 32 sums, multiplied by tensor cores (compute capability 8.0 and later)

All sizes are multiples of the block's (packing.py), so that no thread has to ask where the matrix ends: rows beyond the
last token are computed from what lies there, and nobody reads them. An element of `out` is one chain of sums in the
order of the inner size, whatever else is in the batch.
"""

import functools
import math
from typing import Any

from numba import cuda, float32, int32

from .fragments import SUMS, WARP_COLUMNS, WARP_ROWS
from .primitives import (
    ALIGNMENT,
    SIMULATED,
    device_function,
    load,
    load_rows,
    multiply_fragments,
    outer_products,
    round_pairs,
    store,
    store_columns,
    store_rows,
    zeros,
)

# The simulator runs each thread as one of Python: there the blocks are as small as their code allows.
THREADS_DOWN, THREADS_ACROSS = (2, 2) if SIMULATED else (16, 8)  # float32
WARPS_DOWN, WARPS_ACROSS = (1, 1) if SIMULATED else (2, 2)  # bfloat16
PER_THREAD = 8  # rows, and columns, of the sums of a thread in float32
THREAD_SUMS = PER_THREAD * PER_THREAD
DEPTH = 16  # of the inner size in a step of float32
UNROLL = 8  # of these, in one turn of the inner loop
DEPTH_WORDS = 16  # the same for bfloat16, in words of two numbers
# Words from row to row in shared memory: 20 rows * 8 groups + 4 members meet each of the 32 banks once.
STRIDE_WORDS = 20
BLOCK_ROWS = max(PER_THREAD * THREADS_DOWN, WARP_ROWS * WARPS_DOWN)
BLOCK_COLUMNS = max(PER_THREAD * THREADS_ACROSS, WARP_COLUMNS * WARPS_ACROSS, 2 * DEPTH_WORDS)
NONE, ADD, GELU, TANH, RELU = "none", "add", "gelu", "tanh", "relu"
HALF_ROOT = math.sqrt(0.5)


@device_function
def _same(value: Any, old: Any) -> Any:
    return value


@device_function
def _add(value: Any, old: Any) -> Any:
    return value + old


@device_function
def _gelu(value: Any, old: Any) -> Any:
    return value * float32(0.5) * (float32(1) + math.erf(value * float32(HALF_ROOT)))


@device_function
def _tanh(value: Any, old: Any) -> Any:
    return math.tanh(value + (value - value))  # NaN of an infinity, which it would hide


@device_function
def _relu(value: Any, old: Any) -> Any:
    finite = value + (value - value)  # or NaN, which stays NaN
    return max(finite, float32(0)) if finite == finite else finite


FINISH = {NONE: _same, ADD: _add, GELU: _gelu, TANH: _tanh, RELU: _relu}


@functools.cache
def make_linear(finish_name: str, down: int = THREADS_DOWN, across: int = THREADS_ACROSS) -> Any:
    """Make the kernel of float32.

    Parameters
    ----------
    finish_name : {"none", "add", "gelu", "tanh", "relu"}
        What is done to a @ weight + bias; "add" adds it to what `out` holds.
    down, across : int
        Threads of a block.

    Returns
    -------
    kernel
        Takes `a` (M, K), `weight` (K, N), `first_column` of the weight, its row length N, `bias` (N,), `out` (M,
        columns), the row length of `out`, and K: arrays of float32, flat. A grid of (columns / (8 across),
        M / (8 down)) blocks of down * across threads.
    """
    finish, adds = FINISH[finish_name], finish_name == ADD
    rows, columns, threads = PER_THREAD * down, PER_THREAD * across, down * across
    a_vectors, b_vectors = rows * DEPTH // 4 // threads, DEPTH * columns // 4 // threads
    a_step, b_step = threads // (DEPTH // 4), threads // (columns // 4)  # rows from one vector of a thread to the next
    a_stride = rows + 4  # words; keeps vectors aligned, and columns of A on different banks
    a_size, b_size = DEPTH * a_stride, DEPTH * columns
    both_a, both_b, half = 2 * a_size, 2 * b_size, columns // 2

    @cuda.jit
    def linear(
        a: Any, weight: Any, first_column: int, weight_stride: int, bias: Any, out: Any, out_stride: int, depth: int
    ) -> None:
        a_tiles = cuda.shared.array(both_a, float32, alignment=ALIGNMENT)  # the simulator wants a line for each
        b_tiles = cuda.shared.array(both_b, float32, alignment=ALIGNMENT)
        thread = int32(cuda.threadIdx.x)
        row, column = int32(cuda.blockIdx.y) * rows, int32(cuda.blockIdx.x) * columns
        # The vectors that this thread copies: of 4 numbers along K from rows of A, of 4 along N from rows of the weight
        a_row, a_k = thread // (DEPTH // 4), thread % (DEPTH // 4) * 4
        b_k, b_column = thread // (columns // 4), thread % (columns // 4) * 4
        a_at = (row + a_row) * depth + a_k
        b_at = b_k * weight_stride + first_column + column + b_column
        a_next = load_rows(a, a_at, a_step * depth, a_vectors)
        b_next = load_rows(weight, b_at, b_step * weight_stride, b_vectors)
        # The sums that it computes: 8 neighbouring rows, and 4 columns in each half of the block (of different banks)
        own_row, own_column = thread // across * PER_THREAD, thread % across * 4
        sums = zeros(THREAD_SUMS)
        buffer = int32(0)
        for k in range(0, depth, DEPTH):
            a_tile, b_tile = buffer * a_size, buffer * b_size
            store_columns(a_tiles, a_tile + a_k * a_stride + a_row, a_stride, a_step, a_next)
            store_rows(b_tiles, b_tile + b_k * columns + b_column, b_step * columns, b_next, b_vectors)
            cuda.syncthreads()
            if k + DEPTH < depth:
                a_next = load_rows(a, a_at + k + DEPTH, a_step * depth, a_vectors)
                b_next = load_rows(weight, b_at + (k + DEPTH) * weight_stride, b_step * weight_stride, b_vectors)
            for step in range(0, DEPTH, UNROLL):
                a_from, b_from = a_tile + step * a_stride + own_row, b_tile + step * columns + own_column
                sums = outer_products(a_tiles, a_from, a_stride, b_tiles, b_from, columns, half, UNROLL, sums)
            buffer = int32(1) - buffer
        finished = cuda.local.array(THREAD_SUMS, float32)
        store(finished, 0, sums)
        for group in range(2 * PER_THREAD):
            to_column = column + own_column + group % 2 * half
            at = (row + own_row + group // 2) * out_stride + to_column
            values, biases = load(finished, 4 * group, 4), load(bias, first_column + to_column, 4)
            old = load(out, at, 4) if adds else biases
            finished_row = (
                finish(values[0] + biases[0], old[0]),
                finish(values[1] + biases[1], old[1]),
                finish(values[2] + biases[2], old[2]),
                finish(values[3] + biases[3], old[3]),
            )
            store(out, at, finished_row)

    return linear


@functools.cache
def make_tensor_core_linear(finish_name: str, down: int = WARPS_DOWN, across: int = WARPS_ACROSS) -> Any:
    """Make the kernel of bfloat16; as `make_linear`, but `weight` is (N, K/2) words of two bfloat16.

    `a` is float32 and is rounded on its way to shared memory. A grid of (columns / (32 across), M / (64 down)) blocks
    of 32 * down * across threads; `weight_stride` is not used, as the rows of the weight have K numbers.
    """
    finish, adds = FINISH[finish_name], finish_name == ADD
    rows, columns, threads = WARP_ROWS * down, WARP_COLUMNS * across, 32 * down * across
    a_vectors, b_vectors = rows * DEPTH_WORDS // 2 // threads, columns * DEPTH_WORDS // 4 // threads
    a_step, b_step = threads // (DEPTH_WORDS // 2), threads // (DEPTH_WORDS // 4)
    a_size, b_size = rows * STRIDE_WORDS, columns * STRIDE_WORDS
    both_a, both_b = 2 * a_size, 2 * b_size

    @cuda.jit
    def tensor_core_linear(
        a: Any, weight: Any, first_column: int, weight_stride: int, bias: Any, out: Any, out_stride: int, depth: int
    ) -> None:
        a_tiles = cuda.shared.array(both_a, int32, alignment=ALIGNMENT)  # the simulator wants a line for each
        b_tiles = cuda.shared.array(both_b, int32, alignment=ALIGNMENT)
        thread = int32(cuda.threadIdx.x)
        words = depth // 2
        row, column = int32(cuda.blockIdx.y) * rows, int32(cuda.blockIdx.x) * columns
        # The vectors that this thread copies: 4 numbers (2 words) from rows of A, 4 words from rows of the weight
        a_row, a_part = thread // (DEPTH_WORDS // 2), thread % (DEPTH_WORDS // 2)
        b_row, b_part = thread // (DEPTH_WORDS // 4), thread % (DEPTH_WORDS // 4)
        a_at = (row + a_row) * depth + a_part * 4
        b_at = (first_column + column + b_row) * words + b_part * 4
        a_next = round_pairs(load_rows(a, a_at, a_step * depth, a_vectors))
        b_next = load_rows(weight, b_at, b_step * words, b_vectors)
        # The sums of its warp, and its place in the warp
        warp, lane, group, member = thread // 32, thread % 32, thread % 32 // 4, thread % 4
        own_row, own_column = warp // across * WARP_ROWS, warp % across * WARP_COLUMNS
        a_own, b_own = (own_row + group) * STRIDE_WORDS + member, (own_column + group) * STRIDE_WORDS + member
        sums = zeros(SUMS)
        buffer = int32(0)
        for k in range(0, words, DEPTH_WORDS):
            a_tile, b_tile = buffer * a_size, buffer * b_size
            store_rows(a_tiles, a_tile + a_row * STRIDE_WORDS + a_part * 2, a_step * STRIDE_WORDS, a_next, a_vectors)
            store_rows(b_tiles, b_tile + b_row * STRIDE_WORDS + b_part * 4, b_step * STRIDE_WORDS, b_next, b_vectors)
            cuda.syncthreads()
            if k + DEPTH_WORDS < words:
                a_next = round_pairs(load_rows(a, a_at + 2 * (k + DEPTH_WORDS), a_step * depth, a_vectors))
                b_next = load_rows(weight, b_at + k + DEPTH_WORDS, b_step * words, b_vectors)
            for step in range(0, DEPTH_WORDS, 8):
                a_from, b_from = a_tile + a_own + step, b_tile + b_own + step
                sums = multiply_fragments(a_tiles, a_from, b_tiles, b_from, STRIDE_WORDS, lane, sums)
            buffer = int32(1) - buffer
        finished = cuda.local.array(SUMS, float32)
        store(finished, 0, sums)
        for pair in range(SUMS // 2):  # of neighbouring columns, in the order of fragments.PLACES
            to_row = row + own_row + pair // 8 * 16 + pair % 2 * 8 + group
            to_column = column + own_column + pair // 2 % 4 * 8 + member * 2
            at = to_row * out_stride + to_column
            values, biases = load(finished, 2 * pair, 2), load(bias, first_column + to_column, 2)
            old = load(out, at, 2) if adds else biases
            store(out, at, (finish(values[0] + biases[0], old[0]), finish(values[1] + biases[1], old[1])))

    return tensor_core_linear
