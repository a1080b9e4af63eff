"""The tile where the processor has AMX: eight registers of 16 rows by 16 words, and an instruction that multiplies two.

    C[32, 32] = start + A[32, K] @ B[K, 32]

Four registers hold C, two hold 16 words of K for 32 rows of A, two hold them for 32 columns of B. One instruction adds
the products of a register of A and one of B to one of C: 16 x 16 sums of 16 words, each word two bfloat16 or four int8.
Per step of 16 words 4 registers are read (8 cycles each) and 4 products computed (16 cycles each): the reads hide.

B are the panels that the other tiles read, whose words already stand as the instruction wants them. A is written in
blocks that fill a register each (operands.py).

Nearly float32 can be had from the same instruction: each number is the sum of two bfloat16 parts of 8 bits, the second
what the first leaves over. Of the four products of parts three, added in float32, come near the product; the smallest,
of the two second parts, is left out.

Source: G. Henry et al., "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations"
(2019). An element of C is one chain of sums in a fixed order, as in micro_kernel.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .jit import intrinsic
from .micro_kernel import load_row, procedure, rescaling
from .simd import FLOAT, INT32, INT64, INT_VECTOR, VECTOR, call_llvm, element_pointer, store_vector

SIDE = 16  # rows of a register, and words in a row
BLOCK_ROWS = 2 * SIDE
BLOCK_COLUMNS = 2 * SIDE  # TILE_WIDTH, as AMX comes with AVX-512 only
REGISTER_WORDS = SIDE * SIDE
C, A, B = ((0, 1), (2, 3)), (4, 5), (6, 7)  # numbers of the registers
BYTE, NOTHING = ir.IntType(8), ir.VoidType()
# Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, LDTILECFG: palette, first row,
# reserved; bytes in a row of each register (16 bits), of which 8 exist; rows of each
CONFIGURATION = bytes([1, 0, *[0] * 14, *[4 * SIDE, 0] * 8, *[0] * 16, *[SIDE] * 8, *[0] * 8])

# (part of A, part of B) of each product, the small ones first: so their sum is not lost beside the large ones
PRODUCTS = {1: ((0, 0),), 2: ((0, 1), (1, 0), (0, 0))}


def instruction(builder: Any, name: str, args: Sequence[Any]) -> None:
    """Emit an AMX instruction. (All pass through here, so that tests can put an emulation in its place.)"""
    call_llvm(builder, f"llvm.x86.{name}", NOTHING, list(args))


def _at(builder: Any, pointer: Any, words: Any) -> Any:
    return builder.gep(pointer, [words], source_etype=FLOAT)


def _transfer(builder: Any, name: str, register: int, pointer: Any, row_words: Any) -> None:
    """Emit a load or store of a register whose rows lie `row_words` words apart."""
    place = builder.bitcast(pointer, BYTE.as_pointer())
    instruction(builder, name, [BYTE(register), place, builder.mul(row_words, INT64(4))])


def _emit_products(
    builder: Any, dot: str, parts: int, heights: int, a: Any, a_stride: Any, b: Any, start: Any, target: Any,
    target_stride: Any,
) -> None:  # fmt: skip
    """Emit start + A @ B for `heights` registers of rows, stored to `target`.

    a_stride: words of a row of A, all parts together; strides count words.
    """
    depth = builder.udiv(a_stride, INT64(SIDE * parts))  # registers along K in a part
    rows, columns = range(heights), range(2)
    for j in columns:
        for i in rows:
            _transfer(builder, "tileloadd64", C[i][j], _at(builder, start, INT64(j * SIDE)), INT64(0))
    for a_part, b_part in PRODUCTS[parts]:
        with cgutils.for_range(builder, depth, intp=INT64) as loop:
            a_step = builder.add(builder.mul(depth, INT64(a_part)), loop.index)
            b_step = builder.add(builder.mul(depth, INT64(b_part)), loop.index)
            a_first = _at(builder, a, builder.mul(a_step, INT64(REGISTER_WORDS)))
            b_first = _at(builder, b, builder.mul(b_step, INT64(SIDE * BLOCK_COLUMNS)))
            for j in columns:
                place = _at(builder, b_first, INT64(j * SIDE))
                _transfer(builder, "tileloadd64", B[j], place, INT64(BLOCK_COLUMNS))
            for i in rows:
                place = _at(builder, a_first, builder.mul(a_stride, INT64(i * SIDE)))
                _transfer(builder, "tileloadd64", A[i], place, INT64(SIDE))
                for j in columns:
                    instruction(builder, dot, [BYTE(C[i][j]), BYTE(A[i]), BYTE(B[j])])
    for i in rows:
        for j in columns:
            row = _at(builder, target, builder.mul(target_stride, INT64(i * SIDE)))
            _transfer(builder, "tilestored64", C[i][j], _at(builder, row, INT64(j * SIDE)), target_stride)


def _emit_either_height(builder: Any, rows: Any, emit: Callable[[int], None]) -> None:
    """Emit what 32 rows need, and what 16 do for when those suffice."""
    with builder.if_else(builder.icmp_signed(">", rows, INT64(SIDE))) as (more, fewer):
        with more:
            emit(2)
        with fewer:
            emit(1)


def _scratch(builder: Any) -> Any:
    """Emit room for the results of a block on the stack."""
    room = cgutils.alloca_once(builder, FLOAT, size=INT32(BLOCK_ROWS * BLOCK_COLUMNS))
    room.align = 64
    return room


def _float_block(parts: int) -> Callable[..., Any]:
    """Make the intrinsic of a block whose factors are sums of so many bfloat16."""

    def declare(
        typingctx: Any, a: Any, a_at: Any, a_stride: Any, rows: Any, b: Any, b_at: Any,
        start: Any, start_at: Any, c: Any, c_at: Any, c_stride: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            a, a_at, a_stride, rows, b, b_at, start, start_at, c, c_at, c_stride = args
            a_first = element_pointer(context, builder, sig.args[0], a, a_at)
            b_first = element_pointer(context, builder, sig.args[4], b, b_at)
            start_first = element_pointer(context, builder, sig.args[6], start, start_at)
            c_first = element_pointer(context, builder, sig.args[8], c, c_at)
            scratch = _scratch(builder)

            def emit(heights: int) -> None:
                """Store to C where all rows of the registers exist there, else to the scratch."""
                whole = builder.icmp_signed("==", rows, INT64(heights * SIDE))
                target = builder.select(whole, c_first, scratch)
                stride = builder.select(whole, c_stride, INT64(BLOCK_COLUMNS))
                _emit_products(
                    builder, "tdpbf16ps", parts, heights, a_first, a_stride, b_first, start_first, target, stride
                )
                with builder.if_then(builder.not_(whole)), cgutils.for_range(builder, rows, intp=INT64) as row:
                    source = _at(builder, scratch, builder.mul(row.index, INT64(BLOCK_COLUMNS)))
                    place = _at(builder, c_first, builder.mul(row.index, c_stride))
                    _store_row(builder, load_row(builder, source, VECTOR), place)

            _emit_either_height(builder, rows, emit)
            return context.get_dummy_value()

        return procedure((a, a_at, a_stride, rows, b, b_at, start, start_at, c, c_at, c_stride)), codegen

    return intrinsic(declare)


def _store_row(builder: Any, vectors: Sequence[Any], place: Any) -> None:
    for v, value in enumerate(vectors):
        store_vector(builder, value, _at(builder, place, INT64(v * SIDE)))


# The block of bfloat16, and of two parts. As micro_kernel.tile, but for up to BLOCK_ROWS rows, and `a` and its
# stride as operands.py writes them: the stride is that of all parts.
block_bfloat16, block_two_parts = _float_block(1), _float_block(2)


@intrinsic
def block_int8(
    typingctx: Any, a: Any, a_at: Any, a_stride: Any, rows: Any, scales: Any, scales_at: Any, b: Any, b_at: Any,
    start: Any, scale: Any, bias: Any, column: Any, c: Any, c_at: Any, c_stride: Any,
) -> Any:  # fmt: skip
    """Compute a block of an int8 product: as micro_kernel.tile_int8 and with its bits, for up to BLOCK_ROWS rows."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, a_at, a_stride, rows, scales, scales_at, b, b_at, start, scale, bias, column, c, c_at, c_stride = args
        a_first = element_pointer(context, builder, sig.args[0], a, a_at)
        scales_first = element_pointer(context, builder, sig.args[4], scales, scales_at)
        b_first = element_pointer(context, builder, sig.args[6], b, b_at)
        start_first = element_pointer(context, builder, sig.args[8], start, column)
        scale_first = element_pointer(context, builder, sig.args[9], scale, column)
        bias_first = element_pointer(context, builder, sig.args[10], bias, column)
        c_first = element_pointer(context, builder, sig.args[12], c, c_at)
        to_float = rescaling(builder, scales_first, scale_first, bias_first)
        scratch, stride = _scratch(builder), INT64(BLOCK_COLUMNS)

        def emit(heights: int) -> None:
            _emit_products(builder, "tdpbusd", 1, heights, a_first, a_stride, b_first, start_first, scratch, stride)

        _emit_either_height(builder, rows, emit)
        with cgutils.for_range(builder, rows, intp=INT64) as row:
            sums = load_row(builder, _at(builder, scratch, builder.mul(row.index, stride)), INT_VECTOR)
            place = _at(builder, c_first, builder.mul(row.index, c_stride))
            _store_row(builder, [to_float(v, row.index, total) for v, total in enumerate(sums)], place)
        return context.get_dummy_value()

    given = (a, a_at, a_stride, rows, scales, scales_at, b, b_at, start, scale, bias, column, c, c_at, c_stride)
    return procedure(given), codegen


@intrinsic
def configure_registers(typingctx: Any) -> Any:
    """Give the registers their shape; must precede the first block, and `release_registers` follow the last."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = cgutils.global_constant(builder, "amx_configuration", cgutils.make_bytearray(CONFIGURATION))
        instruction(builder, "ldtilecfg", [builder.bitcast(data, BYTE.as_pointer())])
        return context.get_dummy_value()

    return procedure(()), codegen


@intrinsic
def release_registers(typingctx: Any) -> Any:
    """Leave the registers empty, so that the operating system need not save them when it changes threads."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        instruction(builder, "tilerelease", [])
        return context.get_dummy_value()

    return procedure(()), codegen
