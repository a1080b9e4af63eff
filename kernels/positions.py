"""The mathematics of places, in NumPy, once for all backends: what a model's tables are filled with at load."""

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from .parameters import DistanceBias, Rotary


def bucket_of_distance(positions: int, buckets: int) -> NDArray[np.int64]:
    """Return the bucket of each distance from a query to a key, from -(positions - 1) to positions - 1.

    Half of the buckets are for keys behind the query; of each half, one half holds the nearest distances singly, the
    rest grow logarithmically up to 128. Source: C. Raffel et al., "Exploring the Limits of Transfer Learning with a
    Unified Text-to-Text Transformer" (2020), section 2.1; float32 as in transformers, where borders are rounded.
    """
    distance = np.arange(-(positions - 1), positions)
    half, exact = buckets // 2, buckets // 4
    size = np.abs(distance)
    ratio = np.log(np.maximum(size, 1).astype(float32) / float32(exact)) / float32(np.log(128 / exact))
    far = np.minimum(exact + (ratio * float32(half - exact)).astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(size < exact, size, far)


def row_of_distance(positions: int, span: int, buckets: int, farthest: int) -> NDArray[np.int64]:
    """Return the row of DeBERTa's table for each distance from a query to a key, from -(positions - 1) on.

    Parameters
    ----------
    positions : int
    span : int
        The table has 2 * span rows; row span is that of distance 0, distances beyond the first or last row have those.
    buckets : int
        0: each distance has a row of its own. Else distances up to half of so many have, farther ones share rows that
        grow logarithmically, up to the distance `farthest`.
    farthest : int

    Notes
    -----
    Source: P. He et al., "DeBERTa" (2021), equation 3, and for buckets the code of DeBERTa-v2; float32 as in
    transformers, where borders are rounded. Their distances are counted from the key to the query.
    """
    distance = np.arange(positions - 1, -positions, -1)
    if buckets:
        half = buckets // 2
        size = np.where(np.abs(distance) < half, half - 1, np.abs(distance)).astype(float32)
        ratio = np.log(size / float32(half)) / np.log(float32((farthest - 1) / half))
        far = np.ceil(ratio * float32(half - 1)) + half
        distance = np.where(size <= half, distance, far * np.sign(distance)).astype(np.int64)
    return np.clip(distance + span, 0, 2 * span - 1)


def alibi_table(positions: int, heads: int) -> DistanceBias:
    """Return the bias of each head for each distance: minus a slope of its own times the distance, either way.

    Slopes are a geometric series from 2**(-8 / H) to 2**-8 where the number of heads H is a power of two; else those of
    the next lower power, and then every other one of twice as many. Source: O. Press et al., "Train Short, Test Long"
    (2022), section 3 and its code.
    """
    power = 1 << heads.bit_length() - 1
    slopes = 2.0 ** (-8 / power * np.arange(1, power + 1))
    others = 2.0 ** (-4 / power * np.arange(1, 2 * power + 1, 2))
    slopes = np.concatenate([slopes, others[: heads - power]])
    distance = np.abs(np.arange(-(positions - 1), positions))
    return DistanceBias((-slopes[:, None] * distance).astype(float32))


def rotary_tables(positions: int, width: int, theta: float, slower: float = 1.0) -> Rotary:
    """Return cosine and sine of place * theta**(-2d / D) / slower, for each place and each d below D/2.

    Parameters
    ----------
    positions : int
        Places, from 0 on.
    width : int
        D, the width of a head; even.
    theta : float
        Base of the rates.
    slower : float
        What all rates are divided by.

    Notes
    -----
    The rates are those of training, float32 numbers; angles are their exact multiples. (A float32 angle of 8,000 would
    be 2e-4 off.) Source: J. Su et al., "RoFormer" (2021), section 3.2.2.
    """
    exponent = np.arange(0, width, 2).astype(float32) / float32(width)
    rates = float32(1) / np.power(np.float64(theta), exponent.astype(np.float64)).astype(float32) / float32(slower)
    angles = np.arange(positions)[:, None] * rates.astype(np.float64)  # (P, D/2)
    return Rotary(np.cos(angles).astype(float32), np.sin(angles).astype(float32))
