"""The steps of a tile where NEON multiplies matrices: one instruction adds to 2 x 2 sums, of 2 rows and 2 columns.

    [ r0c0 r0c1 ]    [ r0 k0 k1 ... ]   [ c0 k0 k1 ... ]
    [ r1c0 r1c1 ] += [ r1 k0 k1 ... ] @ [ c1 k0 k1 ... ].T

A register holds two words of 32 bits of each of two rows: 8 numbers of int8 (SMMLA) or 4 of bfloat16 (BFMMLA). B stands
so in its panels (panels.py); a register of A is read in halves, one from each of two rows. A step takes two words of K:
4 registers of A, 4 of B and 16 products, where products by a lane would be 32.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .isa import LANES
from .simd import ELEMENT_BYTES, INT32, INT64, INT_VECTOR, load_vector, prefetch, shuffle
from .view import Rows, move

HALF_VECTOR = ir.VectorType(INT32, 2)
STEP_WORDS = 2
COLUMN_PAIRS = LANES  # TILE_WIDTH / 2


def emit_steps(
    builder: Any, multiply_add: Callable[..., Any], a_rows: Sequence[Any], b: Rows, steps: Any, start: Sequence[Any]
) -> list[list[Any]]:
    """As `_emit_steps` of micro_kernel.py, for an even number of rows of A and of B."""
    pairs = list(zip(a_rows[::2], a_rows[1::2], strict=True))
    blocks = [[cgutils.alloca_once_value(builder, sums) for sums in _to_blocks(builder, start)] for _ in pairs]
    with cgutils.for_range(builder, builder.udiv(steps, INT64(STEP_WORDS)), intp=INT64) as loop:
        word = builder.mul(loop.index, INT64(STEP_WORDS))
        b_row = b.row(builder, word)
        b_pairs = [
            load_vector(builder, move(builder, b_row, INT64(j * LANES)), INT_VECTOR) for j in range(COLUMN_PAIRS)
        ]
        prefetch(builder, b.row(builder, builder.add(steps, word)))  # one cache line: both rows of the next panel
        for rows, sums in zip(pairs, blocks, strict=True):
            first, second = (_load_half(builder, move(builder, row, word)) for row in rows)
            a_pair = shuffle(builder, first, second, list(range(LANES)))
            for b_pair, total in zip(b_pairs, sums, strict=True):
                builder.store(multiply_add(builder, a_pair, b_pair, builder.load(total)), total)
    return [row for sums in blocks for row in _to_rows(builder, [builder.load(total) for total in sums])]


def _load_half(builder: Any, place: Any) -> Any:
    return builder.load(place, align=ELEMENT_BYTES, typ=HALF_VECTOR)


def _to_blocks(builder: Any, row: Sequence[Any]) -> list[Any]:
    """Emit blocks of two rows that are both the given one."""
    return [shuffle(builder, half, half, lanes) for half in row for lanes in ([0, 1, 0, 1], [2, 3, 2, 3])]


def _to_rows(builder: Any, blocks: Sequence[Any]) -> list[list[Any]]:
    """Emit the two rows that blocks hold."""
    neighbours = list(zip(blocks[::2], blocks[1::2], strict=True))
    return [[shuffle(builder, *both, lanes) for both in neighbours] for lanes in ([0, 1, 4, 5], [2, 3, 6, 7])]
