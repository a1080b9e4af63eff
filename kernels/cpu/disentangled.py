"""DeBERTa's rule of positions in attention: queries meet rows of distances (c2p), and keys meet them (p2c).

What a query and a key add to their score is q K[distance] + k Q[distance], with tables K and Q that are constants of a
layer. Tables are spread out at load, a row for each distance, so that what one query meets along its keys is one row
after the other: a product of a tile of queries with a band of the table has all that they need. In it the numbers of
each query stand one column further to the right than those of the query before. A result that is written with rows that
are one number longer than they are stands upright again: in columns of places, not distances. So nothing is looked up
by an index, and no matrix of distances exists.

For p2c the tile is of keys, and its columns are places of queries. It is turned over, in registers, when it is added.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numpy import float32
from numpy.typing import NDArray

from ..parameters import Disentangled
from .float32 import ZEROS, tile
from .isa import ISA, LANES, TILE_ROWS, TILE_WIDTH
from .jit import is_record
from .memory import aligned_empty
from .panels import round_up
from .scratch import margin, queries_at_once
from .simd import load, store
from .transpose import transpose_block
from .view import View, from_row

BLOCK = queries_at_once(ISA)
MARGIN = margin(ISA)


def pack_disentangled(rule: Disentangled) -> Disentangled:
    """Spread out the tables of a layer in panels, as `tile` reads B: (H, 2P'/TILE_WIDTH, D', TILE_WIDTH).

    The columns of what queries meet are distances from query to key, of what keys meet those from key to query, from
    -P' to P' - 1.
    """
    return Disentangled(
        None if rule.key_table is None else _spread(rule.key_table, rule.rows),
        None if rule.query_table is None else _spread(rule.query_table, rule.rows[::-1]),
        rule.rows,
    )


def _spread(table: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[float32]:
    heads, _, width = table.shape
    positions, full = len(rows) // 2 + 1, round_up(width)
    columns = 2 * round_up(positions)
    first = columns // 2 - (positions - 1)
    by_column = np.zeros((heads, columns, full), float32)
    by_column[:, first : first + len(rows), :width] = table[:, rows]
    panels = aligned_empty(heads, columns // TILE_WIDTH, full, TILE_WIDTH)
    panels[...] = by_column.reshape(heads, -1, TILE_WIDTH, full).transpose(0, 1, 3, 2)
    return panels


class Tile(NamedTuple):
    """Some queries of a head, one after the other in their pair, and the pair."""

    queries: View
    rows: int
    place: int  # of the first
    head: int
    length: int  # of the pair
    padded: int  # to whole panels


# Names only: in a kernel, Numba puts what the @overload below returns in their place; these bodies never run. For other
# rules that is nothing.


def prepare_p2c(keys: View, block: Tile, positions: Any, scratch: Any, at: int) -> None:
    """Let all keys of a head meet the distances to a block of queries; `at`: where in the scratch there is room."""
    raise NotImplementedError


def add_p2c(scores: View, some: Tile, in_block: int, positions: Any, at: int) -> None:
    """Add what `prepare_p2c` found to the scores of some queries, the first of which is `in_block` in its block."""
    raise NotImplementedError


def add_c2p(scores: View, some: Tile, positions: Any, at: int) -> None:
    """Let a tile of queries meet the distances to all keys, and add that to their scores."""
    raise NotImplementedError


def _has(positions: Any, field: int) -> bool:
    return is_record(Disentangled, positions) and not isinstance(positions.types[field], types.NoneType)


@overload(prepare_p2c)
def _prepare_p2c(keys: View, block: Tile, positions: Any, scratch: Any, at: int) -> Any:
    def prepare(keys: View, block: Tile, positions: Any, scratch: Any, at: int) -> None:
        depth, panels, stride = keys.stride, positions.query_table.shape[1], BLOCK + 2 * MARGIN
        zero = panels * TILE_WIDTH // 2
        for j in range(0, block.length, TILE_ROWS):
            rows = min(TILE_ROWS, block.length - j)
            first = (zero + block.place - (j + rows - 1)) // TILE_WIDTH * TILE_WIDTH
            for column in range(first, zero + block.place + block.rows - j, TILE_WIDTH):
                band = (block.head * panels * TILE_WIDTH + column) * depth
                place = column - zero + j - block.place  # in the block, of the query at this distance from key j
                to = View(scratch, at + j * stride + MARGIN + place, stride + 1)
                tile(
                    from_row(keys, j), rows, View(positions.query_table, band, TILE_WIDTH), depth, View(ZEROS, 0, 0), to
                )

    def nothing(keys: View, block: Tile, positions: Any, scratch: Any, at: int) -> None:
        pass

    return prepare if _has(positions, 1) else nothing


@overload(add_p2c)
def _add_p2c(scores: View, some: Tile, in_block: int, positions: Any, at: int) -> Any:
    def add(scores: View, some: Tile, in_block: int, positions: Any, at: int) -> None:
        stride, padded = BLOCK + 2 * MARGIN, some.padded
        turned = at + padded * stride + TILE_ROWS * (padded + 2 * MARGIN)
        for i in range(0, some.rows, LANES):
            for j in range(0, some.length, LANES):
                by_key = View(scores.array, at + j * stride + MARGIN + in_block + i, stride)
                transpose_block(by_key, View(scores.array, turned + i * padded + j, padded))
        for i in range(some.rows):
            for j in range(0, some.length, LANES):
                to = scores.at + i * padded + j
                store(scores.array, to, load(scores.array, to) + load(scores.array, turned + i * padded + j))

    def nothing(scores: View, some: Tile, in_block: int, positions: Any, at: int) -> None:
        pass

    return add if _has(positions, 1) else nothing


@overload(add_c2p)
def _add_c2p(scores: View, some: Tile, positions: Any, at: int) -> Any:
    def add(scores: View, some: Tile, positions: Any, at: int) -> None:
        depth, panels, padded = some.queries.stride, positions.key_table.shape[1], some.padded
        zero, stride, met = panels * TILE_WIDTH // 2, padded + 2 * MARGIN, at + padded * (BLOCK + 2 * MARGIN) + MARGIN
        first = (zero - (some.place + some.rows - 1)) // TILE_WIDTH * TILE_WIDTH
        for column in range(first, zero + some.length - some.place, TILE_WIDTH):
            band = (some.head * panels * TILE_WIDTH + column) * depth
            to = View(scores.array, met + column - zero + some.place, stride + 1)
            table = View(positions.key_table, band, TILE_WIDTH)
            tile(some.queries, some.rows, table, depth, View(ZEROS, 0, 0), to)
        for i in range(some.rows):
            for j in range(0, some.length, LANES):
                to_score = scores.at + i * padded + j
                store(scores.array, to_score, load(scores.array, to_score) + load(scores.array, met + i * stride + j))

    def nothing(scores: View, some: Tile, positions: Any, at: int) -> None:
        pass

    return add if _has(positions, 0) else nothing
