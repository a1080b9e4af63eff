"""Kernels that treat each token by itself: embedding lookup and LayerNorm."""

from typing import Any

import numpy as np
from numpy import float32, int32
from numpy.typing import NDArray

from .isa import LANES
from .jit import inlined, kernel
from .packed import PackedNorm
from .simd import fma, keep_between, load, reduce_add, splat, store


@inlined
def normalize_row(sums: Any, at: int, total: Any, norm: PackedNorm, out: Any, out_at: int) -> None:
    """Write the LayerNorm of a row of C' numbers whose sum, lane by lane, is `total`; `out` may be `sums`.

    Two passes, mean first and then the variance of what is left, as the textbook has it: the one-pass formula
    E[x^2] - mean^2 cancels.
    """
    size = norm.gain.size
    zero = splat(float32(0))
    mean = float32(reduce_add(total) / norm.width)
    squares = zero
    for i in range(0, size, LANES):
        centred = keep_between(load(sums, at + i) - mean, 0, norm.width - i, zero)
        squares = fma(centred, centred, squares)
    variance = reduce_add(squares) / norm.width
    # An infinite variance would make every row the bias, and a wrong score that looks like one: it must become NaN.
    scale = float32(1 / np.sqrt(variance + norm.eps) + (variance - variance))
    for i in range(0, size, LANES):
        centred = load(sums, at + i) - mean
        store(out, out_at + i, fma(centred * scale, load(norm.gain, i), load(norm.bias, i)))


@inlined
def add_and_normalize(
    sums: Any, at: int, change: Any, change_at: int, norm: PackedNorm, normed: Any, normed_at: int
) -> None:
    """Add a row to a row of sums, and write the LayerNorm of that; `normed` may be `sums`."""
    total = splat(float32(0))
    for i in range(0, norm.gain.size, LANES):
        row = load(sums, at + i) + load(change, change_at + i)
        store(sums, at + i, row)
        total = total + row
    normalize_row(sums, at, total, norm, normed, normed_at)


@kernel
def embed(
    ids: NDArray[int32],
    places: NDArray[int32],
    word: NDArray[float32],
    place: NDArray[float32],
    norm: PackedNorm | None,
    out: NDArray[float32],
) -> None:
    """Write word[ids[t]] + place[places[t]] for each token, or LayerNorm of that.

    word: (vocabulary, E'); place: (token types * positions, E'), their sums made at load; out: (T, E').
    """
    size = word.shape[1]
    for t in range(ids.size):
        total = splat(float32(0))
        for i in range(0, size, LANES):
            row = load(word, ids[t] * size + i) + load(place, places[t] * size + i)
            store(out, t * size + i, row)
            total = total + row
        if norm is not None:
            normalize_row(out, t * size, total, norm, out, t * size)


@kernel
def normalize_rows(x: NDArray[float32], norm: PackedNorm, out: NDArray[float32]) -> None:
    """Write the LayerNorm of each row; x, out: (B, C')."""
    size = norm.gain.size
    for row in range(x.shape[0]):
        total = splat(float32(0))
        for i in range(0, size, LANES):  # what is beyond the width may be anything here
            total = total + keep_between(load(x, row * size + i), 0, norm.width - i, splat(float32(0)))
        normalize_row(x, row * size, total, norm, out, row * size)
