"""Rows of float32 activations, brought into the form in which the tile of each precision reads them.

    float32   they stay where they are
    bfloat16  rounded to the nearest bfloat16 where the processor multiplies those; else they stay float32
    int8      each row (token) is divided by its own scale, so that its largest number becomes 127, and rounded
    parts     each number as a sum of two bfloat16, for float32 on AMX; all first parts of a row, then all second

Also the choice of the tile: `prepare`, `multiply` and the others below do what the type of the layer says, decided when
a kernel is compiled.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import overload
from numpy import float32, int32
from numpy.typing import NDArray

from . import amx
from .isa import ISA, LANES, TILE_ROWS, TILE_WIDTH
from .jit import inlined
from .micro_kernel import tile, tile_bfloat16, tile_int8
from .multiply import INT8
from .packing import Bfloat16Linear, Float32Linear, Int8Linear, TwoPartLinear
from .simd import larger_size, load, nearest, nearest_bfloat16, reduce_larger_size, splat, store_bfloat16, store_int8

INT8_WORDS = INT8.words  # Numba takes a number as a global, but no Product
AMX = ISA.amx
SIDE = amx.SIDE


class Operand(NamedTuple):
    """Room for some rows in the form in which a tile reads them; not used for float32."""

    words: NDArray[int32]  # for a number one of 32 bits at most, in any form
    scales: NDArray[float32]  # of each row; int8 only


# ---- what float32 activations become


@inlined
def place(row: int, word: int, row_words: int) -> int:
    """Return where a word of a row stands: row after row, or for AMX in blocks of 16 rows by 16 words."""
    if AMX:
        return row // SIDE * SIDE * row_words + word // SIDE * SIDE * SIDE + row % SIDE * SIDE + word % SIDE
    return row * row_words + word


@inlined
def round_rows(a: Any, a_at: int, rows: int, width: int, parts: int, operand: Operand) -> None:
    """Write each number as its nearest bfloat16, or as that and the nearest to what is left; two numbers a word."""
    words = width // 2
    for row in range(rows):
        for i in range(0, width, LANES):
            rest = load(a, a_at + row * width + i)
            for part in range(parts):
                store_bfloat16(operand.words, place(row, part * words + i // 2, parts * words), rest)
                rest = rest - nearest_bfloat16(rest)


@inlined
def quantize_rows(a: Any, a_at: int, rows: int, width: int, row_words: int, operand: Operand) -> None:
    """Divide each row by its scale and round to whole numbers from -127 to 127; the scale of a row of zeros is 0."""
    for row in range(rows):
        at = a_at + row * width
        largest = splat(float32(0))
        for i in range(0, width, LANES):
            largest = larger_size(largest, load(a, at + i))
        size = reduce_larger_size(largest)
        operand.scales[row] = size / float32(127)
        inverse = float32(127) / size if size > 0 else size
        for i in range(0, width, LANES):
            to = place(row, i * INT8_WORDS // 4, row_words)
            store_int8(operand.words, to, nearest(load(a, at + i) * inverse))


# ---- the choice by the type of the layer


def begin_tiles(layer: Any) -> None:
    """Make ready for `multiply`."""


def end_tiles(layer: Any) -> None:
    """Undo `begin_tiles`."""


def rows_in_tile(layer: Any) -> int:
    """Return how many rows `multiply` computes at a time."""
    return TILE_ROWS


def prepare(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> None:
    """Bring `rows` rows of a, from flat position `a_at`, into the form in which `multiply` reads them for the layer."""


def multiply(
    a: Any, a_at: int, operand: Operand, row: int, rows: int, layer: Any, panel: int, c: Any, c_at: int, c_stride: int
) -> None:
    """Write one tile of a @ weight.T + bias: `rows` rows from `row` on of what was prepared, and one panel."""


_ON_AMX = (Bfloat16Linear, TwoPartLinear, Int8Linear) if AMX else ()


def _on_amx(layer: Any) -> bool:
    return layer.instance_class in _ON_AMX


def _nothing(layer: Any) -> None:
    pass


@overload(begin_tiles)
def _begin_tiles(layer: Any) -> Any:
    def configure(layer: Any) -> None:
        amx.configure_registers()

    return configure if _on_amx(layer) else _nothing


@overload(end_tiles)
def _end_tiles(layer: Any) -> Any:
    def release(layer: Any) -> None:
        amx.release_registers()

    return release if _on_amx(layer) else _nothing


@overload(rows_in_tile)
def _rows_in_tile(layer: Any) -> Any:
    rows = amx.BLOCK_ROWS if _on_amx(layer) else TILE_ROWS

    def rows_in_tile(layer: Any) -> int:
        return rows

    return rows_in_tile


@overload(prepare)
def _prepare(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> Any:
    def nothing(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> None:
        pass

    def int8(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> None:
        quantize_rows(a, a_at, rows, a.shape[1], layer.panels.shape[1] * INT8_WORDS, operand)

    def bfloat16(parts: int) -> Callable[..., None]:
        def prepare(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> None:
            round_rows(a, a_at, rows, a.shape[1], parts, operand)

        return prepare

    return {
        Float32Linear: nothing,
        Bfloat16Linear: bfloat16(1) if ISA.bfloat16 == "dot" else nothing,
        TwoPartLinear: bfloat16(2),
        Int8Linear: int8,
    }[layer.instance_class]


@overload(multiply)
def _multiply(
    a: Any, a_at: int, operand: Operand, row: int, rows: int, layer: Any, panel: int, c: Any, c_at: int, c_stride: int
) -> Any:
    return (_MULTIPLY_ON_AMX if AMX else _MULTIPLY)[layer.instance_class]


def _float32_product(
    a: Any, a_at: int, operand: Operand, row: int, rows: int,
    layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    depth = layer.panels.shape[1]
    tile(
        a, a_at + row * depth, depth, rows, layer.panels, panel * depth * TILE_WIDTH, TILE_WIDTH, depth,
        layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
    )  # fmt: skip


def _bfloat16_product(
    a: Any, a_at: int, operand: Operand, row: int, rows: int,
    layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    steps = layer.panels.shape[1]
    tile_bfloat16(
        operand.words, row * steps, steps, rows, layer.panels, panel * steps * TILE_WIDTH, TILE_WIDTH, steps,
        layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
    )  # fmt: skip


def _widened_product(
    a: Any, a_at: int, operand: Operand, row: int, rows: int,
    layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    steps = layer.panels.shape[1]
    tile_bfloat16(
        a, a_at + row * 2 * steps, 2 * steps, rows, layer.panels, panel * steps * TILE_WIDTH, TILE_WIDTH, steps,
        layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
    )  # fmt: skip


def _int8_product(
    a: Any, a_at: int, operand: Operand, row: int, rows: int,
    layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    steps = layer.panels.shape[1]
    stride = steps * INT8_WORDS
    tile_int8(
        operand.words, row * stride, stride, rows, operand.scales, row,
        layer.panels, panel * steps * TILE_WIDTH, TILE_WIDTH, steps,
        layer.start, layer.scale, layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
    )  # fmt: skip


def _amx_product(block: Callable[..., None]) -> Callable[..., None]:
    def product(
        a: Any, a_at: int, operand: Operand, row: int, rows: int,
        layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
    ) -> None:  # fmt: skip
        words = layer.panels.shape[1]  # of a row, all parts together
        block(
            operand.words, row * words, words, rows, layer.panels, panel * words * TILE_WIDTH,
            layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
        )  # fmt: skip

    return product


def _amx_int8_product(
    a: Any, a_at: int, operand: Operand, row: int, rows: int,
    layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
) -> None:  # fmt: skip
    words = layer.panels.shape[1]
    amx.block_int8(
        operand.words, row * words, words, rows, operand.scales, row, layer.panels, panel * words * TILE_WIDTH,
        layer.start, layer.scale, layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
    )  # fmt: skip


_MULTIPLY = {
    Float32Linear: _float32_product,
    Bfloat16Linear: _bfloat16_product if ISA.bfloat16 == "dot" else _widened_product,
    Int8Linear: _int8_product,
}
_MULTIPLY_ON_AMX = {
    Float32Linear: _float32_product,
    Bfloat16Linear: _amx_product(amx.block_bfloat16),
    TwoPartLinear: _amx_product(amx.block_two_parts),
    Int8Linear: _amx_int8_product,
}
