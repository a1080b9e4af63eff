"""The counter at which the members of a team wait for each other (workspace.py), as atomic instructions."""

from typing import Any

from numba import types
from numpy import int64
from numpy.typing import NDArray

from .jit import intrinsic, kernel
from .simd import element_pointer


@intrinsic
def _add_one(typingctx: Any, counter: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], args[0], context.get_constant(types.int64, 0))
        return builder.atomic_rmw("add", pointer, context.get_constant(types.int64, 1), "seq_cst")

    return types.int64(counter), codegen


@intrinsic
def _read(typingctx: Any, counter: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, sig.args[0], args[0], context.get_constant(types.int64, 0))
        return builder.load_atomic(pointer, "acquire", 8, typ=context.get_value_type(types.int64))

    return types.int64(counter), codegen


@kernel
def arrive(counter: NDArray[int64]) -> None:
    """Count one more arrival; what this thread has written is visible to whoever sees the count."""
    _add_one(counter)


@kernel
def await_arrivals(counter: NDArray[int64], expected: int, spins: int) -> bool:
    """Return whether so many arrivals were seen within so many looks at the counter."""
    looks = 0
    while _read(counter) < expected and looks < spins:
        looks += 1
    return looks < spins
