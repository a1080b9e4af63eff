"""Which pairs are computed next, and together: the queue of a model, in which all its callers wait.

How pairs are grouped has no influence on their scores (docs/numerics.md), only on speed: so a shard may hold pairs of
several callers. Nothing here starts a thread. `Queue` and `Call` are used under the lock of workers.py; a `Chunk` has
locks of its own, as its caller waits for it.
"""

import bisect
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from .tokenization import TokenPair

SMALLEST_SHARD = 96  # tokens, when few wait for the threads
MOST_CALLS = 64  # that are asked for pairs for one shard


class Chunk:
    """Some pairs of a call, which are waited for together.

    Parameters
    ----------
    tokens : sequence of TokenPair
    lengths : sequence of int
        Tokens of each, special tokens included.
    logits : ndarray, shape (number of pairs, labels)
        Where the results go.
    """

    def __init__(self, tokens: Sequence[TokenPair], lengths: Sequence[int], logits: NDArray[Any]) -> None:
        self.tokens = tokens
        self.logits = logits
        self.waiting = sorted(zip(lengths, range(len(lengths)), strict=True))  # (tokens, place), the longest last
        self.size = sum(lengths)  # tokens that wait
        self._missing = len(tokens)  # results
        self._error: BaseException | None = None
        self._on_end: Callable[[], object] | None = None
        self._ended = False
        self._lock = threading.Lock()
        self._running = threading.Lock()  # a lock by itself: an interrupt of who waits cannot leave it half taken
        self._running.acquire()

    def wait(self) -> None:
        """Wait until all results are there, or raise what prevented one."""
        while not self._running.acquire(timeout=0.1):  # on Windows, no interrupt ends a wait without a limit
            pass
        error, self._error = self._error, None  # an error leads back here, and would keep all of this in memory
        if error is not None:
            try:
                raise error
            finally:
                del error

    def call_at_end(self, callback: Callable[[], object]) -> None:
        """Call a function when waiting would be over, on the thread that ends it; at once if it is over."""
        with self._lock:
            if not self._ended:
                self._on_end = callback
                return
        callback()

    def take(self, room: int, most: int, at_least_one: bool) -> list[int]:
        """Give pairs away to be computed: the longest of all if there must be one, and the longest that fit."""
        places: list[int] = []
        while self.waiting and len(places) < most:
            fitting = bisect.bisect_right(self.waiting, (room, len(self.tokens))) - 1
            if at_least_one and not places:
                fitting = len(self.waiting) - 1  # whether it fits or not: then it is a shard of its own
            if fitting < 0:
                break
            length, place = self.waiting.pop(fitting)
            places.append(place)
            room, self.size = room - length, self.size - length
        return places

    def drop(self) -> None:
        """Take back all pairs that have not begun."""
        self.waiting.clear()
        self.size = 0

    def deliver(self, places: Sequence[int], logits: NDArray[Any]) -> None:
        """Put results in their places; with the last, the waiting is over."""
        self.logits[places] = logits
        with self._lock:
            self._missing -= len(places)
            complete = self._missing == 0
        if complete:
            self._end()

    def fail(self, error: BaseException) -> None:
        """End the waiting with an error, unless it has ended before."""
        self._end(error)

    def _end(self, error: BaseException | None = None) -> None:
        with self._lock:
            if self._ended:
                return
            self._error = error
            self._ended = True
            self._running.release()
        if self._on_end is not None:
            with contextlib.suppress(RuntimeError):  # of an event loop that is closed
                self._on_end()


class Call:
    """What one caller has in the queue.

    Parameters
    ----------
    batch_size : int
        The most of its pairs in one shard.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.found_idle_threads = False  # and nobody else, when it last gave pairs
        self.chunks: deque[Chunk] = deque()  # those with pairs that have not begun

    def take(self, room: int, at_least_one: bool) -> list["Part"]:
        """Give pairs away to be computed, as `Chunk.take` does."""
        parts: list[Part] = []
        most = self.batch_size
        while self.chunks and most:
            chunk = self.chunks[0]
            before = chunk.size
            places = chunk.take(room, most, at_least_one and not parts)
            taken = before - chunk.size
            if places:
                parts.append(Part(self, chunk, places, taken))
            room, most = room - taken, most - len(places)
            if chunk.waiting:
                break
            self.chunks.popleft()
        return parts


class Part(NamedTuple):
    """The pairs of one chunk in a shard."""

    call: Call
    chunk: Chunk
    places: list[int]
    size: int  # tokens


class Shard(NamedTuple):
    """Pairs that are computed together."""

    parts: list[Part]

    @property
    def tokens(self) -> list[TokenPair]:
        """All its pairs."""
        return [part.chunk.tokens[place] for part in self.parts for place in part.places]

    def size_of_ended_calls(self) -> int:
        """Return the tokens of calls that have nothing more to wait for; 0 if all are of one call."""
        if len({part.call for part in self.parts}) < 2:
            return 0
        return sum(part.size for part in self.parts if not part.call.chunks)

    def deliver(self, logits: NDArray[Any]) -> None:
        """Give each chunk the logits of its pairs, which come in the order of `tokens`."""
        start = 0
        for part in self.parts:
            end = start + len(part.places)
            part.chunk.deliver(part.places, logits[start:end])
            start = end

    def fail(self, error: BaseException) -> None:
        """End the waiting for each chunk with an error."""
        for part in self.parts:
            part.chunk.fail(error)

    def split(self) -> list["Shard"]:
        """Return a shard for each of its calls."""
        calls = dict.fromkeys(part.call for part in self.parts)
        return [Shard([part for part in self.parts if part.call is call]) for call in calls]


class Queue:
    """The pairs of a model that wait, by call. Calls take turns, shard by shard."""

    def __init__(self) -> None:
        self._turns: deque[Call] = deque()  # calls with waiting pairs; the first begins the next shard

    @property
    def size(self) -> int:
        """Tokens that wait. (Counted anew: an interrupt may end `add` anywhere.)"""
        return sum(chunk.size for call in self._turns for chunk in call.chunks)

    @property
    def found_idle_threads(self) -> bool:
        """Whether no pair here had to wait for others."""
        return all(call.found_idle_threads for call in self._turns)

    def add(self, call: Call, chunk: Chunk) -> None:
        """Let the pairs of a chunk wait."""
        call.chunks.append(chunk)
        if call not in self._turns:
            self._turns.append(call)

    def remove(self, call: Call) -> None:
        """Take out all pairs of a call that have not begun."""
        for chunk in call.chunks:
            chunk.drop()
        call.chunks.clear()
        if call in self._turns:
            self._turns.remove(call)

    def clear(self) -> list[Chunk]:
        """Take out everything, and return the chunks that will never be complete."""
        left = [chunk for call in self._turns for chunk in call.chunks]
        for call in list(self._turns):
            self.remove(call)
        return left

    def take(self, budget: int) -> Shard:
        """Form the next shard, of at most so many tokens unless a single pair has more.

        The call whose turn it is begins it, so that none waits for longer than each of the others takes one turn; the
        calls behind fill it up. One that has still more goes to the end if it had the turn, and keeps its place if not.
        """
        parts: list[Part] = []
        passed: list[Call] = []  # that keep their places
        for number in range(min(len(self._turns), MOST_CALLS)):
            call = self._turns.popleft()
            taken = call.take(budget, at_least_one=number == 0)
            parts += taken
            budget -= sum(part.size for part in taken)
            if call.chunks:
                (passed if number else self._turns).append(call)
            if budget <= 0:
                break
        self._turns.extendleft(reversed(passed))
        return Shard(parts)


def budget_of(waiting: int, threads: int, largest: int) -> int:
    """Return how many tokens the next shard should have: the fewer wait, the smaller, so that no thread ends late."""
    return min(max(waiting // threads, SMALLEST_SHARD), largest)
