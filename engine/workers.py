"""The threads of this process that compute, and which of them computes what: one set for all models and callers.

A thread takes a shard from the queue of a model and runs the whole forward pass on it; the kernels release the GIL, so
the threads use as many cores. While little waits and others are idle, they share one shard by rows (a team). A caller
whose few pairs find idle threads computes them itself, with those.

Numba's own threading layers are not used: one aborts the process when two threads call it, another kills a forked
child. These threads can do neither: a forked child, whose threads are gone, starts new ones when it first needs them.

An interrupt can end what a calling thread does here at any place. So nothing is counted that an interrupt could leave
wrong: who is busy is seen from who has a job.
"""

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cores import FULL_SPEED, choose_cores, current_core, speed_of, stay_on, usable_cores
from .errors import BackendError
from .queue import Call, Chunk, Part, Queue, Shard, budget_of
from .tokenization import TokenBatch, TokenPair

FEWEST_ROWS = 24  # tokens for each member of a team: with fewer, reading the weights is all they do
SHARDS_OF_A_TEAM = 2  # full shards for each member, at most: so long does a caller wait who comes next
# A shard that ends sends its callers away, and where there are many, most come back at once. A thread that begins again
# with the first of them computes one pair where it could have had five. So it waits for them, for a small share of the
# time that the shard took; never after a shard of a single call: this delays neither a lone caller nor a long call.
SHARE_OF_WAITING = 1 / 16
MOST_WAITING = 0.002  # seconds
LONGEST_SLEEP = 0.01  # seconds, while pairs wait for a calling thread to be done
LAST_WAIT = 5.0  # seconds that the end of the program gives the threads for their last shards


class Lane:
    """A model as the threads see it: what waits for it, and how that is computed.

    Parameters
    ----------
    lay_out : callable
        Brings pairs into the form that is computed, and proves that they can be.
    forward : callable
        Computes the logits of a batch in a workspace: all of them, or those of the rows that are the workspace's.
    make_team : callable
        Makes the workspaces of so many threads that compute a batch together.
    num_threads : int
        Threads that may compute this model at once.
    largest : int
        Tokens of a full shard.
    shares : bool
        Whether several threads can compute a batch together.
    """

    def __init__(
        self,
        lay_out: Callable[[Sequence[TokenPair]], TokenBatch],
        forward: Callable[[TokenBatch, Any], NDArray[Any]],
        make_team: Callable[[int], list[Any]],
        *,
        num_threads: int,
        largest: int,
        shares: bool,
    ) -> None:
        self.lay_out = lay_out
        self.forward = forward
        self.num_threads = num_threads
        self.largest = largest
        self.shares = shares
        self._make_team = make_team
        self.forget()
        _all_lanes.add(self)

    def forget(self) -> None:
        """Forget what waits, and the buffers of those who compute."""
        self.queue = Queue()
        self._teams: dict[int, list[list[Any]]] = {}  # idle workspaces, by the size of their team

    def most_of(self, size: int) -> int:
        """Return how many tokens so many threads may compute together."""
        return self.largest * (size * SHARDS_OF_A_TEAM if size > 1 else 1)

    def lend_team(self, size: int) -> list[Any]:
        """Return the workspaces of a team that nobody else uses meanwhile."""
        try:
            return self._teams[size].pop()
        except (KeyError, IndexError):
            return self._make_team(size)

    def take_back(self, team: list[Any]) -> None:
        """Keep the workspaces of a team for the next. (Those that met an error are not given back.)

        Teams of all sizes together have at most two workspaces for each thread; those of a size that was not used for
        the longest time go first.
        """
        teams = self._teams.pop(len(team), [])
        self._teams[len(team)] = [*teams, team]  # the last used is the last
        while sum(size * len(kept) for size, kept in self._teams.items()) > 2 * max(self.num_threads, len(team)):
            oldest = next(iter(self._teams))
            self._teams[oldest].pop()
            if not self._teams[oldest]:
                del self._teams[oldest]


class Seat:
    """A thread that computes, and its job."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.member = 0  # its number among those who compute the job
        self.core: int | None = None  # where it should compute the job
        self.speed = FULL_SPEED  # of that core
        self.asleep = False
        self.expected = 0  # tokens of callers who have just been sent away and may come back
        self.deadline = 0.0  # until when they are waited for
        self._bell = threading.Lock()
        self._bell.acquire()

    @property
    def is_free(self) -> bool:
        """Whether it can be given a job."""
        return self.asleep and self.job is None

    def sleep(self, seconds: float = -1) -> None:
        """Wait to be woken, at most so long; not at all if that has happened since the last time."""
        self._bell.acquire(timeout=seconds)

    def wake(self) -> None:
        """End its sleep, or the next one if it is awake."""
        with contextlib.suppress(RuntimeError):  # it has been woken already
            self._bell.release()


class Job:
    """A shard, and the threads that compute it: one leads, others may help.

    Parameters
    ----------
    lane : Lane
    shard : Shard
    """

    def __init__(self, lane: Lane, shard: Shard) -> None:
        self.lane = lane
        self.shard = shard
        self.helpers: list[Seat] = []
        self.speed = FULL_SPEED  # of the leader's core
        self._begun = False
        self._batch: Any = None
        self._team: list[Any] = []
        self._logits: dict[int, NDArray[Any]] = {}  # by member; the leader is member 0
        self._failures: list[BaseException] = []  # the first is the cause; who waits for that member fails after it
        self._left: set[int] = set()  # members that have ended
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Threads that compute it."""
        return 1 + len(self.helpers)

    def lead(self) -> None:
        """Prepare the shard, let the helpers begin, and compute the first part.

        An error goes to the calls of the shard and is not raised; an interrupt of the calling thread is.
        """
        try:
            self._team = self.lane.lend_team(self.size)
            self._batch = self.lane.lay_out(self.shard.tokens)
            if self.helpers:
                self._team[0].divide([self.speed, *(seat.speed for seat in self.helpers)])
            self._begin()
            self._logits[0] = self.lane.forward(self._batch, self._team[0])
        except Exception as error:
            self._fail(error)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._begin()
            self._leave(0)

    def help(self, seat: Seat) -> None:
        """Compute the part of a helper."""
        while not self._begun:
            seat.sleep()
        try:
            if not self._failures:
                self._logits[seat.member] = self.lane.forward(self._batch, self._team[seat.member])
        except BaseException as error:
            self._fail(error)
        self._leave(seat.member)

    def abandon(self) -> None:
        """Let the helpers go, wherever its leader was interrupted."""
        with self._lock:
            if len(self._left) == self.size:
                return  # all have gone, and others may have the team by now
            self._failures.append(KeyboardInterrupt())  # before anyone else can go, and give the team back
        for workspace in self._team[:1]:
            workspace.leave()
        self._begin()

    def _begin(self) -> None:
        self._begun = True
        for seat in self.helpers:
            seat.wake()

    def _fail(self, error: BaseException) -> None:
        self._failures.append(error)
        for workspace in self._team[:1]:
            workspace.leave()  # tells all: who waits for this member would wait for ever

    def _leave(self, member: int) -> None:
        """Go; who goes last gives the calls what was computed."""
        with self._lock:
            self._left.add(member)
            if len(self._left) < self.size:
                return
        try:
            self._give_results()
        except BaseException as error:  # no memory, an interrupt: nobody may wait for ever
            self.shard.fail(error)
            if not isinstance(error, Exception):
                raise

    def _give_results(self) -> None:
        failures, self._failures = self._failures, []  # an error leads back here, and would keep the model in memory
        if not failures:
            self.lane.take_back(self._team)
            self.shard.deliver(np.concatenate([self._logits[i] for i in range(self.size)]))
            return
        alone = self.shard.split()
        if len(alone) == 1:
            self.shard.fail(failures[0])
            return
        for shard in alone:  # whose fault was it?
            Job(self.lane, shard).lead()


class Crew:
    """The threads that compute, and the models that they compute.

    Parameters
    ----------
    size : int
        Threads that compute at once, calling threads among them.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._lanes: deque[Lane] = deque()  # with waiting pairs, in turn
        self._threads: dict[threading.Thread, Seat] = {}
        self._led_by_callers: set[Job] = set()
        self._closed = False
        self._tokenizing: weakref.WeakSet[Call] = weakref.WeakSet()  # calls whose threads are in the tokenizer

    @property
    def is_busy(self) -> bool:
        """Whether anything is computed or waits for it."""
        return bool(self._lanes or self._led_by_callers) or any(seat.job for seat in list(self._threads.values()))

    @contextlib.contextmanager
    def let_tokenize(self, call: Call) -> Iterator[None]:
        """Note that the calling thread is in the tokenizer: see `close`.

        Raises
        ------
        BackendError
            When the program is about to end, and this is not the thread that ends it.
        """
        self._tokenizing.add(call)
        try:
            if self._closed and threading.current_thread() is not threading.main_thread():
                raise _ending()
            yield
        finally:
            self._tokenizing.discard(call)

    def submit(self, lane: Lane, call: Call, chunk: Chunk) -> None:
        """Let the pairs of a chunk wait to be computed.

        Raises
        ------
        BackendError
            When there is no thread to compute them and none can be started, or the program is about to end.
        """
        with self._lock:
            if self._closed:
                raise _ending()
            self._wake_one()  # who then waits for the lock
            call.found_idle_threads = self._count_busy() == 0
            lane.queue.add(call, chunk)
            if lane not in self._lanes:
                self._lanes.append(lane)

    def cancel(self, lane: Lane, call: Call) -> None:
        """Take the pairs of a call that have not begun out of the queue."""
        with self._lock:
            try:
                lane.queue.remove(call)
            finally:
                self._drop_if_empty(lane)

    def compute_now(self, lane: Lane, call: Call, chunk: Chunk) -> bool:
        """Compute a chunk on the calling thread, helped by idle ones, if it is small and nothing waits.

        Returns
        -------
        bool
            Whether it is computed, or soon will be; else it must be submitted.
        """
        job = Job(lane, Shard([]))
        try:
            with self._lock:
                if (
                    self._lanes
                    or self._room(lane) < 1
                    or len(chunk.tokens) > call.batch_size
                    or self._someone_lingers()
                ):
                    return False
                size = self._team_size(lane, chunk.size)
                if chunk.size > lane.most_of(size):
                    return False
                self._led_by_callers.add(job)
                self._recruit(job, size - 1)
            places = chunk.take(chunk.size, call.batch_size, at_least_one=False)
            job.shard = Shard([Part(call, chunk, places, 0)])
            job.lead()
        except BaseException:
            job.abandon()
            raise
        finally:
            led = job in self._led_by_callers
            self._led_by_callers.discard(job)
            if led and self._lanes:
                with self._lock:
                    self._wake_one()
        return True

    def close(self) -> None:
        """Compute nothing more: calls that wait end with an error, and the threads end.

        Threads that are in the tokenizer are waited for as well: some versions of it abort the process when Python has
        ended before they come back.
        """
        with self._lock:
            self._closed = True
            left = [chunk for lane in self._lanes for chunk in lane.queue.clear()]
            for seat in self._threads.values():
                seat.wake()
        for chunk in left:
            chunk.fail(_ending())
        deadline = time.monotonic() + LAST_WAIT
        for thread in list(self._threads):
            thread.join(max(deadline - time.monotonic(), 0))
        while self._tokenizing and time.monotonic() < deadline:
            time.sleep(0.001)

    # ---- what the threads do

    def _work(self, seat: Seat) -> None:
        while (job := self._next(seat)) is not None:
            start = time.monotonic()
            with contextlib.suppress(BaseException), stay_on(seat.core):  # the calls have been told what it was
                job.help(seat) if seat.member else job.lead()
            end = time.monotonic()
            seat.expected = job.shard.size_of_ended_calls()
            seat.deadline = end + min((end - start) * SHARE_OF_WAITING, MOST_WAITING)
            del job  # a thread that sleeps must not keep a model in memory
            seat.job = None

    def _next(self, seat: Seat) -> Job | None:
        """Wait for a job; None when there will be no more."""
        while True:
            with self._lock:
                seat.asleep = False
                waiting = sum(lane.queue.size for lane in self._lanes)
                left = seat.deadline - time.monotonic() if waiting < seat.expected else 0
                job = seat.job or (self._form_job(seat) if left <= 0 else None)
                if job is not None or self._closed:
                    return job
                seat.asleep = True
                # A caller that computes wakes a thread when it is done, unless it is interrupted just then.
                idle = LONGEST_SLEEP if self._lanes and self._led_by_callers else -1
            seat.sleep(left if left > 0 else idle)

    # ---- in all that follows the lock is held

    def _form_job(self, seat: Seat) -> Job | None:
        """Give a thread the next shard of the model whose turn it is, to lead."""
        for lane in list(self._lanes):
            self._lanes.rotate(-1)
            waiting = lane.queue.size
            if not waiting:
                self._drop_if_empty(lane)
            if not waiting or self._room(lane) < 1:
                continue
            # Pairs that had to wait have company, and as soon as this thread is busy the next come: two threads with a
            # pair each are done with both sooner than together with one after the other.
            alone = len(self._lanes) == 1 and lane.queue.found_idle_threads
            size = self._team_size(lane, waiting) if alone else 1
            if size > 1 and waiting <= lane.most_of(size):
                shard = lane.queue.take(waiting)
            else:
                size, shard = 1, lane.queue.take(budget_of(waiting, min(lane.num_threads, self.size), lane.largest))
            seat.job, seat.member, seat.core = Job(lane, shard), 0, None
            self._recruit(seat.job, size - 1)
            self._drop_if_empty(lane)
            if self._lanes:
                self._wake_one()
            return seat.job
        return None

    def _drop_if_empty(self, lane: Lane) -> None:
        if not lane.queue.size and lane in self._lanes:
            self._lanes.remove(lane)

    def _count_busy(self, lane: Lane | None = None) -> int:
        """Return how many threads compute, callers among them; with a lane, only those that compute this model."""
        jobs = [seat.job for seat in self._threads.values() if seat.job is not None] + list(self._led_by_callers)
        return sum(lane is None or job.lane is lane for job in jobs)

    def _room(self, lane: Lane) -> int:
        """Return how many more threads may compute a model now."""
        return min(self.size - self._count_busy(), lane.num_threads - self._count_busy(lane))

    def _team_size(self, lane: Lane, tokens: int) -> int:
        """Return how many threads, the one that asks among them, should share so many tokens."""
        if not lane.shares:
            return 1
        free = sum(seat.is_free for seat in self._threads.values()) + self.size - len(self._threads)
        return max(min(1 + free, self._room(lane), tokens // FEWEST_ROWS), 1)

    def _recruit(self, job: Job, count: int) -> None:
        """Give a job, which the calling thread leads, so many helpers; fewer where no more threads can be started."""
        job.speed = speed_of(current_core())
        taken = {seat.core for seat in self._threads.values() if seat.job is not None and seat.core is not None}
        for member, core in enumerate(choose_cores(count, taken) if count else (), 1):
            seat = next((seat for seat in self._threads.values() if seat.is_free), None) or self._start_thread()
            if seat is None:
                return
            job.helpers.append(seat)
            seat.member, seat.core, seat.speed, seat.job = member, core, speed_of(core), job

    def _someone_lingers(self) -> bool:
        """Tell whether a thread waits for callers who come back."""
        now = time.monotonic()
        return any(seat.is_free and seat.expected and now < seat.deadline for seat in self._threads.values())

    def _wake_one(self) -> None:
        """Let one more thread look for work, if one is idle; one that waits for callers only if there is no other."""
        for seat in sorted(self._threads.values(), key=lambda seat: seat.deadline):
            if seat.is_free:
                seat.wake()
                seat.asleep = False
                return
        if len(self._threads) < self.size and self._start_thread() is None and not self._threads:
            raise BackendError(
                "threads: the system starts none, expected one at least; let it allow this process more, or end others"
            )

    def _start_thread(self) -> Seat | None:
        """Start a thread; it waits for the lock. None when the system starts no more."""
        for thread in [thread for thread in self._threads if not thread.is_alive()]:
            del self._threads[thread]  # an interrupt came before it was started
        seat = Seat()
        thread = threading.Thread(target=self._work, args=[seat], name=f"numbert-{len(self._threads)}", daemon=True)
        self._threads[thread] = seat
        try:
            thread.start()
        except RuntimeError:
            del self._threads[thread]
            return None
        return seat


def _ending() -> BackendError:
    return BackendError("Python is about to end and computes no more scores; wait for them before the program ends")


# ---- one crew for this process

_all_lanes: "weakref.WeakSet[Lane]" = weakref.WeakSet()
_crew: Crew | None = None
_crew_lock = threading.Lock()


def crew() -> Crew:
    """Return the threads of this process."""
    global _crew
    with _crew_lock:
        if _crew is None:
            _crew = Crew(usable_cores())
        return _crew


def _close() -> None:
    if _crew is not None:
        _crew.close()


def _after_fork_in_child() -> None:
    """Forget threads that this process does not have, and what waited for them."""
    global _crew, _crew_lock
    _crew, _crew_lock = None, threading.Lock()
    for lane in list(_all_lanes):
        lane.forget()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
