"""Threads that each run whole shards. The kernels release the GIL, so the threads use as many cores.

Numba's own threading layers are not used: one aborts the process when two threads call it, another kills a forked
child. This pool can do neither; a forked child, whose threads are gone, makes a new one when it first needs it.
"""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .cores import Cores
from .errors import BackendError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """A pool of threads, made at its first use.

    Parameters
    ----------
    num_threads : int
        Threads that work at once, whoever calls: callers share the pool, so no number of them can overload a machine.
    """

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._cores = Cores()
        _all_workers.add(self)

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """Return function(task) for each task, in order; tasks begin in order.

        When a task raises, or the caller is interrupted, tasks that have not begun are dropped and the error is raised.
        The tasks of one call are queued together: as many as there are threads may wait for each other.

        Raises
        ------
        BackendError
            When the system starts no more threads.
        """
        futures: list[Future[Result]] = []
        try:
            self._submit(function, tasks, futures)
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def map_together(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """Do as `map`, with the first task on the calling thread.

        For tasks that wait for each other: one thread less must be woken, and each gets a core of its own if it can.
        """

        def alone(task: Task) -> Result:
            with self._cores.own_core():
                return function(task)

        futures: list[Future[Result]] = []
        try:
            self._submit(alone, tasks[1:], futures)
            return [alone(tasks[0]), *(future.result() for future in futures)]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _submit(self, function: Callable[[Task], Result], tasks: Sequence[Task], futures: list[Future[Result]]) -> None:
        """Queue tasks, next to each other, and append what will be their results."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.num_threads, thread_name_prefix="numbert")
            try:
                for task in tasks:
                    futures.append(self._executor.submit(function, task))
            except RuntimeError as error:
                # The task stays in the queue and nobody will ask for its result. So the pool is left to itself: threads
                # that there are finish its queue, which may hold tasks of other callers, and end.
                self._executor = None
                raise BackendError(
                    f"num_threads: found {self.num_threads}, of which not all can be started ({error}); choose fewer or"
                    " raise the limit of threads (ulimit -u)"
                ) from error

    def _forget_threads(self) -> None:
        self._executor = None
        self._lock = threading.Lock()
        self._cores = Cores()


_all_workers: "weakref.WeakSet[Workers]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for workers in list(_all_workers):
        workers._forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
