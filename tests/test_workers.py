"""Threads that compute together: where they run, and what is left behind."""

import os
import threading

import pytest
from numbert.engine import cores
from numbert.engine.workers import Workers

needs_two_cores = pytest.mark.skipif(
    cores._current_core is None or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"
)


def run_together(workers: Workers, size: int) -> list[tuple[int, set[int]]]:
    """Run tasks that wait for each other; return the thread and the allowed cores of each."""
    barrier = threading.Barrier(size)

    def task(_: int) -> tuple[int, set[int]]:
        barrier.wait(10)
        found = threading.get_ident(), os.sched_getaffinity(0)
        barrier.wait(10)
        return found

    return workers.map_together(task, range(size))


@needs_two_cores
def test_each_has_a_core_of_its_own_and_gives_it_back():
    allowed, workers = os.sched_getaffinity(0), Workers(2)
    for _ in range(3):
        (first_thread, first), (second_thread, second) = run_together(workers, 2)
        assert first_thread == threading.get_ident() != second_thread
        assert len(first) == len(second) == 1
        assert not first & second
        assert os.sched_getaffinity(0) == allowed
        assert workers.map(lambda _: os.sched_getaffinity(0), [0]) == [allowed]  # in the pool


@needs_two_cores
def test_more_threads_than_cores_share_what_there_is():
    allowed = os.sched_getaffinity(0)
    results = run_together(Workers(len(allowed) + 2), len(allowed) + 2)
    assert sorted(len(found) for _, found in results) == [1] * len(allowed) + [len(allowed)] * 2
    assert os.sched_getaffinity(0) == allowed


@needs_two_cores
def test_a_system_that_forbids_it_is_no_error(monkeypatch):
    def forbid(pid, mask):
        raise PermissionError("not here")

    monkeypatch.setattr(os, "sched_setaffinity", forbid)
    assert len(run_together(Workers(2), 2)) == 2


def test_a_system_without_affinity_is_no_error(monkeypatch):
    monkeypatch.setattr(cores, "_current_core", None)
    assert Workers(2).map_together(lambda x: x + 1, [1, 2, 3]) == [2, 3, 4]


@needs_two_cores
def test_after_an_error_the_core_is_free_again():
    allowed, workers = os.sched_getaffinity(0), Workers(2)

    def fail(_: int) -> None:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        workers.map_together(fail, [0, 1])
    assert os.sched_getaffinity(0) == allowed
    assert all(len(found) == 1 for _, found in run_together(workers, 2))
