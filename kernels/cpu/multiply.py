"""How the numbers of each precision are multiplied: the one piece in which the register tiles differ.

A tile reads its operands as 32-bit words, whatever is in them, step by step along K:

    float32   one number a word, one k a step
    bfloat16  a word of B holds the weights of two k, the earlier in the lower half
    int8      a word of B holds the weights of four k, the earliest in the lowest byte

What the words of A hold depends on the processor: where one instruction multiplies and adds up the whole word, A has
words of the same kind; elsewhere words of B are split into vectors that the processor can multiply, and A has one word
for each of those vectors in a step. operands.py writes A accordingly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from .isa import ISA, LANES
from .simd import INT_VECTOR, VECTOR, call_llvm, multiply_add

BITS = 32 * LANES  # of a vector register
SHORT_VECTOR = ir.VectorType(ir.IntType(16), 2 * LANES)


class Product(NamedTuple):
    """How a step of K is multiplied and added to the sums."""

    split: Callable[[Any, Any], list[Any]]  # (builder, words of B) -> one vector for each word of A in a step
    multiply_add: Callable[[Any, Any, Any, Any], Any]  # (builder, a, b, sums) -> sums + a * b
    words: int  # of A in a step: the vectors that `split` makes
    sums: Any  # type of the accumulators


def _whole(builder: Any, words: Any) -> list[Any]:
    return [words]


def _constant(value: int, vector: Any = INT_VECTOR) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _multiply_floats(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    return multiply_add(builder, builder.bitcast(a, VECTOR), builder.bitcast(b, VECTOR), sums)


def _widen_bfloat16(builder: Any, words: Any) -> list[Any]:
    """Bfloat16 is the upper half of float32: move it there, and clear the lower half."""
    return [builder.shl(words, _constant(16)), builder.and_(words, _constant(-65536))]


def _dot_bfloat16(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    return call_llvm(builder, f"llvm.x86.avx512bf16.dpbf16ps.{BITS}", VECTOR, [sums, a, b])


def _dot_int8(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    """Unsigned bytes of A times signed bytes of B; no sum of four products leaves int32, and none is saturated."""
    return call_llvm(builder, f"llvm.x86.avx512.vpdpbusd.{BITS}", INT_VECTOR, [sums, a, b])


def _split_int8_in_pairs(builder: Any, words: Any) -> list[Any]:
    """Sign-extend bytes 0 and 2 of each word to int16, then bytes 1 and 3."""
    shorts, eight = builder.bitcast(words, SHORT_VECTOR), _constant(8, SHORT_VECTOR)
    return [builder.ashr(builder.shl(shorts, eight), eight), builder.ashr(shorts, eight)]


def _multiply_pairs(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    name = {256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}[BITS]
    return builder.add(sums, call_llvm(builder, name, INT_VECTOR, [builder.bitcast(a, SHORT_VECTOR), b]))


def _widen_int8(builder: Any, words: Any) -> list[Any]:
    """Sign-extend the four bytes of each word to int32, the lowest first."""
    return [builder.ashr(builder.shl(words, _constant(24 - 8 * byte)), _constant(24)) for byte in range(4)]


def _multiply_ints(builder: Any, a: Any, b: Any, sums: Any) -> Any:
    return builder.add(sums, builder.mul(a, b))


FLOAT32 = Product(_whole, _multiply_floats, 1, VECTOR)
BFLOAT16 = {
    "dot": Product(_whole, _dot_bfloat16, 1, VECTOR),
    "widen": Product(_widen_bfloat16, _multiply_floats, 2, VECTOR),
}[ISA.bfloat16]
INT8 = {
    "dot": Product(_whole, _dot_int8, 1, INT_VECTOR),
    "pairs": Product(_split_int8_in_pairs, _multiply_pairs, 2, INT_VECTOR),
    "widen": Product(_widen_int8, _multiply_ints, 4, INT_VECTOR),
}[ISA.int8]
INT8_SHIFT = 128 if ISA.int8 == "dot" else 0  # is added to the numbers of A, which that instruction takes as unsigned
