"""The mathematics of places, in NumPy, once for all backends: what a model's tables are filled with at load."""

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from .parameters import Rotary


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


def rotary_tables(positions: int, width: int, theta: float) -> Rotary:
    """Return cosine and sine of place * theta**(-2d / D), for each place and each d below D/2.

    Parameters
    ----------
    positions : int
        Places, from 0 on.
    width : int
        D, the width of a head; even.
    theta : float
        Base of the rates.

    Notes
    -----
    The rates are those of training, float32 numbers; angles are their exact multiples. (A float32 angle of 8,000 would
    be 2e-4 off.) Source: J. Su et al., "RoFormer" (2021), section 3.2.2.
    """
    exponent = np.arange(0, width, 2).astype(float32) / float32(width)
    rates = float32(1) / np.power(np.float64(theta), exponent.astype(np.float64)).astype(float32)
    angles = np.arange(positions)[:, None] * rates.astype(np.float64)  # (P, D/2)
    return Rotary(np.cos(angles).astype(float32), np.sin(angles).astype(float32))
