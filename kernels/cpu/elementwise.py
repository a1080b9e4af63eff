"""Kernels that treat each token by itself: embedding lookup and LayerNorm."""

from typing import Any

import numpy as np
from numpy import float32, int32
from numpy.typing import NDArray

from .isa import LANES
from .jit import inlined, kernel
from .packing import PackedNorm
from .simd import fma, keep_first, load, reduce_add, splat, store


@inlined
def add_and_normalize(a: Any, a_at: int, b: Any, b_at: int, norm: PackedNorm, out: Any, out_at: int) -> None:
    """Write LayerNorm(a + b) of one row of C' numbers; `out` may be `a` or `b`.

    Two passes, mean first and then the variance of what is left, as the textbook has it: the one-pass formula
    E[x^2] - mean^2 cancels.
    """
    size = norm.gain.size
    zero = splat(float32(0))
    total = zero
    for i in range(0, size, LANES):
        row = load(a, a_at + i) + load(b, b_at + i)
        store(out, out_at + i, row)
        total = total + row
    mean = float32(reduce_add(total) / norm.width)
    squares = zero
    for i in range(0, size, LANES):
        centred = keep_first(load(out, out_at + i) - mean, norm.width - i, zero)
        squares = fma(centred, centred, squares)
    variance = reduce_add(squares) / norm.width
    # An infinite variance would make every row the bias, and a wrong score that looks like one: it must become NaN.
    scale = float32(1 / np.sqrt(variance + norm.eps) + (variance - variance))
    for i in range(0, size, LANES):
        centred = load(out, out_at + i) - mean
        store(out, out_at + i, fma(centred * scale, load(norm.gain, i), load(norm.bias, i)))


@kernel
def embed(
    ids: NDArray[int32],
    places: NDArray[int32],
    word: NDArray[float32],
    place: NDArray[float32],
    norm: PackedNorm,
    out: NDArray[float32],
) -> None:
    """Write LayerNorm(word[ids[t]] + place[places[t]]) for each token.

    word: (vocabulary, C'); place: (token types * positions, C'), their sums made at load; out: (T, C').
    """
    size = norm.gain.size
    for t in range(ids.size):
        add_and_normalize(word, ids[t] * size, place, places[t] * size, norm, out, t * size)
