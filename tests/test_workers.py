"""The threads that compute for all callers: who computes what, with whom, and what is left behind."""

import gc
import itertools
import multiprocessing
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from interrupts import interrupt
from numbert import BackendError, InputError
from numbert.engine import cores, queue, scorer, workers
from numbert.engine.queue import Call, Chunk
from numbert.engine.tokenization import TokenPair
from numbert.engine.workers import Crew, Lane, Seat
from recording_backend import MEETING as PATIENCE
from recording_backend import RecordingBackend, ids_of, make_scorer, tell_apart, wait_until, wait_until_idle

needs_two_cores = pytest.mark.skipif(
    cores._current_core is None or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"
)


class Model:
    """What a lane computes with: its logits are the numbers of the pairs, and it notes who computed what.

    Parameters
    ----------
    num_threads, largest, shares
        Those of the lane.
    compute : callable
        Is called in each forward pass with the numbers of the shard and that of the team's member, and may raise.
    """

    def __init__(self, num_threads=4, largest=384, shares=False, compute=lambda numbers, member: None):
        self.compute = compute
        self.shards: list[list[int]] = []  # that have begun
        self.teams: list[int] = []  # the size of each
        self.leaders: list[threading.Thread] = []
        self.lane = Lane(
            self._lay_out, self._forward, self._make_team, num_threads=num_threads, largest=largest, shares=shares
        )

    def _lay_out(self, tokens):
        return [first[0] for first, _ in tokens]

    def _make_team(self, size):
        meeting = threading.Barrier(size, timeout=PATIENCE)
        return [Workspace(meeting, member) for member in range(size)]

    def _forward(self, numbers, workspace):
        if workspace.member == 0:
            self.shards.append(numbers)
            self.teams.append(workspace.meeting.parties)
            self.leaders.append(threading.current_thread())
        self.compute(numbers, workspace.member)
        workspace.meeting.wait()  # the members of a team run at once
        logits = np.array(numbers, np.float32)[:, None]
        return np.array_split(logits, workspace.meeting.parties)[workspace.member]


class Workspace:
    def __init__(self, meeting, member):
        self.meeting, self.member = meeting, member

    def divide(self, speeds):
        assert len(speeds) == self.meeting.parties

    def leave(self):
        self.meeting.abort()


class Gate:
    """Holds up the threads that compute until a test lets them go on."""

    def __init__(self):
        self.open, self._lock, self.waiting = threading.Event(), threading.Lock(), 0

    def __call__(self, numbers=(), member=0):
        with self._lock:
            self.waiting += 1
        assert self.open.wait(PATIENCE)

    def fill(self, count):
        wait_until(lambda: self.waiting == count)


def make_chunk(numbers, tokens=12):
    pairs = [TokenPair([number], []) for number in numbers]
    return Chunk(pairs, [tokens] * len(pairs), np.full((len(pairs), 1), np.nan, np.float32))


def submit(crew, model, numbers, tokens=12, batch_size=32):
    call, chunk = Call(batch_size), make_chunk(numbers, tokens)
    crew.submit(model.lane, call, chunk)
    return call, chunk


def result(chunk):
    over = threading.Event()
    chunk.call_at_end(over.set)
    assert over.wait(PATIENCE)
    chunk.wait()
    return chunk.logits[:, 0].tolist()


def ask(crew, model, numbers, tokens=12, batch_size=32):
    """Do what a scorer does with few pairs."""
    call, chunk = Call(batch_size), make_chunk(numbers, tokens)
    if not crew.compute_now(model.lane, call, chunk):
        crew.submit(model.lane, call, chunk)
    return result(chunk)


def start_all(crew):
    """Let all threads of the crew be there, and idle."""
    model = Model(crew.size, shares=True)
    ask(crew, model, [1], tokens=crew.size * 24)
    gate = Gate()
    busy = hold(crew, crew.size, gate)
    gate.open.set()
    for _, chunk in busy:
        result(chunk)
    wait_until_idle(crew)


def hold(crew, count, gate):
    """Keep so many threads busy until the gate opens."""
    model = Model(crew.size, compute=gate)
    busy = []
    for number in range(count):
        busy.append(submit(crew, model, [number]))
        gate.fill(number + 1)
    return busy


@pytest.fixture
def crew():
    crew = Crew(4)
    yield crew
    crew.close()
    assert not any(thread.is_alive() for thread in crew._threads)


# ---- small requests: the caller computes, and idle threads help


@pytest.mark.parametrize(("tokens", "size"), [(23, 1), (47, 1), (48, 2), (71, 2), (96, 4), (1000, 4)])
def test_a_small_request_is_computed_by_its_caller_with_as_many_idle_threads_as_have_work(crew, tokens, size):
    model = Model(shares=True)
    assert ask(crew, model, [7], tokens) == [7]
    assert (model.teams, model.leaders) == ([size], [threading.current_thread()])


def test_a_small_request_of_several_pairs_is_one_shard(crew):
    model = Model(shares=True)
    assert ask(crew, model, range(32), tokens=96) == [*range(32)]  # two full shards for each of four threads
    assert model.teams == [4]


@pytest.mark.parametrize(
    ("count", "tokens", "batch_size"), [(33, 12, 32), (32, 97, 32)], ids=["more pairs", "more tokens"]
)
def test_a_large_request_is_computed_by_the_threads_shard_by_shard(crew, count, tokens, batch_size):
    model = Model(shares=True)
    assert ask(crew, model, range(count), tokens, batch_size) == [*range(count)]
    assert len(model.shards) > 1
    assert threading.current_thread() not in model.leaders


def test_where_a_batch_cannot_be_shared_the_caller_computes_a_small_one_alone(crew):
    model = Model(shares=False)
    assert ask(crew, model, range(32)) == [*range(32)]
    assert (model.teams, model.leaders) == ([1], [threading.current_thread()])
    ask(crew, model, range(33), batch_size=99)  # more than a full shard
    assert threading.current_thread() not in model.leaders[1:]


@pytest.mark.parametrize("busy", [1, 2, 3])
def test_nobody_waits_for_a_busy_thread_to_help(crew, busy):
    gate, model = Gate(), Model(shares=True)
    held = hold(crew, busy, gate)
    assert ask(crew, model, [7], tokens=500) == [7]  # while the gate is closed
    assert model.teams == [4 - busy]
    gate.open.set()
    assert [result(chunk) for _, chunk in held] == [[number] for number in range(busy)]


def test_a_small_request_that_finds_all_threads_busy_waits_in_the_queue(crew):
    gate, model = Gate(), Model(shares=True)
    hold(crew, 4, gate)
    call, chunk = Call(32), make_chunk([7])
    assert not crew.compute_now(model.lane, call, chunk)
    gate.open.set()
    assert np.isnan(chunk.logits).all()


def test_a_small_request_does_not_overtake_those_that_wait(crew):
    gate, model = Gate(), Model(num_threads=1, shares=True, compute=lambda numbers, member: gate())
    submit(crew, model, [1])
    gate.fill(1)
    waiting = submit(crew, model, [2])
    other = Model(shares=True)
    assert not crew.compute_now(other.lane, Call(32), make_chunk([3]))
    gate.open.set()
    result(waiting[1])


@pytest.mark.parametrize("num_threads", [2, 4])
def test_a_small_request_that_a_thread_takes_is_shared_by_idle_ones_too(crew, num_threads):
    start_all(crew)
    model = Model(num_threads, shares=True)
    assert result(submit(crew, model, [7], tokens=200)[1]) == [7]  # as who awaits it does
    assert model.teams == [num_threads]


# ---- large requests: everybody's pairs, shard by shard


@pytest.mark.parametrize("shares", [False, True])
def test_one_pair_behind_ten_thousand_waits_for_at_most_two_shards_of_each_thread(crew, shares):
    gate = Gate()

    def hold_up_after_some(numbers, member):
        if len(model.shards) > 20 and not gate.open.is_set():
            gate()

    model = Model(shares=shares, compute=hold_up_after_some)
    _, large = submit(crew, model, range(10_000))
    gate.fill(4)  # each thread has begun a shard and the small request comes
    begun = len(model.shards)
    _, small = submit(crew, model, [-1])
    gate.open.set()
    assert result(small) == [-1]
    place = next(i for i, shard in enumerate(model.shards) if -1 in shard)
    assert place - begun < 2 * 4
    assert result(large) == [*range(10_000)]
    assert len(model.shards) >= 10_000 // 32


def test_pairs_of_several_callers_share_a_shard_when_all_threads_are_busy(crew):
    gate, model = Gate(), Model()
    hold(crew, 4, gate)
    chunks = [submit(crew, model, [number])[1] for number in range(40)]
    gate.open.set()
    assert [result(chunk) for chunk in chunks] == [[number] for number in range(40)]
    assert [len(shard) for shard in model.shards] == [10, 8, 8, 8, 6]  # a quarter of what waits, or 96 tokens


def test_the_pairs_of_a_caller_in_a_shard_are_never_more_than_its_batch_size(crew):
    gate, model = Gate(), Model()
    hold(crew, 4, gate)
    _, few = submit(crew, model, range(10), batch_size=2)
    _, many = submit(crew, model, range(100, 140), batch_size=30)
    gate.open.set()
    assert (result(few), result(many)) == ([*range(10)], [*range(100, 140)])
    assert max(sum(number < 100 for number in shard) for shard in model.shards) == 2
    assert max(len(shard) for shard in model.shards) > 2


def test_shards_are_computed_side_by_side(crew):
    meeting = threading.Barrier(4, timeout=PATIENCE)
    model = Model(compute=lambda numbers, member: meeting.wait())
    _, chunk = submit(crew, model, range(4), batch_size=1)
    assert result(chunk) == [*range(4)]


# ---- one set of threads for all models


def most_at_once(crew, models, counts):
    """Let sixteen callers ask all models again and again; return the most forward passes at once, for each and all."""
    lock, running, most = threading.Lock(), dict.fromkeys(models, 0), dict.fromkeys([*models, "all"], 0)

    def watch(model):
        def compute(numbers, member):
            with lock:
                running[model] += 1
                most[model] = max(most[model], running[model])
                most["all"] = max(most["all"], sum(running.values()))
            time.sleep(0.001)  # lets the others come
            with lock:
                running[model] -= 1

        return compute

    for model in models:
        model.compute = watch(model)
    requests = [(model, range(count)) for model in models for count in counts] * 4
    with ThreadPoolExecutor(16) as callers:
        results = list(callers.map(lambda request: ask(crew, *request), requests))
    assert results == [[*numbers] for _, numbers in requests]
    return most


@pytest.mark.parametrize("shares", [False, True])
def test_all_models_and_callers_together_compute_on_no_more_threads_than_there_are(crew, shares):
    models = [Model(shares=shares), Model(shares=shares)]
    most = most_at_once(crew, models, [1, 3, 20, 90, 200])
    assert 2 <= most["all"] <= crew.size
    assert len(crew._threads) <= crew.size


@pytest.mark.parametrize("limit", [1, 2])
def test_a_model_uses_no_more_threads_than_it_may(crew, limit):
    limited, other = Model(num_threads=limit, shares=True), Model(shares=True)
    most = most_at_once(crew, [limited, other], [1, 8, 40, 100])
    assert most[limited] <= limit
    assert most["all"] <= crew.size


def test_a_model_that_may_use_no_more_threads_leaves_the_others_to_the_next(crew):
    gate, other = Gate(), Model()
    limited = Model(num_threads=1, compute=gate)
    _, first = submit(crew, limited, range(20), batch_size=1)
    gate.fill(1)
    _, second = submit(crew, other, range(100))
    assert result(second) == [*range(100)]
    assert np.isnan(first.logits).all()
    gate.open.set()
    assert result(first) == [*range(20)]


def test_models_take_turns():
    crew, gate, order = Crew(1), Gate(), []
    hold(crew, 1, gate)
    models = [Model(compute=lambda numbers, member, name=name: order.append(name)) for name in "abc"]
    chunks = [submit(crew, model, range(40), batch_size=4)[1] for model in models]
    gate.open.set()
    assert [result(chunk) for chunk in chunks] == [[*range(40)]] * 3
    assert "".join(order) == "abc" * 10
    crew.close()


# ---- threads


def test_a_thread_sleeps_until_it_is_woken_and_not_at_all_if_it_has_been():
    seat, over = Seat(), threading.Event()
    seat.wake()
    seat.wake()
    seat.sleep()
    thread = threading.Thread(target=lambda: (seat.sleep(), over.set()))
    thread.start()
    assert not over.wait(0.05)
    seat.wake()
    assert over.wait(PATIENCE)
    thread.join()


def sleeping_crew(*deadlines):
    """A crew of threads that are asleep, and their seats."""
    crew = Crew(len(deadlines))
    for deadline in deadlines:
        seat = crew._threads[threading.Thread()] = Seat()
        assert not seat.is_free  # it has not begun to look for work
        seat.asleep, seat.deadline = True, deadline
    return crew, list(crew._threads.values())


def test_each_waking_wakes_another_thread_and_last_the_one_that_waits_for_callers():
    crew, seats = sleeping_crew(3.0, 1.0, 2.0)
    woken = []
    for _ in seats:
        crew._wake_one()
        woken += [seat for seat in seats if seat._bell.acquire(blocking=False)]
    assert woken == [seats[1], seats[2], seats[0]]


@pytest.mark.parametrize(("expected", "waits"), [(13, True), (12, False)])
def test_a_thread_waits_for_callers_who_were_sent_away_until_as_much_waits_again(expected, waits):
    crew, (seat,) = sleeping_crew(time.monotonic() + 0.3)
    model, seat.expected = Model(), expected
    submit(crew, model, [7], tokens=12)
    job = crew._next(seat)
    assert job.shard.tokens == [TokenPair([7], [])]
    assert (time.monotonic() >= seat.deadline) == waits


def test_threads_are_made_at_the_first_use_once_and_carry_the_name_of_the_package(crew):
    assert crew._threads == {}
    start_all(crew)
    threads = list(crew._threads)
    start_all(crew)
    assert list(crew._threads) == threads
    assert len(threads) == 4
    assert all(thread.name.startswith("numbert") and thread.daemon for thread in threads)


@needs_two_cores
def test_each_helper_has_a_core_of_its_own_and_gives_it_back(crew):
    allowed, found = os.sched_getaffinity(0), {}

    def note(numbers, member):
        found[member] = os.sched_getaffinity(0)

    model = Model(num_threads=2, shares=True, compute=note)
    for _ in range(3):
        ask(crew, model, [1], tokens=100)
        assert found[0] == allowed  # the caller's own thread is left alone
        assert len(found[1]) == 1
    wait_until_idle(crew)
    assert {frozenset(os.sched_getaffinity(thread.native_id)) for thread in crew._threads} == {frozenset(allowed)}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_where_only_some_threads_can_be_started_teams_are_smaller(crew, monkeypatch, count):
    start, left = threading.Thread.start, iter(range(count))

    def start_some(thread):
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    model = Model(shares=True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_some)
        assert ask(crew, model, [1], tokens=100) == [1]
        assert ask(crew, model, range(90)) == [*range(90)]
    assert model.teams[0] == 1 + count
    wait_until_idle(crew)
    assert ask(crew, model, [1], tokens=100) == [1]
    assert model.teams[-1] == 4


def test_without_any_thread_a_caller_computes_what_is_small_and_is_told_what_to_do_otherwise(crew, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    model = Model(shares=True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert ask(crew, model, [1], tokens=100) == [1]
        assert model.teams == [1]
        with pytest.raises(BackendError, match=r"^threads: the system starts none, expected"):
            ask(crew, model, range(90))
    assert not crew.is_busy
    assert ask(crew, model, range(90)) == [*range(90)]


def test_at_the_end_those_who_wait_are_told_and_the_threads_end():
    crew, gate = Crew(4), Gate()
    held, model = hold(crew, 4, gate), Model()
    _, waiting = submit(crew, model, [1])
    threads = list(crew._threads)
    threading.Timer(0.05, gate.open.set).start()  # the last shards end while `close` waits
    crew.close()
    with pytest.raises(BackendError, match=r"^Python is about to end and computes no more"):
        result(waiting)
    assert [result(chunk) for _, chunk in held] == [[0], [1], [2], [3]]
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(BackendError, match="about to end"):
        submit(crew, model, [1])
    assert model.shards == []


def test_the_end_does_not_wait_for_ever_for_a_shard(monkeypatch):
    monkeypatch.setattr(workers, "LAST_WAIT", 0.01)
    crew, gate = Crew(2), Gate()
    hold(crew, 1, gate)
    crew.close()
    gate.open.set()


# ---- errors and cancellations reach their own caller


class DeliberateError(Exception):
    """What no part of numbert raises."""


def fail_at_13(numbers, member):
    if 13 in numbers:
        raise DeliberateError("on purpose")


@pytest.mark.parametrize("shares", [False, True])
def test_an_error_in_a_shard_of_several_callers_reaches_only_the_one_whose_pair_causes_it(crew, shares):
    gate, model = Gate(), Model(shares=shares, compute=fail_at_13)
    hold(crew, 4, gate)
    chunks = [submit(crew, model, [number])[1] for number in range(10, 18)]
    gate.open.set()
    for number, chunk in zip(range(10, 18), chunks, strict=True):
        if number == 13:
            with pytest.raises(DeliberateError, match="on purpose"):
                result(chunk)
        else:
            assert result(chunk) == [number]
    assert sum(13 in shard for shard in model.shards) == 2  # together with the others', and alone
    assert any(len(shard) > 1 for shard in model.shards)


@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_the_error_of_a_member_of_a_team_is_the_one_that_is_raised(crew, failing):
    def fail(numbers, member):
        if member == failing:
            raise DeliberateError("on purpose")

    model = Model(shares=True, compute=fail)
    for _ in range(3):
        with pytest.raises(DeliberateError, match="on purpose"):  # not that of those who waited for it
            ask(crew, model, [1], tokens=100)
    wait_until_idle(crew)
    model.compute = lambda numbers, member: None
    assert ask(crew, model, [1], tokens=100) == [1]
    assert model.teams[-1] == 4


@pytest.mark.parametrize("now", [True, False], ids=["by the caller", "by a thread"])
def test_results_that_cannot_be_delivered_are_an_error_and_nobody_waits_for_ever(crew, now):
    model = Model()
    model.lane.forward = lambda numbers, workspace: np.zeros((len(numbers) + 1, 3))
    with pytest.raises(ValueError, match="shape"):
        ask(crew, model, [1, 2]) if now else result(submit(crew, model, [1, 2])[1])
    wait_until_idle(crew)


def test_what_is_cancelled_is_not_computed_and_what_others_wait_for_is(crew):
    gate, model = Gate(), Model()
    hold(crew, 4, gate)
    calls = [submit(crew, model, range(start, start + 5)) for start in (0, 10, 20)]
    crew.cancel(model.lane, calls[1][0])
    gate.open.set()
    assert [result(calls[i][1]) for i in (0, 2)] == [[*range(5)], [*range(20, 25)]]
    assert sorted(itertools.chain(*model.shards)) == [*range(5), *range(20, 25)]
    assert np.isnan(calls[1][1].logits).all()
    wait_until_idle(crew)


def test_when_all_is_cancelled_nothing_is_left_to_do(crew):
    gate, model = Gate(), Model(shares=True)
    hold(crew, 4, gate)
    call, _ = submit(crew, model, range(100))
    crew.cancel(model.lane, call)
    gate.open.set()
    wait_until_idle(crew)
    assert model.shards == []
    assert ask(crew, model, [1], tokens=100) == [1]
    assert model.teams == [4]  # by the caller, as nothing waits


# ---- interrupts

NEXT = [("7", " ".join([number] * 50)) for number in "56"]  # 54 tokens each: a team of four
INTERRUPTED = {  # pairs, batch_size, whether the threads are there before
    "a team": ([("7", "8 " * 50), ("7", "9 " * 50)], 32, True),
    "a team that is started": ([("7", "8 " * 50), ("7", "9 " * 50)], 32, False),
    "the queue": ([("7", str(number)) for number in range(5)], 32, True),
    "the queue, whose threads are started": ([("7", str(number)) for number in range(3)], 1, False),
    "a team with an error": ([("7", "8 " * 50), ("7", "1000 " * 50)], 32, True),
    "the queue with an error": ([("7", str(number)) for number in (8, 1000, 9)], 1, True),
}


@pytest.mark.parametrize(
    ("name", "num_threads"),
    [*((name, 4) for name in INTERRUPTED), ("a team that is started", 1), ("the queue, whose threads are started", 1)],
)
def test_after_an_interrupt_at_any_place_all_threads_are_free_and_the_next_call_is_right(
    name, num_threads, monkeypatch
):
    pairs, batch_size, started = INTERRUPTED[name]
    monkeypatch.setattr(scorer, "FIRST_CHUNK", 2)
    monkeypatch.setattr(scorer, "CHUNK", 2)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    before = set(threading.enumerate())
    for place in itertools.count():
        crew, backend = Crew(num_threads), RecordingBackend(shares_shards=True)
        monkeypatch.setattr(workers, "_crew", crew)
        model = make_scorer(backend, num_threads=num_threads)
        if started:
            logits_of(model, NEXT)
            wait_until_idle(crew)
        interrupted = interrupt_logits(model, pairs, batch_size, place)
        wait_until_idle(crew)
        assert model.runner.lane.queue.size == 0
        backend.forget()
        assert logits_of(model, NEXT).tolist() == [tell_apart(ids_of(pair)) for pair in NEXT]
        assert backend.team_sizes == [num_threads]  # on all threads
        wait_until_idle(crew)
        if allowed is not None:
            threads = [0, *(thread.native_id for thread in crew._threads)]
            assert all(os.sched_getaffinity(thread) == allowed for thread in threads)
        crew.close()
        assert set(threading.enumerate()) == before
        if not interrupted:
            break
    assert place > 100  # that many places there are, or the places are not found any more


def logits_of(model, pairs, batch_size=32):
    return model.logits(pairs, 64, batch_size, False, lambda count: None)


def interrupt_logits(model, pairs, batch_size, place):
    """Interrupt a call at a place; return whether it has so many."""
    try:
        with interrupt(place, workers, queue, scorer) as interrupter:
            logits_of(model, pairs, batch_size)
    except KeyboardInterrupt:
        return True
    except InputError:
        assert any("1000" in text for pair in pairs for text in pair)
    assert not interrupter.has_raised, f"{interrupter.where}: the interrupt was lost"
    return False


# ---- nothing is left of a deleted model


@pytest.mark.parametrize("count", [1, 90], ids=["by the caller", "by the threads"])
def test_a_deleted_model_is_gone_at_once(crew, monkeypatch, count):
    monkeypatch.setattr(workers, "_crew", crew)
    model = make_scorer(RecordingBackend(shares_shards=True), num_threads=4)
    encoder = weakref.ref(model.runner.lane.forward)
    gc.disable()
    try:
        logits_of(model, [("7", f"{number} " * 50) for number in range(3, 3 + count)])
        gone = weakref.ref(model), weakref.ref(model.runner.lane)
        del model
        assert gone[0]() is None
        wait_until(lambda: gone[1]() is None)  # as soon as the threads have gone to sleep
        wait_until(lambda: encoder() is None)
    finally:
        gc.enable()


# ---- a forked child


def _use_in_child(model, results):
    crew = workers._crew = Crew(4)
    results.put((ask(crew, model, [1], tokens=100), ask(crew, model, range(90)), model.teams[0]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_while_all_threads_are_in_use_makes_threads_of_its_own(crew, monkeypatch):
    monkeypatch.setattr(workers, "_crew", crew)
    gate, model = Gate(), Model(shares=True)
    hold(crew, 4, gate)
    _, waiting = submit(crew, model, range(50))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with crew._lock, workers._crew_lock:  # as if another thread were queueing pairs at this moment
        child = context.Process(target=_use_in_child, args=(model, results))
        child.start()
    try:
        assert results.get(timeout=30) == ([1], [*range(90)], 4)  # nor does anything of the parent's wait there
        child.join(timeout=30)
        assert child.exitcode == 0
    finally:
        child.kill()
        gate.open.set()
    assert result(waiting) == [*range(50)]
