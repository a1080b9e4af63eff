"""The buffers of a thread, and how several threads compute one shard together.

A member of a team computes some of the rows of a shard through the whole network. Rows meet only in attention: so each
member writes queries, keys and values of its rows into a buffer that all see, and waits until the others have written
theirs. The next layer writes to another buffer, so that nobody waits for the slowest reader: one meeting per layer, and
one more before a pooling that takes all rows.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy import float32, int32, int64
from numpy.typing import NDArray

from .instruction_sets import InstructionSet
from .memory import aligned_empty
from .packed import Operand

SPINS = 400_000  # looks at the counter before a waiting thread lets others have the core: about 0.4 ms
NAP = 5e-5  # seconds
MOST_VIEWS = 4096  # arrays that are kept to be lent again; each is 200 bytes


@dataclasses.dataclass
class Kernels:
    """What the blocks call: compiled in this process (compiled.py), or loaded from a library (frozen.py)."""

    isa: InstructionSet  # that they were compiled for
    embed: Callable[..., Any]  # elementwise.py
    normalize_rows: Callable[..., Any]
    project_heads: Callable[..., Any]  # linear.py
    linear_rows: Callable[..., Any]
    linear_residual_norm: Callable[..., Any]
    feed_forward: Callable[..., Any]
    convolve_rows: Callable[..., Any]
    add_rows: Callable[..., Any]
    attend: Callable[..., Any]  # attention.py
    pool_rows: Callable[..., Any]  # head.py
    activate_rows: Callable[..., Any]
    shorten_rows: Callable[..., Any]
    arrive: Callable[..., Any]  # meeting.py
    await_arrivals: Callable[..., Any]


class Share(NamedTuple):
    """Which rows of a shard a member of a team computes, and where they stand."""

    total: int  # T, of all members
    first: int  # of the rows
    longest: int  # tokens of a pair
    places: NDArray[int64]  # (rows,): of each in its pair
    query_offsets: NDArray[int64]  # (B + 1,): where each pair begins among the rows
    query_places: NDArray[int64]  # (B,): place in the pair of its first row


class Buffers:
    """Named arrays that grow to the largest size asked for and are used again."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._views: dict[tuple[Any, ...], NDArray[Any]] = {}  # by name and shape: to make one takes a microsecond
        self._lock = threading.Lock()  # members of a team may ask at once

    def take(self, name: str, *shape: int, dtype: Any = float32) -> NDArray[Any]:
        """Return the buffer of this name as an array of this shape; its content is whatever was left there."""
        view = self._views.get((name, *shape))
        return self._make(name, shape, dtype) if view is None else view

    def _make(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        size = math.prod(shape)
        with self._lock:
            array = self._arrays.get(name)
            if array is None or array.size < size:
                self._arrays[name] = array = aligned_empty(size, dtype=dtype)
                self._views = {key: view for key, view in self._views.items() if key[0] != name}
            elif len(self._views) >= MOST_VIEWS:
                self._views = {}
            return self._views.setdefault((name, *shape), array[:size].reshape(shape))


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
    kernels : Kernels
        What computes.
    team : Team, optional
        Whom it computes shards with; by default it computes whole shards.
    number : int
        Place among the members, which is also the place of its rows.
    """

    def __init__(self, kernels: Kernels, team: Team | None = None, number: int = 0) -> None:
        super().__init__()
        self.kernels = kernels
        self._team = team or Team(1)
        self._number = number
        self._meetings = 0
        self._operands: dict[int, Operand] = {}  # by width
        self._made: dict[int, tuple[Any, Any]] = {}  # by the id of what it was made of, and that
        self._last: tuple[Any, ...] = None, None, None  # what the last share was of, and the share

    def take_shared(self, name: str, *shape: int) -> NDArray[Any]:
        """Return a buffer of all members; it is another one after the next meeting."""
        turn = self._meetings % 2 if self._team.size > 1 else 0
        return self._team.buffers.take(f"{name} {turn}", *shape)

    def operand(self, width: int) -> Operand:
        """Return room for ROW_BLOCK rows of `width` numbers in the form in which tiles read them."""
        operand = self._operands.get(width)
        words = self.take("operand", self.kernels.isa.row_block, width, dtype=int32)
        if operand is None or operand.words is not words:  # which another buffer has taken the place of
            self._operands[width] = operand = Operand(words, self.take("scales", self.kernels.isa.row_block))
        return operand

    def once(self, weights: Any, make: Callable[[Any], Any]) -> Any:
        """Return what `make` makes of weights, which is kept as long as this workspace."""
        made = self._made.get(id(weights))
        if made is None:
            self._made[id(weights)] = made = weights, make(weights)
        return made[1]

    def rows_of(self, total: int) -> tuple[int, int]:
        """Return the first of this member's rows and the one after its last, in halves of a tile; see `divide`."""
        unit = self.kernels.isa.tile_rows // 2
        first, last = (min(round(total * share / unit) * unit, total) for share in self._shares())
        return first, total if self._number == self._team.size - 1 else last

    def share_of(self, offsets: NDArray[int64]) -> Share:
        """Return this member's rows of a shard with these pairs; worked out once for all blocks."""
        known, shares, share = self._last
        if known is not offsets or shares is not self._team.shares:
            first, stop = self.rows_of(int(offsets[-1]))
            lengths = np.diff(offsets)
            share = Share(
                int(offsets[-1]),
                first,
                int(lengths.max()),
                np.arange(first, stop) - np.repeat(offsets[:-1], lengths)[first:stop],
                np.clip(offsets, first, stop),
                np.maximum(first - offsets[:-1], 0),
            )
            self._last = offsets, self._team.shares, share
        result: Share = share
        return result

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
        self.kernels.arrive(self._team.arrivals)
        spins = SPINS
        while not self.kernels.await_arrivals(self._team.arrivals, expected, spins):
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


def make_team(kernels: Kernels, size: int) -> list[Workspace]:
    """Return the workspaces of `size` threads that compute one shard together."""
    team = Team(size)
    return [Workspace(kernels, team, number) for number in range(size)]
