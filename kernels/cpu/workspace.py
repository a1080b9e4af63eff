"""The buffers of a thread, and how several threads compute one shard together.

A member of a team computes some of the rows of a shard through the whole network. Rows meet only in attention: so each
member writes queries, keys and values of its rows into a buffer that all see, and waits until the others have written
theirs. The next layer writes to another buffer, so that nobody waits for the slowest reader: one meeting per layer, and
one more before a pooling that takes all rows.
"""

import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numpy import float32, int32, int64
from numpy.typing import NDArray

from .isa import TILE_ROWS
from .jit import intrinsic, kernel
from .linear import ROW_BLOCK
from .panels import aligned_empty
from .rounding import Operand
from .simd import element_pointer

SPINS = 400_000  # looks at the counter before a waiting thread lets others have the core: about 0.4 ms
NAP = 5e-5  # seconds


class Buffers:
    """Named arrays that grow to the largest size asked for and are used again."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._lock = threading.Lock()  # members of a team may ask at once

    def take(self, name: str, *shape: int, dtype: Any = float32) -> NDArray[Any]:
        """Return the buffer of this name as an array of this shape; its content is whatever was left there."""
        size = math.prod(shape)
        with self._lock:
            array = self._arrays.get(name)
            if array is None or array.size < size:
                self._arrays[name] = array = aligned_empty(size, dtype=dtype)
        return array[:size].reshape(shape)


class Team:
    """What the members of a team share.

    Parameters
    ----------
    size : int
        Number of members; all must run at once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.buffers = Buffers()
        self.arrivals = np.zeros(1, int64)  # of all members at all meetings so far
        self.broken = False
        self.shares = [i / size for i in range(size + 1)]  # where the rows of each member begin, and the last ones end


class Workspace(Buffers):
    """What one thread needs to compute a shard, or its part of one.

    Parameters
    ----------
    team : Team, optional
        Whom it computes shards with; by default it computes whole shards.
    number : int
        Place among the members, which is also the place of its rows.
    """

    def __init__(self, team: Team | None = None, number: int = 0) -> None:
        super().__init__()
        self._team = team or Team(1)
        self._number = number
        self._meetings = 0

    def take_shared(self, name: str, *shape: int) -> NDArray[Any]:
        """Return a buffer of all members; it is another one after the next meeting."""
        turn = self._meetings % 2 if self._team.size > 1 else 0
        return self._team.buffers.take(f"{name} {turn}", *shape)

    def operand(self, width: int) -> Operand:
        """Return room for ROW_BLOCK rows of `width` numbers in the form in which tiles read them."""
        return Operand(self.take("operand", ROW_BLOCK, width, dtype=int32), self.take("scales", ROW_BLOCK))

    def rows_of(self, total: int) -> tuple[int, int]:
        """Return the first of this member's rows and the one after its last, in halves of a tile; see `divide`."""
        unit = TILE_ROWS // 2
        first, last = (min(round(total * share / unit) * unit, total) for share in self._shares())
        return first, total if self._number == self._team.size - 1 else last

    def _shares(self) -> list[float]:
        return self._team.shares[self._number : self._number + 2]

    def divide(self, speeds: Sequence[float]) -> None:
        """Give each member of the team rows in proportion to its speed, until told otherwise."""
        total = sum(speeds)
        self._team.shares = [sum(speeds[:i]) / total for i in range(len(speeds) + 1)]

    def meet(self) -> None:
        """Wait until every member has come here.

        Raises
        ------
        RuntimeError
            When another member has failed and will never come.
        """
        self._meetings += 1
        if self._team.size == 1:
            return
        expected = self._meetings * self._team.size
        arrive(self._team.arrivals)
        spins = SPINS
        while not await_arrivals(self._team.arrivals, expected, spins):
            if self._team.broken:
                raise RuntimeError("another thread of this computation failed")
            time.sleep(NAP)
            spins = 1  # who is so late has lost its core, and perhaps needs this one

    def share_rows(self, x: NDArray[float32], total: int) -> NDArray[float32]:
        """Return the rows of all members, of which `x` are this one's, once all are there: (total, columns)."""
        if self._team.size == 1:
            return x
        rows, first = self.take_shared("rows", total, x.shape[1]), self.rows_of(total)[0]
        rows[first : first + len(x)] = x
        self.meet()
        return rows

    def leave(self) -> None:
        """Tell the members that wait, or will wait, that this one does not come; the team can do nothing more."""
        self._team.broken = True


def make_team(size: int) -> list[Workspace]:
    """Return the workspaces of `size` threads that compute one shard together."""
    team = Team(size)
    return [Workspace(team, number) for number in range(size)]


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
