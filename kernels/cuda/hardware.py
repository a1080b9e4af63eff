"""The primitives as intrinsics: LLVM IR, and PTX where LLVM has no word for it. primitives.py says what each does."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import cuda, types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

from .fragments import ACROSS, DOWN, FRAGMENT_A, FRAGMENT_B, FRAGMENT_C, MMA_COLUMNS, MMA_ROWS, SUMS

LANES = 32  # threads of a warp
WHOLE_WARP = 0xFFFFFFFF
FLOAT, WORD = ir.FloatType(), ir.IntType(32)
index = types.int32
MMA = ir.InlineAsm(
    ir.FunctionType(ir.LiteralStructType([FLOAT] * 4), [WORD] * 6 + [FLOAT] * 4),
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
    " {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};",
    "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
)
# Of two floats, the second operand goes to the lower half. Source: PTX ISA, cvt
ROUND_PAIR = ir.InlineAsm(ir.FunctionType(WORD, [FLOAT, FLOAT]), "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f")


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare a function that emits LLVM instructions; constant arguments arrive as literals."""
    return numba_intrinsic(prefer_literal=True)(function)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [at], inbounds=True)


def _moved(builder: Any, pointer: Any, by: Any) -> Any:
    return builder.gep(pointer, [by if isinstance(by, ir.Value) else WORD(by)], inbounds=True)


def _vectors(builder: Any, pointer: Any, count: int) -> list[tuple[Any, int]]:
    """Return pointers to vectors of 4, or 2 where the count is 2, that together are `count` elements."""
    width = min(count, 4)
    vector = ir.VectorType(_element(pointer), width)
    kind = ir.PointerType(vector, pointer.type.addrspace)
    return [(builder.bitcast(_moved(builder, pointer, i), kind), width) for i in range(0, count, width)]


def _element(pointer: Any) -> Any:
    return pointer.type.pointee


def _load(builder: Any, pointer: Any, count: int) -> list[Any]:
    values = []
    for place, width in _vectors(builder, pointer, count):
        vector = builder.load(place, align=4 * width)
        values += [builder.extract_element(vector, WORD(lane)) for lane in range(width)]
    return values


def _store(builder: Any, pointer: Any, values: list[Any]) -> None:
    for i, (place, width) in enumerate(_vectors(builder, pointer, len(values))):
        vector = ir.Constant(ir.VectorType(_element(pointer), width), ir.Undefined)
        for lane in range(width):
            vector = builder.insert_element(vector, values[i * width + lane], WORD(lane))
        builder.store(vector, place, align=4 * width)


def _unpack(builder: Any, values: Any, sig: Any) -> list[Any]:
    return [builder.extract_value(values, i) for i in range(len(sig))]


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(FLOAT, [FLOAT] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.f32"), [a, b, c])


@intrinsic
def load(typingctx: Any, array: Any, at: Any, count: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], *args[:2])
        return cgutils.pack_array(builder, _load(builder, pointer, count.literal_value))

    return types.UniTuple(array.dtype, count.literal_value)(array, index, count), codegen


@intrinsic
def store(typingctx: Any, array: Any, at: Any, values: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], *args[:2])
        _store(builder, pointer, _unpack(builder, args[2], sig.args[2]))
        return context.get_dummy_value()

    return types.void(array, index, values), codegen


@intrinsic
def load_rows(typingctx: Any, array: Any, at: Any, stride: Any, count: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer, values = _pointer(context, builder, sig.args[0], *args[:2]), []
        for _ in range(count.literal_value):
            values += _load(builder, pointer, 4)
            pointer = _moved(builder, pointer, args[2])
        return cgutils.pack_array(builder, values)

    return types.UniTuple(array.dtype, 4 * count.literal_value)(array, index, index, count), codegen


@intrinsic
def store_rows(typingctx: Any, array: Any, at: Any, stride: Any, values: Any, count: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer, flat = _pointer(context, builder, sig.args[0], *args[:2]), _unpack(builder, args[3], sig.args[3])
        width = len(flat) // count.literal_value
        for i in range(count.literal_value):
            _store(builder, pointer, flat[i * width : (i + 1) * width])
            pointer = _moved(builder, pointer, args[2])
        return context.get_dummy_value()

    return types.void(array, index, index, values, count), codegen


@intrinsic
def store_columns(typingctx: Any, array: Any, at: Any, column_stride: Any, stride: Any, values: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        column = _pointer(context, builder, sig.args[0], *args[:2])
        flat = _unpack(builder, args[4], sig.args[4])
        for i in range(0, len(flat), 4):
            place = column
            for value in flat[i : i + 4]:
                builder.store(value, place)
                place = _moved(builder, place, args[2])
            column = _moved(builder, column, args[3])
        return context.get_dummy_value()

    return types.void(array, index, index, index, values), codegen


@intrinsic
def zeros(typingctx: Any, count: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return cgutils.pack_array(builder, [FLOAT(0.0)] * count.literal_value)

    return types.UniTuple(types.float32, count.literal_value)(count), codegen


@intrinsic
def round_pairs(typingctx: Any, values: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        flat = _unpack(builder, args[0], sig.args[0])
        words = [builder.call(ROUND_PAIR, flat[i : i + 2]) for i in range(0, len(flat), 2)]
        return cgutils.pack_array(builder, words)

    return types.UniTuple(types.int32, len(values) // 2)(values), codegen


@intrinsic
def scaled(typingctx: Any, values: Any, factor: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        flat = _unpack(builder, args[0], sig.args[0])
        return cgutils.pack_array(builder, [builder.fmul(value, args[1]) for value in flat])

    return values(values, types.float32), codegen


@intrinsic
def outer_products(
    typingctx: Any, a: Any, a_at: Any, a_stride: Any, b: Any, b_at: Any, b_stride: Any, half: Any, steps: Any, sums: Any
) -> Any:
    """See primitives.py."""
    a_step, b_step, apart = a_stride.literal_value, b_stride.literal_value, half.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a_pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
        b_pointer = _pointer(context, builder, sig.args[3], args[3], args[4])
        totals = _unpack(builder, args[8], sig.args[8])
        for step in range(steps.literal_value):
            a_values = _load(builder, _moved(builder, a_pointer, step * a_step), 8)
            b_values = _load(builder, _moved(builder, b_pointer, step * b_step), 4)
            b_values += _load(builder, _moved(builder, b_pointer, step * b_step + apart), 4)
            products = [(x, y) for x in a_values for y in b_values]
            totals = [_multiply_add(builder, x, y, total) for (x, y), total in zip(products, totals, strict=True)]
        return cgutils.pack_array(builder, totals)

    return sums(a, index, a_stride, b, index, b_stride, half, steps, sums), codegen


@intrinsic
def dots(typingctx: Any, query: Any, array: Any, at: Any, stride: Any, count: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer, flat = _pointer(context, builder, sig.args[1], *args[1:3]), _unpack(builder, args[0], sig.args[0])
        rows = [_moved(builder, pointer, builder.mul(args[3], WORD(i))) for i in range(count.literal_value)]
        totals: list[Any] = [FLOAT(0.0)] * len(rows)
        for k in range(0, len(flat), 4):  # all rows in turns: sums that do not wait for each other
            for i, row in enumerate(rows):
                for value, other in zip(flat[k : k + 4], _load(builder, _moved(builder, row, k), 4), strict=True):
                    totals[i] = _multiply_add(builder, value, other, totals[i])
        return cgutils.pack_array(builder, totals)

    return types.UniTuple(types.float32, count.literal_value)(query, array, index, index, count), codegen


@intrinsic
def weighted_sum(typingctx: Any, sums: Any, factor: Any, weights: Any, array: Any, at: Any, stride: Any) -> Any:
    """See primitives.py."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[3], *args[3:5])
        totals = [builder.fmul(total, args[1]) for total in _unpack(builder, args[0], sig.args[0])]
        for i, weight in enumerate(_unpack(builder, args[2], sig.args[2])):
            row = _moved(builder, pointer, builder.mul(args[5], WORD(i)))
            values = _load(builder, row, len(totals))
            totals = [_multiply_add(builder, weight, value, total) for value, total in zip(values, totals, strict=True)]
        return cgutils.pack_array(builder, totals)

    return sums(sums, types.float32, weights, array, index, index), codegen


@intrinsic
def multiply_fragments(typingctx: Any, a: Any, a_at: Any, b: Any, b_at: Any, stride: Any, lane: Any, sums: Any) -> Any:
    """See primitives.py. The positions are those of the words (group, member) of the lane (fragments.py)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        stride = sig.args[4].literal_value
        totals = _unpack(builder, args[6], sig.args[6])

        def words(array_type: Any, array: Any, at: Any, first_row: int, places: Any) -> list[Any]:
            pointer = _pointer(context, builder, array_type, array, at)
            return [builder.load(_moved(builder, pointer, (first_row + row) * stride + word)) for row, word in places]

        a_words = [words(sig.args[0], args[0], args[1], i * MMA_ROWS, FRAGMENT_A) for i in range(DOWN)]
        b_words = [words(sig.args[2], args[2], args[3], j * MMA_COLUMNS, FRAGMENT_B) for j in range(ACROSS)]
        for i in range(DOWN):
            for j in range(ACROSS):
                first = (i * ACROSS + j) * len(FRAGMENT_C)
                places = slice(first, first + len(FRAGMENT_C))
                added = builder.call(MMA, [*a_words[i], *b_words[j], *totals[places]])
                totals[places] = [builder.extract_value(added, c) for c in range(len(FRAGMENT_C))]
        return cgutils.pack_array(builder, totals)

    assert len(sums) == SUMS
    return sums(a, index, b, index, stride, index, sums), codegen


def device_function(function: Callable[..., Any]) -> Any:
    """See primitives.py."""
    return cuda.jit(device=True, inline="always")(function)


@device_function
def lane_sum(value: Any, thread: int, scratch: Any) -> Any:
    """See primitives.py. A butterfly: the same tree of sums whichever lane asks."""
    distance = LANES // 2
    while distance > 0:
        value += cuda.shfl_xor_sync(WHOLE_WARP, value, distance)
        distance //= 2
    return value
