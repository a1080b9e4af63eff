"""A matrix inside an array: what the tiles read and write, in kernels and in the code that emits their instructions."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from .jit import inlined
from .simd import FLOAT, element_pointer


class View(NamedTuple):
    """A matrix of 32-bit words in a C-contiguous array, of which only the beginning counts, not the shape."""

    array: NDArray[Any]
    at: int  # flat position of the first word
    stride: int  # words from one row to the next; 0 is the same row again and again


@inlined
def from_row(view: View, row: int) -> View:
    """Return what follows the first `row` rows."""
    return View(view.array, view.at + row * view.stride, view.stride)


class Rows(NamedTuple):
    """A View as LLVM values."""

    first: Any  # address of the first word
    stride: Any  # in words

    def row(self, builder: Any, row: Any) -> Any:
        """Emit the address of a row."""
        return move(builder, self.first, builder.mul(self.stride, row))


def move(builder: Any, address: Any, words: Any) -> Any:
    """Emit the address so many words of 32 bits further on."""
    return builder.gep(address, [words], source_etype=FLOAT)


def take_apart(context: Any, builder: Any, view_type: Any, view: Any) -> Rows:
    """Emit what an intrinsic needs of a View that is its argument."""
    array, at, stride = (builder.extract_value(view, i) for i in range(3))
    return Rows(element_pointer(context, builder, view_type[0], array, at), stride)
