"""Kernels that treat each token by itself: embedding lookup and LayerNorm."""

from typing import Any

import numpy as np
from numba.extending import overload
from numpy import float32, int32
from numpy.typing import NDArray

from ..parameters import Bfloat16Table, Float16Table, WordTable
from .isa import LANES
from .jit import inlined, is_record, kernel
from .packed import PackedNorm
from .simd import fma, keep_between, load, load_bfloat16, load_float16, reduce_add, splat, store


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


# A name only: in a kernel, Numba puts what the @overload below returns in its place; this body never runs.


def load_words(table: WordTable, at: int) -> Any:
    """Return the vector that starts at flat position `at` of a table, widened to float32."""
    raise NotImplementedError


@overload(load_words)
def _load_words(table: Any, at: int) -> Any:
    def of_float32(table: Any, at: int) -> Any:
        return load(table, at)

    def of_float16(table: Any, at: int) -> Any:
        return load_float16(table.bits, at)

    def of_bfloat16(table: Any, at: int) -> Any:
        return load_bfloat16(table.bits, at)

    if is_record(Float16Table, table):
        return of_float16
    return of_bfloat16 if is_record(Bfloat16Table, table) else of_float32


@kernel
def embed(
    ids: NDArray[int32],
    places: NDArray[int32],
    word: WordTable,
    place: NDArray[float32],
    norm: PackedNorm | None,
    out: NDArray[float32],
) -> None:
    """Write word[ids[t]] + place[places[t]] for each token, or LayerNorm of that.

    word: (vocabulary, E'); place: (token types * positions, E'), their sums made at load; out: (T, E').
    """
    size = place.shape[1]
    for t in range(ids.size):
        total = splat(float32(0))
        for i in range(0, size, LANES):
            row = load_words(word, ids[t] * size + i) + load(place, places[t] * size + i)
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
