"""Which core a thread runs on. The system is slow to see that two threads want one each.

It likes to wake a thread on the core of the one that wakes it, balances its load only after some 50 ms, and virtual
machines may even pack threads together to save a core. A small request is long over by then. So threads that compute a
request together bind themselves to different cores for its duration.
"""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator


def _find_current_core() -> Callable[[], int] | None:
    """Return the C library's function that tells the core of the calling thread; None where there is none."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    function: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return function


_current_core = _find_current_core()


class Cores:
    """Knows which cores are taken by threads of this process that compute together with others."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def own_core(self) -> Iterator[None]:
        """Keep the calling thread on a core that no other thread in this context has, if there is one left."""
        core, allowed = self._take()
        try:
            yield
        finally:
            if core is not None:
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(0, allowed)
                with self._lock:
                    self._taken.discard(core)

    def _take(self) -> tuple[int | None, set[int]]:
        if _current_core is None:
            return None, set()
        try:
            allowed = os.sched_getaffinity(0)  # 0 is the calling thread
        except OSError:  # where it is forbidden too
            return None, set()
        with self._lock:
            free = allowed - self._taken
            if not free:
                return None, allowed
            core = _current_core()
            if core not in free:
                core = min(free)
            self._taken.add(core)
        with contextlib.suppress(OSError):  # where it is forbidden, the thread stays free
            os.sched_setaffinity(0, {core})
        return core, allowed
