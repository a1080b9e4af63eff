"""The arithmetic of bfloat16: a word of B holds the weights of two k, the earlier in the lower half; a step is both.

    matrix   A is rounded to bfloat16 too, and one instruction multiplies two rows of A by two columns of B (mmla.py)
    dot      A is rounded as well, and one instruction multiplies words of both kinds
    widen    elsewhere A stays float32, as it is, and a word of B is split into two vectors of float32

A number can also be the sum of two bfloat16, for products that are nearly those of float32 (amx.py).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numpy import float32, int32

from ..parameters import Linear
from . import amx
from .float32 import multiply_floats, product_by
from .isa import ISA, LANES, TILE_WIDTH
from .jit import inlined, kernel
from .memory import aligned_empty
from .micro_kernel import Product, float_tile, keep_whole
from .packed import Bfloat16Linear, Operand, TwoPartLinear
from .panels import fill_up_linear, make_panels
from .rounding import nearest_bfloat16, store_bfloat16, to_bfloat16, word_index
from .simd import REGISTER_BITS, VECTOR, call_llvm, call_neon, constant, load
from .view import View


class _Bfloat(ir.Type):
    """LLVM's type, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"


BFLOAT16_VECTOR = ir.VectorType(_Bfloat(), 2 * LANES)


def pack_bfloat16(layer: Linear) -> Bfloat16Linear:
    """Fill up, round and reorder a layer."""
    weight, bias = fill_up_linear(layer)
    return Bfloat16Linear(make_panels(to_bfloat16(weight)), bias)


def pack_two_parts(layer: Linear) -> TwoPartLinear:
    """Write the weight as a sum of two bfloat16: the nearest, and the nearest to what is left."""
    weight, bias = fill_up_linear(layer)
    first = to_bfloat16(weight)
    second = to_bfloat16(weight - (first.astype(np.uint32) << 16).view(float32))
    parts = [make_panels(first), make_panels(second)]
    panels = aligned_empty(parts[0].shape[0], 2 * parts[0].shape[1], TILE_WIDTH, dtype=int32)
    np.concatenate(parts, axis=1, out=panels)
    return TwoPartLinear(panels, bias)


@inlined
def write_bfloat16(a: View, rows: int, parts: int, operand: Operand) -> View:
    """Write each number as its nearest bfloat16, or as that and the nearest to what is left; two numbers a word.

    All first parts of a row stand before the second ones.
    """
    words = a.stride // 2
    for row in range(rows):
        for i in range(0, a.stride, LANES):
            rest = load(a.array, a.at + row * a.stride + i)
            for part in range(parts):
                store_bfloat16(operand.words, word_index(row, part * words + i // 2, parts * words), rest)
                rest = rest - nearest_bfloat16(rest)
    return View(operand.words, 0, parts * words)


def _widen(builder: Any, words: Any) -> list[Any]:
    """Bfloat16 is the upper half of float32: move it there, and clear the lower half."""
    return [builder.shl(words, constant(16)), builder.and_(words, constant(-65536))]


def _multiply_matrices(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    sides = [builder.bitcast(side, BFLOAT16_VECTOR) for side in (a, b)]
    return call_neon(builder, "bfmmla", VECTOR, [sums, *sides])


def _dot(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    return call_llvm(builder, f"llvm.x86.avx512bf16.dpbf16ps.{REGISTER_BITS}", VECTOR, [sums, a, b])


_PRODUCT = {
    "matrix": Product(keep_whole, _multiply_matrices, words=1, sums=VECTOR, matrix=True),
    "dot": Product(keep_whole, _dot, words=1, sums=VECTOR),
    "widen": Product(_widen, multiply_floats, words=2, sums=VECTOR),
}[ISA.bfloat16]
_tile = amx.float_block(amx.ONE_PRODUCT) if ISA.amx else float_tile(_PRODUCT)


@(inlined if ISA.amx else kernel)
def tile_bfloat16(a: View, rows: int, b: View, steps: int, start: View, c: View) -> None:
    """Compute one tile of a product, with sums in float32; as `tile` of float32.py."""
    _tile(a, rows, b, steps, start, c)


multiply_bfloat16 = product_by(tile_bfloat16)
multiply_two_parts = product_by(amx.float_block(amx.THREE_PRODUCTS))
