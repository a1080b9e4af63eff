"""The register tile: the innermost piece of every matrix product.

    C[TILE_ROWS, TILE_WIDTH] = start + A[TILE_ROWS, K] @ B[K, TILE_WIDTH]

All of C stays in vector registers while k runs from 0 to K: per step, two vectors of B and one number of each row of A
are read, and every accumulator takes one fused multiply-add. With enough accumulators to hide the latency of the
instruction, this runs at the processor's limit (benchmarks/kernels.py shows the share of the measured peak).

An element of C is one chain of additions in the order of k, whatever the size of the matrices and wherever the tile
lies: this is why a pair's score has the same bits in any batch.

The tiles of the three precisions are one piece of code; multiply.py has what is different in a step of k.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .isa import LANES, TILE_ROWS
from .jit import intrinsic, kernel
from .multiply import BFLOAT16, FLOAT32, INT8, Product
from .simd import (
    FLOAT,
    INT64,
    INT_VECTOR,
    VECTOR,
    element_pointer,
    load_vector,
    multiply_add,
    prefetch,
    splat_value,
    store_vector,
)

VECTORS = 2  # TILE_WIDTH / LANES
CACHE_LINE_WORDS = 16
UNROLL = 4  # steps of k per iteration of the main loop


def _emit_tile(
    builder: Any, product: Product, tile_rows: int, a: Any, a_stride: Any, rows: Any, b: Any, b_stride: Any, steps: Any,
    start: list[Any], finish: Callable[[int, Any, Any], Any], c: Any, c_stride: Any,
) -> None:  # fmt: skip
    """Emit a tile of `tile_rows` rows; finish(v, row, sums) turns the sums of a row in column vector v into floats."""

    def at(pointer: Any, index: Any) -> Any:
        return builder.gep(pointer, [index], source_etype=FLOAT)  # positions count words of 32 bits

    last = builder.sub(rows, INT64(1))
    row = [builder.select(builder.icmp_signed("<", INT64(r), last), INT64(r), last) for r in range(tile_rows)]
    a_rows = [at(a, builder.mul(a_stride, r)) for r in row]
    accumulators = [[cgutils.alloca_once_value(builder, start[v]) for v in range(VECTORS)] for _ in row]

    def add_step(k: Any) -> None:
        b_row = at(b, builder.mul(b_stride, k))
        b_words = [load_vector(builder, at(b_row, INT64(v * LANES)), INT_VECTOR) for v in range(VECTORS)]
        # The panel that follows is wanted next. With few rows, waiting for it would be most of the time.
        next_row = builder.add(builder.mul(b_stride, steps), builder.mul(b_stride, k))
        for line in range(0, VECTORS * LANES, CACHE_LINE_WORDS):
            prefetch(builder, at(b, builder.add(next_row, INT64(line))))
        b_values = [product.split(builder, words) for words in b_words]
        first_word = builder.mul(k, INT64(product.words))
        for a_row, sums in zip(a_rows, accumulators, strict=True):
            for word in range(product.words):
                a_word = builder.load(at(a_row, builder.add(first_word, INT64(word))), typ=ir.IntType(32))
                a_value = splat_value(builder, a_word)
                for values, total in zip(b_values, sums, strict=True):
                    added = product.multiply_add(builder, a_value, values[word], builder.load(total))
                    builder.store(added, total)

    whole = builder.udiv(steps, INT64(UNROLL))
    with cgutils.for_range(builder, whole, intp=INT64) as loop:
        for step in range(UNROLL):
            add_step(builder.add(builder.mul(loop.index, INT64(UNROLL)), INT64(step)))
    with cgutils.for_range_slice(builder, builder.mul(whole, INT64(UNROLL)), steps, INT64(1), intp=INT64) as (k, _):
        add_step(k)
    for r, sums in zip(row, accumulators, strict=True):
        c_row = at(c, builder.mul(c_stride, r))
        for v, total in enumerate(sums):
            store_vector(builder, finish(v, r, builder.load(total)), at(c_row, INT64(v * LANES)))


def _emit_either_height(builder: Any, rows: Any, emit: Callable[[int], None]) -> None:
    """Emit a tile of all rows, and one of half as many for when those suffice: ends of matrices cost half."""
    half = TILE_ROWS // 2
    with builder.if_else(builder.icmp_signed(">", rows, INT64(half))) as (more, fewer):
        with more:
            emit(TILE_ROWS)
        with fewer:
            emit(half)


def procedure(given: tuple[Any, ...]) -> Any:
    """Return the signature of an intrinsic that returns nothing; whole numbers, also constant ones, come as int64."""
    return types.void(*[types.int64 if isinstance(arg, types.Integer) else arg for arg in given])


def _float_tile(product: Product) -> Callable[..., Any]:
    """Make the intrinsic of a tile whose sums are floats."""

    def declare(
        typingctx: Any, a: Any, a_at: Any, a_stride: Any, rows: Any, b: Any, b_at: Any, b_stride: Any, steps: Any,
        start: Any, start_at: Any, c: Any, c_at: Any, c_stride: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            a, a_at, a_stride, rows, b, b_at, b_stride, steps, start, start_at, c, c_at, c_stride = args
            a_first = element_pointer(context, builder, sig.args[0], a, a_at)
            b_first = element_pointer(context, builder, sig.args[4], b, b_at)
            start_first = element_pointer(context, builder, sig.args[8], start, start_at)
            c_first = element_pointer(context, builder, sig.args[10], c, c_at)
            initial = load_row(builder, start_first, VECTOR)

            def emit(tile_rows: int) -> None:
                _emit_tile(
                    builder, product, tile_rows, a_first, a_stride, rows, b_first, b_stride, steps,
                    initial, lambda v, row, sums: sums, c_first, c_stride,
                )  # fmt: skip

            _emit_either_height(builder, rows, emit)
            return context.get_dummy_value()

        given = (a, a_at, a_stride, rows, b, b_at, b_stride, steps, start, start_at, c, c_at, c_stride)
        return procedure(given), codegen

    return intrinsic(declare)


def load_row(builder: Any, pointer: Any, vector: Any) -> list[Any]:
    """Emit the loads of TILE_WIDTH words."""
    return [
        load_vector(builder, builder.gep(pointer, [INT64(v * LANES)], source_etype=FLOAT), vector)
        for v in range(VECTORS)
    ]


_tile_float32, _tile_bfloat16 = _float_tile(FLOAT32), _float_tile(BFLOAT16)


def rescaling(builder: Any, scales: Any, scale: Any, bias: Any) -> Callable[[int, Any, Any], Any]:
    """Make the emitter of ``sums * scale of the row * scale of the column + bias`` for an int8 tile."""
    scale_row, bias_row = load_row(builder, scale, VECTOR), load_row(builder, bias, VECTOR)

    def to_float(v: int, row: Any, sums: Any) -> Any:
        row_scale = builder.load(builder.gep(scales, [row], source_etype=FLOAT), typ=FLOAT)
        value = builder.fmul(builder.sitofp(sums, VECTOR), splat_value(builder, row_scale))
        return multiply_add(builder, value, scale_row[v], bias_row[v])

    return to_float


@intrinsic
def _tile_int8(
    typingctx: Any, a: Any, a_at: Any, a_stride: Any, rows: Any, scales: Any, scales_at: Any,
    b: Any, b_at: Any, b_stride: Any, steps: Any, start: Any, scale: Any, bias: Any, column: Any,
    c: Any, c_at: Any, c_stride: Any,
) -> Any:  # fmt: skip
    """Emit the tile; see `tile_int8` below."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, a_at, a_stride, rows, scales, scales_at, b, b_at, b_stride, steps, start, scale, bias, column = args[:14]
        c, c_at, c_stride = args[14:]
        a_first = element_pointer(context, builder, sig.args[0], a, a_at)
        scales_first = element_pointer(context, builder, sig.args[4], scales, scales_at)
        b_first = element_pointer(context, builder, sig.args[6], b, b_at)
        start_row = load_row(builder, element_pointer(context, builder, sig.args[10], start, column), INT_VECTOR)
        scale_first = element_pointer(context, builder, sig.args[11], scale, column)
        bias_first = element_pointer(context, builder, sig.args[12], bias, column)
        c_first = element_pointer(context, builder, sig.args[14], c, c_at)
        to_float = rescaling(builder, scales_first, scale_first, bias_first)

        def emit(tile_rows: int) -> None:
            _emit_tile(
                builder, INT8, tile_rows, a_first, a_stride, rows, b_first, b_stride, steps,
                start_row, to_float, c_first, c_stride,
            )  # fmt: skip

        _emit_either_height(builder, rows, emit)
        return context.get_dummy_value()

    given = (
        a, a_at, a_stride, rows, scales, scales_at, b, b_at, b_stride, steps, start, scale, bias, column,
        c, c_at, c_stride,
    )  # fmt: skip
    return procedure(given), codegen


@kernel
def tile(
    a: Any, a_at: int, a_stride: int, rows: int, b: Any, b_at: int, b_stride: int, steps: int,
    start: Any, start_at: int, c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    """Compute one tile of a float32 product, ``c = start + a @ b``, for the first `rows` of TILE_ROWS rows.

    With fewer rows than the tile has, the last row is computed again in the spare places and written again with the
    same value: one piece of machine code, and one order of sums, for every size.

    Parameters
    ----------
    a, b, start, c : ndarray of 32-bit numbers, C-contiguous
        Flat buffers; the ``_at`` positions say where the operand begins and the ``_stride`` how far apart rows are.
        `start` is the row that the sums begin with (the bias, or zeros), of TILE_WIDTH numbers.
    rows : int
        Rows of A and C that exist, 1 to TILE_ROWS.
    steps : int
        Rows of B; for float32, the length K of the sums.
    """
    _tile_float32(a, a_at, a_stride, rows, b, b_at, b_stride, steps, start, start_at, c, c_at, c_stride)


@kernel
def tile_bfloat16(
    a: Any, a_at: int, a_stride: int, rows: int, b: Any, b_at: int, b_stride: int, steps: int,
    start: Any, start_at: int, c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    """Compute one tile of a bfloat16 product, with sums in float32; as `tile`, on the words that multiply.py describes.

    A step is two k.
    """
    _tile_bfloat16(a, a_at, a_stride, rows, b, b_at, b_stride, steps, start, start_at, c, c_at, c_stride)


@kernel
def tile_int8(
    a: Any, a_at: int, a_stride: int, rows: int, scales: Any, scales_at: int,
    b: Any, b_at: int, b_stride: int, steps: int, start: Any, scale: Any, bias: Any, column: int,
    c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    """Compute one tile of an int8 product: exact sums in int32, then ``c = sums * scale of row and column + bias``.

    As `tile`; a step is four k.

    Parameters
    ----------
    scales : ndarray of float32
        What a row of A was divided by, from position `scales_at`.
    start : ndarray of int32
        What the sums of each column begin with: it takes off what INT8_SHIFT adds to A.
    scale, bias : ndarray of float32
        Of each column of B.
    column : int
        Position in the three where the tile begins.
    """
    _tile_int8(
        a, a_at, a_stride, rows, scales, scales_at, b, b_at, b_stride, steps, start, scale, bias, column,
        c, c_at, c_stride,
    )  # fmt: skip
