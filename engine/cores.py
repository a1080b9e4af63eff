"""Which cores this process may use, and on which one a thread runs. The system is slow to see that two want one each.

It likes to wake a thread on the core of the one that wakes it, balances its load only after some 50 ms, and virtual
machines may even pack threads together to save a core. A small request is long over by then. So threads that help
another one with a request are bound to cores of their own for its duration. The one that they help is left alone: it
may be a caller's, and an interrupt must not leave that bound.
"""

import contextlib
import ctypes
import functools
import math
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
CAPACITY = "/sys/devices/system/cpu/cpu{}/cpu_capacity"
FULL_SPEED = 1024  # of the fastest cores, in Linux' numbers


def _find_current_core() -> Callable[[], int] | None:
    """Return the C library's function that tells the core of the calling thread; None where there is none."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    function: Callable[[], int] | None = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return function


_current_core = _find_current_core()


def usable_cores() -> int:
    """Return the number of cores that this process may use: of its affinity, and as many as its quota pays for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(math.ceil(min(cores, *map(quota, own_cgroups()))), 1)


def own_cgroups() -> list[Path]:
    """Return the folders of the control groups that this process is in, the innermost first, the root last."""
    inner = Path()
    with contextlib.suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            if line.startswith("0::"):  # cgroup v2
                inner = Path(line.removeprefix("0::").strip("/"))
    return [CGROUP / inner, *(CGROUP / parent for parent in inner.parents)]


def quota(cgroup: Path) -> float:
    """Return how many cores a control group pays for: infinity where it has no limit, or there is none.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cpu.cfs_*).
    """
    with contextlib.suppress(OSError, ValueError):
        limit, period = (cgroup / "cpu.max").read_text().split()
        return math.inf if limit == "max" else int(limit) / int(period)
    with contextlib.suppress(OSError, ValueError):
        microseconds = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        if microseconds > 0:
            return microseconds / int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    return math.inf


@functools.cache
def speed_of(core: int | None) -> int:
    """Return how fast a core is beside the others; ARM's have up to three speeds, others say nothing and are equal."""
    if core is None:
        return FULL_SPEED
    try:
        return int(Path(CAPACITY.format(core)).read_text())
    except (OSError, ValueError):
        return FULL_SPEED


def current_core() -> int | None:
    """Return the core that the calling thread is on; None where the system does not tell."""
    return None if _current_core is None else _current_core()


def choose_cores(count: int, taken: Collection[int]) -> list[int | None]:
    """Choose cores for the helpers of the calling thread: its own and those that are taken are left out.

    The fastest come first, among equals the one behind the caller's own: processes know nothing of each other, but
    their callers run on different cores.

    Returns
    -------
    list of int or None
        None for each that stays where the system puts it.
    """
    own = current_core()
    if own is None:
        return [None] * count
    try:
        allowed = sorted(os.sched_getaffinity(0))  # of the calling thread
    except OSError:  # where it is forbidden
        return [None] * count
    start = allowed.index(own) + 1 if own in allowed else 0
    free = [core for core in allowed[start:] + allowed[:start] if core != own and core not in taken]
    free.sort(key=lambda core: -speed_of(core))
    return [*free[:count], *[None] * (count - len(free))]


@contextlib.contextmanager
def stay_on(core: int | None) -> Iterator[None]:
    """Keep the calling thread on a core, or wherever it is for None."""
    if core is None:
        yield
        return
    allowed: set[int] = set()
    with contextlib.suppress(OSError):  # where it is forbidden, the thread stays free
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, allowed)
