"""The register tile: the innermost piece of every matrix product.

    C[TILE_ROWS, TILE_WIDTH] = start + A[TILE_ROWS, K] @ B[K, TILE_WIDTH]

All of C stays in vector registers while k runs from 0 to K: per k, two vectors of B and one number of each row of A
are read, and every accumulator takes one fused multiply-add. With enough accumulators to hide the latency of the
instruction, this runs at the processor's limit (benchmarks/kernels.py shows the share of the measured peak).

An element of C is one chain of additions in the order of k, whatever the size of the matrices and wherever the tile
lies: this is why a pair's score has the same bits in any batch.
"""

from typing import Any

from numba import types
from numba.core import cgutils

from .isa import LANES, TILE_ROWS
from .jit import intrinsic, kernel
from .simd import FLOAT, INT64, element_pointer, load_vector, multiply_add, splat_value, store_vector

VECTORS = 2  # TILE_WIDTH / LANES
UNROLL = 4  # steps of k per iteration of the main loop


@intrinsic
def _tile(
    typingctx: Any, a: Any, a_at: Any, a_stride: Any, rows: Any, b: Any, b_at: Any, b_stride: Any, depth: Any,
    start: Any, start_at: Any, c: Any, c_at: Any, c_stride: Any,
) -> Any:  # fmt: skip
    """Emit the tile; see `tile` below."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, a_at, a_stride, rows, b, b_at, b_stride, depth, start, start_at, c, c_at, c_stride = args
        a_first = element_pointer(context, builder, sig.args[0], a, a_at)
        b_first = element_pointer(context, builder, sig.args[4], b, b_at)
        start_first = element_pointer(context, builder, sig.args[8], start, start_at)
        c_first = element_pointer(context, builder, sig.args[10], c, c_at)

        def at(pointer: Any, index: Any) -> Any:
            return builder.gep(pointer, [index], source_etype=FLOAT)

        last = builder.sub(rows, INT64(1))
        row = [builder.select(builder.icmp_signed("<", INT64(r), last), INT64(r), last) for r in range(TILE_ROWS)]
        a_rows = [at(a_first, builder.mul(a_stride, r)) for r in row]
        initial = [load_vector(builder, at(start_first, INT64(v * LANES))) for v in range(VECTORS)]
        accumulators = [[cgutils.alloca_once_value(builder, initial[v]) for v in range(VECTORS)] for _ in row]

        def add_products_of(k: Any) -> None:
            b_row = at(b_first, builder.mul(b_stride, k))
            b_values = [load_vector(builder, at(b_row, INT64(v * LANES))) for v in range(VECTORS)]
            for a_row, sums in zip(a_rows, accumulators, strict=True):
                a_value = splat_value(builder, builder.load(at(a_row, k), typ=FLOAT))
                for b_value, total in zip(b_values, sums, strict=True):
                    builder.store(multiply_add(builder, a_value, b_value, builder.load(total)), total)

        whole = builder.udiv(depth, INT64(UNROLL))
        with cgutils.for_range(builder, whole, intp=INT64) as loop:
            for step in range(UNROLL):
                add_products_of(builder.add(builder.mul(loop.index, INT64(UNROLL)), INT64(step)))
        with cgutils.for_range_slice(builder, builder.mul(whole, INT64(UNROLL)), depth, INT64(1), intp=INT64) as (k, _):
            add_products_of(k)
        for r, sums in zip(row, accumulators, strict=True):
            c_row = at(c_first, builder.mul(c_stride, r))
            for v, total in enumerate(sums):
                store_vector(builder, builder.load(total), at(c_row, INT64(v * LANES)))
        return context.get_dummy_value()

    number = types.int64
    numbers = {1, 2, 3, 5, 6, 7, 9, 11, 12}
    given = (a, a_at, a_stride, rows, b, b_at, b_stride, depth, start, start_at, c, c_at, c_stride)
    return types.void(*[number if i in numbers else arg for i, arg in enumerate(given)]), codegen


@kernel
def tile(
    a: Any, a_at: int, a_stride: int, rows: int, b: Any, b_at: int, b_stride: int, depth: int,
    start: Any, start_at: int, c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    """Compute one tile of a product, ``c = start + a @ b``, for the first `rows` of TILE_ROWS rows.

    With fewer rows than the tile has, the last row is computed again in the spare places and written again with the
    same value: one piece of machine code, and one order of sums, for every size.

    Parameters
    ----------
    a, b, start, c : ndarray of float32, C-contiguous
        Flat buffers; the ``_at`` positions say where the operand begins and the ``_stride`` how far apart rows are.
        `start` is the row that the sums begin with (the bias, or zeros), of TILE_WIDTH numbers.
    rows : int
        Rows of A and C that exist, 1 to TILE_ROWS.
    depth : int
        K, the length of the sums.
    """
    _tile(a, a_at, a_stride, rows, b, b_at, b_stride, depth, start, start_at, c, c_at, c_stride)
