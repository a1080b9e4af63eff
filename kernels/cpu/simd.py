"""A vector register as a Numba type: ``LANES`` float32 numbers with +, -, *, / and the few functions that we need.

``a + b``, ``fma(a, b, c)`` or ``maximum(a, b)`` become one or two LLVM vector instructions, on every processor. Kernels
so say themselves what is computed in a register, instead of hoping that a loop is vectorised; and since the order of
every sum is written down, results have the same bits wherever a row stands.
A Python float in an expression with a vector is rounded to float32 and broadcast.

Arrays are addressed as flat buffers: ``load(x, i)`` reads ``x.ravel()[i : i + LANES]``.
"""

import operator
from collections.abc import Callable
from typing import Any, Protocol

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import models, register_model

from .instruction_sets import REQUIRED_FEATURES
from .isa import ISA, LANES
from .jit import intrinsic, use_features

FLOAT, INT32, INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR, INT_VECTOR = ir.VectorType(FLOAT, LANES), ir.VectorType(INT32, LANES)
REGISTER_BITS = 32 * LANES
ELEMENT_BYTES = 4  # no alignment is promised to LLVM: on aligned addresses the unaligned instructions cost nothing


class VectorType(types.Type):
    """The Numba type of a vector register."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = VectorType()


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    """A vector is held as the LLVM value itself."""

    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, VECTOR)


class Vector(Protocol):
    """A vector in the eyes of readers and type checkers; in a kernel it is a register."""

    def __add__(self, other: "Vector | float") -> "Vector": ...
    def __sub__(self, other: "Vector | float") -> "Vector": ...
    def __mul__(self, other: "Vector | float") -> "Vector": ...
    def __truediv__(self, other: "Vector | float") -> "Vector": ...
    def __radd__(self, other: float) -> "Vector": ...
    def __rsub__(self, other: float) -> "Vector": ...
    def __rmul__(self, other: float) -> "Vector": ...
    def __rtruediv__(self, other: float) -> "Vector": ...


# ---- arithmetic operators


class _Arithmetic(AbstractTemplate):
    """vector op vector, vector op float, float op vector -> vector."""

    def generic(self, args: Any, kws: Any) -> Any:
        if vector in args and all(arg == vector or isinstance(arg, types.Float) for arg in args):
            return signature(vector, vector, vector)
        return None


def _define_operator(function: Callable[..., Any], instruction: str) -> None:
    infer_global(function)(type(f"_{instruction}", (_Arithmetic,), {"key": function}))

    @lower_builtin(function, VectorType, VectorType)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


for _operator, _instruction in {
    operator.add: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}.items():
    _define_operator(_operator, _instruction)


@lower_cast(types.Float, VectorType)
def _broadcast(context: Any, builder: Any, from_type: Any, to_type: Any, value: Any) -> Any:
    return splat_value(builder, context.cast(builder, value, from_type, types.float32))


def constant(value: int, kind: ir.VectorType = INT_VECTOR) -> Any:
    """Return a vector with the whole number in every lane, as an LLVM value."""
    return ir.Constant(kind, [value] * kind.count)


def splat_value(builder: Any, scalar: Any) -> Any:
    """Emit a vector that holds the scalar, a float32 or int32, in every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, INT32(0))
    return builder.shuffle_vector(first, undefined, constant(0))


# ---- functions of vectors


def call_llvm(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """Emit a call of an LLVM intrinsic, named with its type suffix (llvmlite cannot derive it for vectors)."""
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def call_neon(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """As `call_llvm`, of an instruction that LLVM may not know this processor to have (it would end the process)."""
    use_features(builder, REQUIRED_FEATURES[ISA.name])
    return call_llvm(builder, f"llvm.aarch64.neon.{name}", result, args)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Emit a*b + c, in one rounding where the processor has the instruction (llvm.fma is a slow call elsewhere)."""
    if ISA.fma:
        return call_llvm(builder, f"llvm.fma.v{LANES}f32", VECTOR, [a, b, c])
    return builder.fadd(builder.fmul(a, b), c)


def vector_function(arity: int, emit: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of `arity` vectors to one vector out of the function that emits its instructions."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, *args)

    sig = vector(*[vector] * arity)
    declared: dict[int, Callable[..., Any]] = {
        1: lambda typingctx, a: (sig, codegen),
        2: lambda typingctx, a, b: (sig, codegen),
        3: lambda typingctx, a, b, c: (sig, codegen),
        4: lambda typingctx, a, b, c, d: (sig, codegen),
    }
    return intrinsic(declared[arity])


def _select_less(builder: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), x, y)


def _power_of_two(builder: Any, n: Any) -> Any:
    exponent = builder.add(builder.fptosi(n, INT_VECTOR), constant(127))
    return builder.bitcast(builder.shl(exponent, constant(23)), VECTOR)


fma = vector_function(3, multiply_add)  # fma(a, b, c) = a*b + c
select_less = vector_function(4, _select_less)  # select_less(a, b, x, y) = x where a < b, else y
minimum = vector_function(2, lambda builder, a, b: _select_less(builder, b, a, b, a))  # NaN in a stays
maximum = vector_function(2, lambda builder, a, b: _select_less(builder, a, b, b, a))  # NaN in a stays
nearest = vector_function(1, lambda builder, a: call_llvm(builder, f"llvm.rint.v{LANES}f32", VECTOR, [a]))
absolute = vector_function(1, lambda builder, a: call_llvm(builder, f"llvm.fabs.v{LANES}f32", VECTOR, [a]))
power_of_two = vector_function(1, _power_of_two)  # 2**n for whole n in [-126, 127], from the exponent bits


def _larger_size(builder: Any, a: Any, b: Any) -> Any:
    """Compare as whole numbers, without the sign: among floats NaN is then the largest, and is not lost."""
    kind = ir.VectorType(INT32, a.type.count) if isinstance(a.type, ir.VectorType) else INT32
    mask = ir.Constant(kind, [0x7FFFFFFF] * a.type.count if isinstance(a.type, ir.VectorType) else 0x7FFFFFFF)
    a_size, b_size = (builder.and_(builder.bitcast(x, kind), mask) for x in (a, b))
    return builder.bitcast(builder.select(builder.icmp_signed("<", a_size, b_size), b_size, a_size), a.type)


larger_size = vector_function(2, _larger_size)  # the larger of |a| and |b|; NaN is larger than all


@intrinsic
def splat(typingctx: Any, scalar: Any) -> Any:
    """Return a vector with the scalar in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat_value(builder, args[0])

    return vector(types.float32), codegen


@intrinsic
def keep_between(typingctx: Any, values: Any, first: Any, last: Any, other: Any) -> Any:
    """Return `values` in the lanes from `first` to the one before `last`, and `other` in the rest."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values, first, last, other = args
        lane = ir.Constant(INT_VECTOR, list(range(LANES)))
        not_before = builder.icmp_signed(">=", lane, splat_value(builder, builder.trunc(first, INT32)))
        before_end = builder.icmp_signed("<", lane, splat_value(builder, builder.trunc(last, INT32)))
        return builder.select(builder.and_(not_before, before_end), values, other)

    return vector(vector, types.int64, types.int64, vector), codegen


def _reduction(combine: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    """Fold a vector to one number by halves: always the same tree, whatever the compiler would prefer."""

    def declare(typingctx: Any, values: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            (value,) = args
            width = LANES
            while width > 1:
                width //= 2
                undefined = ir.Constant(value.type, ir.Undefined)
                low = shuffle(builder, value, undefined, list(range(width)))
                high = shuffle(builder, value, undefined, list(range(width, 2 * width)))
                value = combine(builder, low, high)
            return builder.extract_element(value, INT32(0))

        return types.float32(vector), codegen

    return intrinsic(declare)


def shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Emit a vector of chosen lanes of two, counted through both."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, len(lanes)), lanes))


reduce_add = _reduction(lambda builder, a, b: builder.fadd(a, b))
reduce_max = _reduction(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), b, a))


reduce_larger_size = _reduction(_larger_size)


# ---- memory


def element_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Emit the address of ``array.ravel()[index]`` for a C-contiguous array.

    The address comes from the array's own pointer: going through an integer lets LLVM 22 miscompile.
    """
    data = context.make_array(array_type)(context, builder, array).data
    element = context.get_data_type(array_type.dtype)
    return builder.gep(data, [index], inbounds=True, source_etype=element)


def load_vector(builder: Any, pointer: Any, vector_type: Any = VECTOR) -> Any:
    """Emit a load of LANES numbers."""
    return builder.load(pointer, align=ELEMENT_BYTES, typ=vector_type)


def store_vector(builder: Any, value: Any, pointer: Any, align: int = ELEMENT_BYTES) -> None:
    """Emit a store of LANES numbers."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=align)


def prefetch(builder: Any, pointer: Any) -> None:
    """Emit the hint to fetch a cache line into the L2 cache; the address may be any, even beyond an array."""
    read, keep_in_l2, data = INT32(0), INT32(2), INT32(1)
    call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, read, keep_in_l2, data])


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Return the vector that starts at flat position `index`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load_vector(builder, element_pointer(context, builder, sig.args[0], *args))

    return vector(array, types.int64), codegen


def _widening_load(widen: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make a function that returns LANES numbers of 16 bits, from flat position `index` of an array, as float32."""

    def declare(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = element_pointer(context, builder, sig.args[0], *args)
            halves = builder.load(pointer, align=2, typ=ir.VectorType(ir.IntType(16), LANES))
            return widen(builder, builder.zext(halves, INT_VECTOR))

        return vector(array, types.int64), codegen

    return intrinsic(declare)


def _widen_bfloat16(builder: Any, bits: Any) -> Any:
    return builder.bitcast(builder.shl(bits, constant(16)), VECTOR)


def _widen_float16(builder: Any, bits: Any) -> Any:
    """Put exponent and fraction where float32 has them. Its exponents begin 112 lower: a product makes up for that.

    It is exact, for the smallest numbers too, which thereby become normal ones. An instruction for this is not among
    those that every instruction set here promises.
    """
    sign = builder.shl(builder.and_(bits, constant(0x8000)), constant(16))
    size = builder.bitcast(builder.shl(builder.and_(bits, constant(0x7FFF)), constant(13)), VECTOR)
    scaled = builder.fmul(size, ir.Constant(VECTOR, [float(2**112)] * LANES))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, INT_VECTOR), sign), VECTOR)


load_bfloat16 = _widening_load(_widen_bfloat16)
load_float16 = _widening_load(_widen_float16)


@intrinsic
def store(typingctx: Any, array: Any, index: Any, values: Any) -> Any:
    """Write a vector to flat position `index`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, index, values = args
        store_vector(builder, values, element_pointer(context, builder, sig.args[0], array, index))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), codegen
