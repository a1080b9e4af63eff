"""The register tile: the innermost piece of every matrix product.

    C[TILE_ROWS, TILE_WIDTH] = start + A[TILE_ROWS, K] @ B[K, TILE_WIDTH]

C stays in vector registers while k runs from 0 to K (docs/kernels.md says where LLVM leaves one of them out): per step,
two vectors of B and one number of each row of A are read, and every accumulator takes one fused multiply-add. With
enough accumulators to hide the latency of the instruction, this runs at the processor's limit (benchmarks/kernels.py
shows the share of the measured peak).

An element of C is one chain of additions in a fixed order, whatever the size of the matrices and wherever the tile
lies: this is why a pair's score has the same bits in any batch.

The functions here run while a kernel is compiled. Each call of `builder` appends an instruction; loops of Python are
unrolled by that, and only `for_range` is a loop of the machine.

The tiles of the three arithmetics are one piece of code, which reads words of 32 bits, whatever is in them. What a word
holds, and how a step of K is multiplied, is a file for each: float32.py, bfloat16.py and int8.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from . import mmla
from .isa import ISA, LANES, TILE_ROWS
from .jit import intrinsic
from .simd import INT64, INT_VECTOR, load_vector, prefetch, shuffle, splat_value, store_vector
from .view import Rows, move, take_apart

VECTORS = 2  # TILE_WIDTH / LANES
CACHE_LINE_WORDS = 16
UNROLL = 4  # steps of k per iteration of the main loop; on NEON, as many as have LANES words of A


class Product(NamedTuple):
    """How a step of K is multiplied and added to the sums.

    Where one instruction multiplies and adds up a whole word of B, A has words of the same kind. Elsewhere words of B
    are split into vectors that the processor can multiply, and A has one word for each of those in a step.
    """

    split: Callable[[Any, Any], list[Any]]  # (builder, words of B) -> one vector for each word of A in a step
    multiply_add: Callable[[Any, Any, Any, Any], Any]  # (builder, a, b, sums) -> sums + a * b
    words: int  # of A in a step: the vectors that `split` makes; 1 for float32, 2 where bfloat16 is widened
    sums: Any  # type of the accumulators
    matrix: bool = False  # a and b are matrices of 2 rows, and so are the sums (mmla.py)


AWord = Callable[[int], Any]  # emits a word of a row of A, by its number, in every lane


def keep_whole(builder: Any, words: Any) -> list[Any]:
    """Split nothing."""
    return [words]


def emit_tile(
    builder: Any, product: Product, a: Rows, rows: Any, b: Rows, steps: Any, start: Rows,
    finish: Callable[[Any, list[Any]], None],
) -> None:  # fmt: skip
    """Emit a tile; finish(row, sums) emits what is done with the sums of a row.

    There is one of all rows, and one of half as many for when those suffice: ends of matrices cost half. With fewer
    rows than that, the last is computed again in the spare places, and finished again with the same sums: one piece of
    machine code, and one order of sums, for every size.
    """
    initial = load_row(builder, start.first, product.sums)

    def emit(tile_rows: int) -> None:
        last = builder.sub(rows, INT64(1))
        places = [builder.select(builder.icmp_signed("<", INT64(r), last), INT64(r), last) for r in range(tile_rows)]
        a_rows = [a.row(builder, place) for place in places]
        if product.matrix:
            sums = mmla.emit_steps(builder, product.multiply_add, a_rows, b, steps, initial)
        else:
            sums = _emit_steps(builder, product, a_rows, b, steps, initial)
        for place, totals in zip(places, sums, strict=True):
            finish(place, totals)

    half = TILE_ROWS // 2
    with builder.if_else(builder.icmp_signed(">", rows, INT64(half))) as (more, fewer):
        with more:
            emit(TILE_ROWS)
        with fewer:
            emit(half)


def _emit_steps(
    builder: Any, product: Product, a_rows: Sequence[Any], b: Rows, steps: Any, start: Sequence[Any]
) -> list[list[Any]]:
    """Emit the loop over k; return the sums of each row, which begin with `start`."""
    sums = [[cgutils.alloca_once_value(builder, value) for value in start] for _ in a_rows]  # become registers

    def add_step(k: Any, a_words: Sequence[AWord], first_word: int = 0) -> None:
        b_words = load_row(builder, b.row(builder, k), INT_VECTOR)
        # The panel that follows is wanted next. With few rows, waiting for it would be most of the time.
        next_row = b.row(builder, builder.add(steps, k))
        for line in range(0, VECTORS * LANES, CACHE_LINE_WORDS):
            prefetch(builder, move(builder, next_row, INT64(line)))
        b_values = [product.split(builder, words) for words in b_words]
        for a_word, totals in zip(a_words, sums, strict=True):
            for word in range(product.words):
                a_value = a_word(first_word + word)
                for values, total in zip(b_values, totals, strict=True):
                    added = product.multiply_add(builder, a_value, values[word], builder.load(total))
                    builder.store(added, total)

    def place_of(k: Any) -> Any:
        return builder.mul(k, INT64(product.words))

    unroll = LANES // product.words if ISA.neon else UNROLL
    whole = builder.udiv(steps, INT64(unroll))
    with cgutils.for_range(builder, whole, intp=INT64) as loop:
        first = builder.mul(loop.index, INT64(unroll))
        lanes = _read_lanes(builder, a_rows, place_of(first)) if ISA.neon else None
        for step in range(unroll):
            k = builder.add(first, INT64(step))
            if lanes is None:
                add_step(k, _broadcast(builder, a_rows, place_of(k)))
            else:
                add_step(k, lanes, step * product.words)
    with cgutils.for_range_slice(builder, builder.mul(whole, INT64(unroll)), steps, INT64(1), intp=INT64) as (k, _):
        add_step(k, _broadcast(builder, a_rows, place_of(k)))
    return [[builder.load(total) for total in totals] for totals in sums]


def _broadcast(builder: Any, a_rows: Sequence[Any], first: Any) -> list[AWord]:
    """Return what emits the words of each row of A from `first` on, each read when it is wanted."""

    def words_of(a_row: Any) -> AWord:
        def word_of(number: int) -> Any:
            place = move(builder, a_row, builder.add(first, INT64(number)))
            return splat_value(builder, builder.load(place, typ=ir.IntType(32)))

        return word_of

    return [words_of(a_row) for a_row in a_rows]


def _read_lanes(builder: Any, a_rows: Sequence[Any], first: Any) -> list[AWord]:
    """As `_broadcast`, of LANES words that are read at once.

    NEON's products name a lane of a register as their factor, so that LLVM emits nothing for the copies. Reading each
    word by itself costs an instruction for it and, with several words in a step, registers that are not there.
    """
    undefined = ir.Constant(INT_VECTOR, ir.Undefined)

    def words_of(a_row: Any) -> AWord:
        vector = load_vector(builder, move(builder, a_row, first), INT_VECTOR)
        return lambda number: shuffle(builder, vector, undefined, [number] * LANES)

    return [words_of(a_row) for a_row in a_rows]


def load_row(builder: Any, place: Any, vector: Any) -> list[Any]:
    """Emit the loads of TILE_WIDTH words."""
    return [load_vector(builder, move(builder, place, INT64(v * LANES)), vector) for v in range(VECTORS)]


def store_row(builder: Any, vectors: Sequence[Any], place: Any) -> None:
    """Emit the stores of TILE_WIDTH words."""
    for v, value in enumerate(vectors):
        store_vector(builder, value, move(builder, place, INT64(v * LANES)))


# ---- intrinsics


def procedure(given: tuple[Any, ...]) -> Any:
    """Return the signature of an intrinsic that returns nothing; whole numbers, also constant ones, come as int64."""
    return types.void(*[types.int64 if isinstance(arg, types.Integer) else arg for arg in given])


def float_tile(product: Product) -> Callable[..., Any]:
    """Make the intrinsic of a tile whose sums are floats and go to C as they are."""

    def emit(builder: Any, a: Rows, rows: Any, b: Rows, steps: Any, start: Rows, c: Rows) -> None:
        def finish(row: Any, sums: list[Any]) -> None:
            store_row(builder, sums, c.row(builder, row))

        emit_tile(builder, product, a, rows, b, steps, start, finish)

    return declare_tile(emit)


def declare_tile(emit: Callable[..., None]) -> Callable[..., Any]:
    """Make the intrinsic ``tile(a, rows, b, steps, start, c)`` of what emits it; see `tile` in float32.py."""

    def declare(typingctx: Any, a: Any, rows: Any, b: Any, steps: Any, start: Any, c: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            a, b, start, c = (take_apart(context, builder, sig.args[i], args[i]) for i in (0, 2, 4, 5))
            emit(builder, a, args[1], b, args[3], start, c)
            return context.get_dummy_value()

        return procedure((a, rows, b, steps, start, c)), codegen

    return intrinsic(declare)
