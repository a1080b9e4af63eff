"""What a rule of positions does to the rows of attention: three hooks, chosen when a kernel is compiled for a rule.

`turn_rows` is what queries and keys become for their places in the pair, `add_distance_scores` what is added to the
scores of a query for the distances to its keys; and `seen` is which keys it has at all. Numba compiles the kernels once
for each kind of rule, and what a rule does not have is not in the machine code.
"""

from typing import Any

from numba import types
from numba.extending import overload
from numpy import float32

from ..parameters import Disentangled, DistanceBias, Positions, Rotary
from .disentangled import pack_disentangled
from .isa import LANES, TILE_WIDTH
from .jit import is_record
from .packed import ScoreRule
from .panels import fill_up, round_up
from .simd import fma, load, splat, store


def pack_positions(positions: Positions) -> Positions:
    """Fill up the tables of a rule.

    Those of angles get D'/2 columns. Those of distances get columns that whole vectors may read beyond the longest
    distance: (H, 2P - 1 + TILE_WIDTH). Those of content and distance: see disentangled.py.
    """
    if isinstance(positions, Rotary):
        places, points = positions.cosine.shape
        full = round_up(2 * points) // 2
        if full == points:
            return positions
        return Rotary(*(fill_up(table, places, full) for table in positions))
    if isinstance(positions, DistanceBias):
        heads, columns = positions.table.shape
        return DistanceBias(fill_up(positions.table, heads, columns + TILE_WIDTH))
    if isinstance(positions, Disentangled):
        return pack_disentangled(positions)
    return positions


# Names only: in a kernel, Numba puts what the @overload below returns in their place; these bodies never run.


def turn_rows(x: Any, at: int, width: int, places: Any, positions: Positions) -> None:
    """Turn queries or keys of a head, rows of `width` numbers from flat position `at` on, each by its place."""
    raise NotImplementedError


def add_distance_scores(scores: Any, at: int, length: int, head: int, place: int, rule: ScoreRule) -> float:
    """Add what a query at a place adds to its scores, and return the factor by which they are still to be multiplied.

    The scores of the keys 0 to `length` of the pair stand from flat position `at` on.
    """
    raise NotImplementedError


def seen(reach: tuple[int, int] | None, first: int, last: int, length: int) -> tuple[int, int]:
    """Return the first of the keys that queries at the places `first` to `last` see, and the one after the last."""
    raise NotImplementedError


@overload(turn_rows)
def _turn_rows(x: Any, at: int, width: int, places: Any, positions: Any) -> Any:
    def rotate(x: Any, at: int, width: int, places: Any, positions: Any) -> None:
        half = width // 2
        for row in range(places.size):
            low, high, angles = at + row * width, at + row * width + half, places[row] * half
            for d in range(0, half, LANES):
                cosine, sine = load(positions.cosine, angles + d), load(positions.sine, angles + d)
                first, second = load(x, low + d), load(x, high + d)
                store(x, low + d, first * cosine - second * sine)
                store(x, high + d, second * cosine + first * sine)

    def nothing(x: Any, at: int, width: int, places: Any, positions: Any) -> None:
        pass

    return rotate if is_record(Rotary, positions) else nothing


@overload(add_distance_scores)
def _add_distance_scores(scores: Any, at: int, length: int, head: int, place: int, rule: Any) -> Any:
    def add_bias(scores: Any, at: int, length: int, head: int, place: int, rule: Any) -> float:
        table = rule.positions.table
        columns = table.shape[1]
        distance_0 = head * columns + (columns - TILE_WIDTH) // 2
        factor = splat(float32(rule.scale))
        for j in range(0, length, LANES):
            store(scores, at + j, fma(load(scores, at + j), factor, load(table, distance_0 - place + j)))
        return 1.0

    def nothing(scores: Any, at: int, length: int, head: int, place: int, rule: Any) -> float:
        scale: float = rule.scale
        return scale

    return add_bias if is_record(DistanceBias, rule.types[1]) else nothing


@overload(seen)
def _seen(reach: Any, first: int, last: int, length: int) -> Any:
    def window(reach: Any, first: int, last: int, length: int) -> tuple[int, int]:
        return max(first - reach[0], 0), min(last + reach[1] + 1, length)

    def all_keys(reach: Any, first: int, last: int, length: int) -> tuple[int, int]:
        return 0, length

    return all_keys if isinstance(reach, types.NoneType) else window
