"""Threads that compute together: where they run, and what is left behind."""

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from numbert.engine import cores, workers
from numbert.engine.workers import Workers, usable_cores

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


# ---- the pool

MAPS = pytest.mark.parametrize("name", ["map", "map_together"])


@MAPS
def test_results_are_in_the_order_of_the_tasks(name):
    def task(number: int) -> int:
        time.sleep(0.002 * (20 - number) if number < 4 else 0)  # the first ones end last
        return number

    assert getattr(Workers(3), name)(task, range(20)) == list(range(20))


def test_tasks_begin_in_order():
    begun: list[int] = []
    Workers(1).map(begun.append, range(50))
    assert begun == list(range(50))


def test_no_tasks_have_no_results():
    assert Workers(2).map(len, []) == []


@pytest.mark.parametrize("num_threads", [1, 3])
def test_there_are_as_many_threads_as_asked_for_whoever_calls(num_threads):
    pool, lock, running, most = Workers(num_threads), threading.Lock(), [], []
    full = threading.Barrier(num_threads, timeout=10)

    def task(number: int) -> None:
        with lock:
            running.append(number)
            most.append(len(running))
        if number < num_threads:
            full.wait()
        time.sleep(0.001)
        with lock:
            running.remove(number)

    pool.map(task, range(num_threads))  # which returns only if all run at once
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda start: pool.map(task, range(start, start + 10)), [100, 200, 300, 400]))
    assert max(most) == num_threads


def test_threads_are_made_at_the_first_use_and_carry_the_name_of_the_package():
    before = set(threading.enumerate())
    pool = Workers(2)
    assert set(threading.enumerate()) == before
    names = pool.map(lambda _: threading.current_thread().name, range(4))
    assert all(name.startswith("numbert") for name in names)


def test_threads_are_made_once():
    pool = Workers(1)
    threads = [pool.map(lambda _: threading.get_ident(), [0]) for _ in range(20)]
    assert all(thread == threads[0] for thread in threads)


@pytest.mark.parametrize("name", ["map", "map_together"])
def test_the_tasks_of_a_call_may_wait_for_each_other_however_many_call(name):
    # Were the tasks of two calls queued alternately, each thread would wait for one that has none.
    pool = Workers(2)

    def call(_: int) -> list[int]:
        meeting = threading.Barrier(2, timeout=10)
        return getattr(pool, name)(lambda number: meeting.wait() * 0 + number, [1, 2])

    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(call, range(200))) == [[1, 2]] * 200


@MAPS
def test_an_error_is_raised_and_tasks_that_have_not_begun_are_dropped(name):
    begun, pool = [], Workers(2)

    def task(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise KeyError("on purpose")
        time.sleep(0.02)

    with pytest.raises(KeyError, match="on purpose"):
        getattr(pool, name)(task, range(100))
    assert pool.map(lambda number: number, [5, 6]) == [5, 6]  # what was queued before has begun now
    assert len(begun) < 50


@MAPS
def test_an_error_of_a_later_task_is_raised_too(name):
    def task(number: int) -> None:
        if number == 2:
            raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        getattr(Workers(2), name)(task, range(4))


@MAPS
def test_a_pool_whose_threads_could_not_be_started_works_when_they_can(name, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    pool = Workers(2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            getattr(pool, name)(len, ["a", "b", "c"])
    assert getattr(pool, name)(len, ["ab", "c"]) == [2, 1]


# ---- a forked child


def _use_in_child(pool: Workers, results) -> None:
    results.put((pool.map(lambda number: number + 1, [1, 2]), [len(allowed) for _, allowed in run_together(pool, 2)]))


@needs_two_cores
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_while_the_pool_is_in_use_makes_threads_of_its_own():
    pool, begun, go_on = Workers(2), threading.Event(), threading.Event()
    waiting = threading.Thread(target=pool.map_together, args=(lambda _: begun.set() or go_on.wait(60), [0, 1]))
    waiting.start()
    assert begun.wait(10)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with pool._lock:  # as if another thread were queueing tasks at this moment
        child = context.Process(target=_use_in_child, args=(pool, results))
        child.start()
    try:
        assert results.get(timeout=30) == ([2, 3], [1, 1])  # and the cores are not taken there
        child.join(timeout=30)
        assert child.exitcode == 0
    finally:
        child.kill()
        go_on.set()
        waiting.join()


# ---- the number of cores


def test_usable_cores_are_those_of_the_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7} if pid == 0 else set(), raising=False)
    assert usable_cores() == 3


@pytest.mark.parametrize(("counted", "cores"), [(6, 6), (None, 1)])
def test_without_affinity_all_cores_are_usable(monkeypatch, counted, cores):
    monkeypatch.delattr(workers.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert usable_cores() == cores
