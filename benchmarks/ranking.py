"""How good a ranking is, and how far two rankings of the same documents agree."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike


def ndcg(ranked: Sequence[str], gains: Mapping[str, float], depth: int = 10) -> float:
    """Return the normalised discounted cumulative gain of a ranking, with the gains as they are (linear).

    Parameters
    ----------
    ranked : sequence of str
        Documents, best first.
    gains : mapping of str to float
        What each judged document is worth; others are worth nothing.
    depth : int
        Places that count.

    Returns
    -------
    float
        1 for the best possible ranking of all judged documents; 0 when none of them is worth anything.
    """
    ideal = _discounted(sorted(gains.values(), reverse=True)[:depth])
    return _discounted([gains.get(document, 0.0) for document in ranked[:depth]]) / ideal if ideal else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Return Kendall's tau-b of two lists of scores: 1 for the same order, -1 for the opposite one.

    Parameters
    ----------
    a, b : array_like of float, shape (N,)
        Scores of the same N documents. Pairs of documents that are tied in one list count neither way.

    Returns
    -------
    float
        NaN when all scores of a list are equal: it ranks nothing.
    """
    order_a, order_b = (np.sign(np.subtract.outer(scores, scores)) for scores in (np.asarray(a), np.asarray(b)))
    untied = math.sqrt(float((order_a**2).sum()) * float((order_b**2).sum()))
    return float((order_a * order_b).sum()) / untied if untied else math.nan
