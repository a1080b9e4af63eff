"""The choice of the arithmetic: what the type of the packed layer says, decided when a kernel is compiled."""

from collections.abc import Callable
from typing import Any

from numba.extending import overload

from . import amx
from .bfloat16 import multiply_bfloat16, multiply_two_parts, write_bfloat16
from .float32 import multiply_float32
from .int8 import multiply_int8, write_int8
from .isa import ISA, TILE_ROWS
from .packed import Bfloat16Linear, Float32Linear, Int8Linear, Operand, TwoPartLinear
from .view import View

# Names only: in a kernel, Numba puts what the @overload below returns in their place; these bodies never run.


def begin_tiles(layer: Any) -> None:
    """Make ready for `multiply`."""
    raise NotImplementedError


def end_tiles(layer: Any) -> None:
    """Undo `begin_tiles`."""
    raise NotImplementedError


def rows_in_tile(layer: Any) -> int:
    """Return how many rows `multiply` computes at a time."""
    raise NotImplementedError


def prepare(a: View, rows: int, layer: Any, operand: Operand) -> View:
    """Bring the first rows of a into the form in which `multiply` reads them for the layer; return where they are."""
    raise NotImplementedError


def multiply(a: View, operand: Operand, row: int, rows: int, layer: Any, panel: int, c: View) -> None:
    """Write one tile of a @ weight.T + bias: `rows` rows from `row` on of what `prepare` returned, and one panel."""
    raise NotImplementedError


_ON_AMX = (Bfloat16Linear, TwoPartLinear, Int8Linear) if ISA.amx else ()


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
def _prepare(a: View, rows: int, layer: Any, operand: Operand) -> Any:
    def stay(a: View, rows: int, layer: Any, operand: Operand) -> View:
        return a

    def bfloat16(parts: int) -> Callable[..., View]:
        def write(a: View, rows: int, layer: Any, operand: Operand) -> View:
            return write_bfloat16(a, rows, parts, operand)

        return write

    def int8(a: View, rows: int, layer: Any, operand: Operand) -> View:
        return write_int8(a, rows, layer, operand)

    return {
        Float32Linear: stay,
        Bfloat16Linear: stay if ISA.bfloat16 == "widen" else bfloat16(1),
        TwoPartLinear: bfloat16(2),
        Int8Linear: int8,
    }[layer.instance_class]


@overload(multiply)
def _multiply(a: View, operand: Operand, row: int, rows: int, layer: Any, panel: int, c: View) -> Any:
    return {
        Float32Linear: multiply_float32,
        Bfloat16Linear: multiply_bfloat16,
        TwoPartLinear: multiply_two_parts,
        Int8Linear: multiply_int8,
    }[layer.instance_class]
