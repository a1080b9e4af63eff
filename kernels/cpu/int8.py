"""The arithmetic of int8: a word of B holds the weights of four k, the earliest in the lowest byte; a step is all four.

    matrix   one instruction multiplies two rows of A, of eight bytes, by two columns of B (mmla.py)
    dot      one instruction multiplies four bytes of A by four of B. On x86-64 those of A are unsigned: 128 is added to
             each number of A, and taken off again by what the sums begin with
    pairs    one instruction multiplies two int16: a word of B is split into its even and its odd bytes, and of each
             four numbers of A the two that meet the even bytes stand before the others
    widen    elsewhere both sides become int32

Each row of A (a token) and each output has a scale of its own, so that its largest number becomes 127. Sums of products
are whole numbers and exact; then ``c = sums * scale of the row * scale of the column + bias``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numpy import int32

from ..parameters import Linear
from . import amx
from .isa import ISA, LANES, TILE_WIDTH
from .jit import inlined, intrinsic, kernel
from .micro_kernel import Product, emit_tile, keep_whole, load_row, procedure, store_row
from .packed import Int8Linear, Operand
from .panels import fill_up_linear, make_panels
from .rounding import find_scale, narrowing_store, quantize, word_index
from .simd import (
    FLOAT,
    INT64,
    INT_VECTOR,
    REGISTER_BITS,
    VECTOR,
    call_llvm,
    call_neon,
    constant,
    element_pointer,
    load,
    multiply_add,
    nearest,
    shuffle,
    splat_value,
)
from .view import Rows, View, from_row, move, take_apart

SHORT_VECTOR = ir.VectorType(ir.IntType(16), 2 * LANES)
SHIFT = 128 if ISA.int8 == "dot" and not ISA.neon else 0
BYTE_VECTOR = ir.VectorType(ir.IntType(8), 4 * LANES)


def pack_int8(layer: Linear) -> Int8Linear:
    """Fill up, quantise and reorder a layer."""
    weight, bias = fill_up_linear(layer)
    numbers, scale = quantize(weight)
    start = numbers.sum(axis=1, dtype=int32) * int32(-SHIFT)
    padding = -numbers.shape[1] % ISA.int8_depth
    if padding:  # of AMX registers. The numbers that the zeros meet can be any: whole numbers have no NaN
        numbers = np.pad(numbers, ((0, 0), (0, padding)))
    return Int8Linear(make_panels(numbers), bias, scale, start)


# ---- how A is written


def _as_bytes(builder: Any, whole: Any) -> Any:
    return builder.trunc(builder.add(whole, constant(SHIFT)), ir.VectorType(ir.IntType(8), LANES))


def _as_shorts(builder: Any, whole: Any) -> Any:
    order = [lane - lane % 4 + (0, 2, 1, 3)[lane % 4] for lane in range(LANES)]
    undefined = ir.Constant(INT_VECTOR, ir.Undefined)
    return builder.trunc(shuffle(builder, whole, undefined, order), ir.VectorType(ir.IntType(16), LANES))


def _as_ints(builder: Any, whole: Any) -> Any:
    return whole


_LAYOUT = {"matrix": _as_bytes, "dot": _as_bytes, "pairs": _as_shorts, "widen": _as_ints}[ISA.int8]
_store = narrowing_store(lambda builder, values: _LAYOUT(builder, builder.fptosi(values, INT_VECTOR)))


@inlined
def write_int8(a: View, rows: int, layer: Int8Linear, operand: Operand) -> View:
    """Divide each row by its scale and round to whole numbers from -127 to 127."""
    row_words = layer.panels.shape[1] * WORDS
    for row in range(rows):
        at = a.at + row * a.stride
        inverse = find_scale(a.array, at, a.stride, operand.scales, row)
        for i in range(0, a.stride, LANES):
            _store(operand.words, word_index(row, i * WORDS // 4, row_words), nearest(load(a.array, at + i) * inverse))
    return View(operand.words, 0, row_words)


# ---- how a step is multiplied


def _multiply_matrices(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    sides = [builder.bitcast(side, BYTE_VECTOR) for side in (a, b)]
    return call_neon(builder, "smmla.v4i32.v16i8", INT_VECTOR, [sums, *sides])


def _dot(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    """Bytes of A, unsigned on x86-64, times signed bytes of B; no sum of products leaves int32, none is saturated."""
    if ISA.neon:
        sides = [builder.bitcast(side, BYTE_VECTOR) for side in (b, a)]  # the second may be a lane
        return call_neon(builder, "sdot.v4i32.v16i8", INT_VECTOR, [sums, *sides])
    return call_llvm(builder, f"llvm.x86.avx512.vpdpbusd.{REGISTER_BITS}", INT_VECTOR, [sums, a, b])


def _split_in_pairs(builder: Any, words: Any) -> list[Any]:
    """Sign-extend bytes 0 and 2 of each word to int16, then bytes 1 and 3."""
    shorts, eight = builder.bitcast(words, SHORT_VECTOR), constant(8, SHORT_VECTOR)
    return [builder.ashr(builder.shl(shorts, eight), eight), builder.ashr(shorts, eight)]


def _multiply_pairs(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    name = {256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}[REGISTER_BITS]
    return builder.add(sums, call_llvm(builder, name, INT_VECTOR, [builder.bitcast(a, SHORT_VECTOR), b]))


def _widen(builder: Any, words: Any) -> list[Any]:
    """Sign-extend the four bytes of each word to int32, the lowest first."""
    return [builder.ashr(builder.shl(words, constant(24 - 8 * byte)), constant(24)) for byte in range(4)]


def _multiply_ints(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    return builder.add(sums, builder.mul(a, b))


_PRODUCT = {
    "matrix": Product(keep_whole, _multiply_matrices, words=1, sums=INT_VECTOR, matrix=True),
    "dot": Product(keep_whole, _dot, words=1, sums=INT_VECTOR),
    "pairs": Product(_split_in_pairs, _multiply_pairs, words=2, sums=INT_VECTOR),
    "widen": Product(_widen, _multiply_ints, words=4, sums=INT_VECTOR),
}[ISA.int8]
WORDS = _PRODUCT.words  # of A for four numbers


# ---- the tile


def _rescaling(
    builder: Any, scales: Rows, scale: Any, bias: Any, c: Rows
) -> Callable[[Any, list[Any]], None]:  # fmt: skip
    """Make the emitter that turns the sums of a row into floats and stores them."""
    scale_row, bias_row = load_row(builder, scale, VECTOR), load_row(builder, bias, VECTOR)

    def finish(row: Any, sums: list[Any]) -> None:
        row_scale = splat_value(builder, builder.load(scales.row(builder, row), typ=FLOAT))
        scaled = [builder.fmul(builder.sitofp(total, VECTOR), row_scale) for total in sums]
        floats = [multiply_add(builder, *terms) for terms in zip(scaled, scale_row, bias_row, strict=True)]
        store_row(builder, floats, c.row(builder, row))

    return finish


@intrinsic
def _tile(typingctx: Any, a: Any, scales: Any, rows: Any, layer: Any, panel: Any, c: Any) -> Any:
    """Emit the tile; see `tile_int8` below."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, scales, c = (take_apart(context, builder, sig.args[i], args[i]) for i in (0, 1, 5))
        rows, layer, panel = args[2:5]
        fields = [(kind, builder.extract_value(layer, i)) for i, kind in enumerate(sig.args[3])]
        steps = builder.extract_value(context.make_array(fields[0][0])(context, builder, fields[0][1]).shape, 1)
        column = builder.mul(panel, INT64(TILE_WIDTH))
        panels = element_pointer(context, builder, *fields[0], INT64(0))
        b = Rows(move(builder, panels, builder.mul(column, steps)), INT64(TILE_WIDTH))
        bias, scale, start = (element_pointer(context, builder, *field, column) for field in fields[1:])
        finish = _rescaling(builder, scales, scale, bias, c)
        if ISA.amx:
            amx.emit_int8_block(builder, a, rows, b, Rows(start, INT64(0)), finish)
        else:
            emit_tile(builder, _PRODUCT, a, rows, b, steps, Rows(start, INT64(0)), finish)
        return context.get_dummy_value()

    return procedure((a, scales, rows, layer, panel, c)), codegen


@(inlined if ISA.amx else kernel)
def tile_int8(a: View, scales: View, rows: int, layer: Int8Linear, panel: int, c: View) -> None:
    """Compute one tile of a product with one panel of a layer; as `tile` of float32.py.

    scales: what each row of A was divided by.
    """
    _tile(a, scales, rows, layer, panel, c)


def multiply_int8(a: View, operand: Operand, row: int, rows: int, layer: Any, panel: int, c: View) -> None:
    """Do what `multiply` (products.py) says."""
    tile_int8(from_row(a, row), View(operand.scales, row, 1), rows, layer, panel, c)
