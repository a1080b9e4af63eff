"""Rows of float32 activations, brought into the form in which the tile of each precision reads them.

    float32   they stay where they are
    bfloat16  rounded to the nearest bfloat16 where the processor multiplies those; else they stay float32
    int8      each row (token) is divided by its own scale, so that its largest number becomes 127, and rounded

Also the choice of the tile: `prepare` and `multiply` do what the type of the layer says, decided when a kernel is
compiled.
"""

from typing import Any, NamedTuple

from numba.extending import overload
from numpy import float32, int32
from numpy.typing import NDArray

from .isa import ISA, LANES, TILE_WIDTH
from .jit import inlined
from .micro_kernel import tile, tile_bfloat16, tile_int8
from .multiply import INT8
from .packing import Bfloat16Linear, Float32Linear, Int8Linear
from .simd import larger_size, load, nearest, reduce_larger_size, splat, store_bfloat16, store_int8

INT8_WORDS = INT8.words  # Numba takes a number as a global, but no Product


class Operand(NamedTuple):
    """Room for some rows in the form in which a tile reads them; not used for float32."""

    words: NDArray[int32]
    scales: NDArray[float32]  # of each row; int8 only


# ---- what float32 activations become


@inlined
def round_rows(a: Any, a_at: int, rows: int, width: int, operand: Operand) -> None:
    """Round rows to bfloat16, two numbers a word."""
    for i in range(0, rows * width, LANES):
        store_bfloat16(operand.words, i // 2, load(a, a_at + i))


@inlined
def quantize_rows(a: Any, a_at: int, rows: int, width: int, operand: Operand) -> None:
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
            store_int8(operand.words, (row * width + i) * INT8_WORDS // 4, nearest(load(a, at + i) * inverse))


# ---- the choice by the type of the layer


def prepare(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> None:
    """Bring `rows` rows of a, from flat position `a_at`, into the form in which `multiply` reads them for the layer."""


def multiply(
    a: Any, a_at: int, operand: Operand, row: int, rows: int, layer: Any, panel: int, c: Any, c_at: int, c_stride: int
) -> None:
    """Write one tile of a @ weight.T + bias: `rows` rows from `row` on of what was prepared, and one panel."""


@overload(prepare)
def _prepare(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> Any:
    def nothing(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> None:
        pass

    def bfloat16(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> None:
        round_rows(a, a_at, rows, 2 * layer.panels.shape[1], operand)

    def int8(a: Any, a_at: int, rows: int, layer: Any, operand: Operand) -> None:
        quantize_rows(a, a_at, rows, 4 * layer.panels.shape[1], operand)

    return {
        Float32Linear: nothing,
        Bfloat16Linear: bfloat16 if ISA.bfloat16 == "dot" else nothing,
        Int8Linear: int8,
    }[layer.instance_class]


@overload(multiply)
def _multiply(
    a: Any, a_at: int, operand: Operand, row: int, rows: int, layer: Any, panel: int, c: Any, c_at: int, c_stride: int
) -> Any:
    def float32_product(
        a: Any, a_at: int, operand: Operand, row: int, rows: int,
        layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
    ) -> None:  # fmt: skip
        depth = layer.panels.shape[1]
        tile(
            a, a_at + row * depth, depth, rows, layer.panels, panel * depth * TILE_WIDTH, TILE_WIDTH, depth,
            layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
        )  # fmt: skip

    def bfloat16_product(
        a: Any, a_at: int, operand: Operand, row: int, rows: int,
        layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
    ) -> None:  # fmt: skip
        steps = layer.panels.shape[1]
        tile_bfloat16(
            operand.words, row * steps, steps, rows, layer.panels, panel * steps * TILE_WIDTH, TILE_WIDTH, steps,
            layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
        )  # fmt: skip

    def widened_product(
        a: Any, a_at: int, operand: Operand, row: int, rows: int,
        layer: Any, panel: int, c: Any, c_at: int, c_stride: int,
    ) -> None:  # fmt: skip
        steps = layer.panels.shape[1]
        tile_bfloat16(
            a, a_at + row * 2 * steps, 2 * steps, rows, layer.panels, panel * steps * TILE_WIDTH, TILE_WIDTH, steps,
            layer.bias, panel * TILE_WIDTH, c, c_at, c_stride,
        )  # fmt: skip

    def int8_product(
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

    return {
        Float32Linear: float32_product,
        Bfloat16Linear: bfloat16_product if ISA.bfloat16 == "dot" else widened_product,
        Int8Linear: int8_product,
    }[layer.instance_class]
