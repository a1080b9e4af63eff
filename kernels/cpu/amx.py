"""The tile where the processor has AMX: eight registers of 16 rows by 16 words, and an instruction that multiplies two.

    C[32, 32] = start + A[32, K] @ B[K, 32]

Four registers hold C, two hold 16 words of K for 32 rows of A, two hold them for 32 columns of B. One instruction adds
the products of a register of A and one of B to one of C: 16 x 16 sums of 16 words, each word two bfloat16 or four int8.
Per step of 16 words 4 registers are read (8 cycles each) and 4 products computed (16 cycles each): the reads hide.

B are the panels that the other tiles read, whose words already stand as the instruction wants them. A is written in
blocks that fill a register each (`word_index` in rounding.py).

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
from .micro_kernel import declare_tile, load_row, procedure, store_row
from .simd import FLOAT, INT32, INT64, INT_VECTOR, VECTOR, call_llvm
from .view import Rows, move

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
Parts = tuple[tuple[int, int], ...]
ONE_PRODUCT: Parts = ((0, 0),)
THREE_PRODUCTS: Parts = ((0, 1), (1, 0), (0, 0))


def instruction(builder: Any, name: str, args: Sequence[Any]) -> None:
    """Emit an AMX instruction. (All pass through here, so that tests can put an emulation in its place.)"""
    call_llvm(builder, f"llvm.x86.{name}", NOTHING, list(args))


def _transfer(builder: Any, name: str, register: int, place: Any, row_words: Any) -> None:
    """Emit a load or store of a register whose rows lie `row_words` words apart."""
    address = builder.bitcast(place, BYTE.as_pointer())
    instruction(builder, name, [BYTE(register), address, builder.mul(row_words, INT64(4))])


def _emit_products(
    builder: Any, dot: str, products: Parts, heights: int, a: Rows, b: Rows, start: Rows, target: Rows
) -> None:
    """Emit start + A @ B for `heights` registers of rows, stored to `target`; a row of A has all parts together."""
    parts = 1 + max(a_part for a_part, _ in products)
    depth = builder.udiv(a.stride, INT64(SIDE * parts))  # registers along K in a part
    rows, columns = range(heights), range(2)
    for j in columns:
        for i in rows:
            _transfer(builder, "tileloadd64", C[i][j], move(builder, start.first, INT64(j * SIDE)), start.stride)
    for a_part, b_part in products:
        with cgutils.for_range(builder, depth, intp=INT64) as loop:
            a_step = builder.add(builder.mul(depth, INT64(a_part)), loop.index)
            b_step = builder.add(builder.mul(depth, INT64(b_part)), loop.index)
            a_first = move(builder, a.first, builder.mul(a_step, INT64(REGISTER_WORDS)))
            b_first = move(builder, b.first, builder.mul(b_step, INT64(SIDE * BLOCK_COLUMNS)))
            for j in columns:
                place = move(builder, b_first, INT64(j * SIDE))
                _transfer(builder, "tileloadd64", B[j], place, INT64(BLOCK_COLUMNS))
            for i in rows:
                place = move(builder, a_first, builder.mul(a.stride, INT64(i * SIDE)))
                _transfer(builder, "tileloadd64", A[i], place, INT64(SIDE))
                for j in columns:
                    instruction(builder, dot, [BYTE(C[i][j]), BYTE(A[i]), BYTE(B[j])])
    for i in rows:
        for j in columns:
            place = move(builder, target.row(builder, INT64(i * SIDE)), INT64(j * SIDE))
            _transfer(builder, "tilestored64", C[i][j], place, target.stride)


def _emit_either_height(builder: Any, rows: Any, emit: Callable[[int], None]) -> None:
    """Emit what 32 rows need, and what 16 do for when those suffice."""
    with builder.if_else(builder.icmp_signed(">", rows, INT64(SIDE))) as (more, fewer):
        with more:
            emit(2)
        with fewer:
            emit(1)


def _make_scratch(builder: Any) -> Rows:
    """Emit room for the results of a block on the stack."""
    room = cgutils.alloca_once(builder, FLOAT, size=INT32(BLOCK_ROWS * BLOCK_COLUMNS))
    room.align = 64
    return Rows(room, INT64(BLOCK_COLUMNS))


def float_block(products: Parts) -> Callable[..., Any]:
    """Make the intrinsic of a block of bfloat16, or of sums of those: a tile as others, for up to BLOCK_ROWS rows."""

    def emit(builder: Any, a: Rows, rows: Any, b: Rows, steps: Any, start: Rows, c: Rows) -> None:
        scratch = _make_scratch(builder)

        def emit_height(heights: int) -> None:
            """Store to C where all rows of the registers exist there, else to the scratch."""
            whole = builder.icmp_signed("==", rows, INT64(heights * SIDE))
            target = Rows(*(builder.select(whole, *either) for either in zip(c, scratch, strict=True)))
            _emit_products(builder, "tdpbf16ps", products, heights, a, b, start, target)
            with builder.if_then(builder.not_(whole)), cgutils.for_range(builder, rows, intp=INT64) as row:
                vectors = load_row(builder, scratch.row(builder, row.index), VECTOR)
                store_row(builder, vectors, c.row(builder, row.index))

        _emit_either_height(builder, rows, emit_height)

    return declare_tile(emit)


def emit_int8_block(
    builder: Any, a: Rows, rows: Any, b: Rows, start: Rows, finish: Callable[[Any, list[Any]], None]
) -> None:
    """Emit a block of an int8 product, with the sums of micro_kernel.emit_tile, for up to BLOCK_ROWS rows."""
    scratch = _make_scratch(builder)

    def emit(heights: int) -> None:
        _emit_products(builder, "tdpbusd", ONE_PRODUCT, heights, a, b, start, scratch)

    _emit_either_height(builder, rows, emit)
    with cgutils.for_range(builder, rows, intp=INT64) as row:
        finish(row.index, load_row(builder, scratch.row(builder, row.index), INT_VECTOR))


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
