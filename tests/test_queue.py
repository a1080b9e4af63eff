"""Which pairs are computed together: every pair once, within the budgets, and the calls take turns."""

import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numbert.engine.queue import MOST_CALLS, SMALLEST_SHARD, Call, Chunk, Queue, Shard, budget_of
from numbert.engine.tokenization import TokenPair

LENGTHS = st.lists(st.integers(3, 600), min_size=1, max_size=12)
BUDGETS, BATCH_SIZES = st.integers(1, 700), st.integers(1, 9)
NUMBERS = itertools.count()  # what each pair is recognized by


def make_chunk(lengths, labels=1) -> Chunk:
    tokens = [TokenPair([next(NUMBERS)], []) for _ in lengths]
    return Chunk(tokens, lengths, np.full((len(lengths), labels), np.nan, np.float32))


def numbers_of(tokens) -> list[int]:
    return [first[0] for first, _ in tokens]


def queue_of(*calls: tuple[list[int], int]) -> tuple[Queue, list[Call]]:
    """A queue in which so many calls wait, each with the lengths of its pairs and its batch_size."""
    queue, made = Queue(), [Call(batch_size) for _, batch_size in calls]
    for call, (lengths, _) in zip(made, calls, strict=True):
        queue.add(call, make_chunk(lengths))
    return queue, made


def is_done(chunk: Chunk) -> bool:
    told = []
    chunk.call_at_end(lambda: told.append(True))
    return bool(told)


def sizes(shard: Shard) -> list[int]:
    return [len(part.places) for part in shard.parts]


class Callers(RuleBasedStateMachine):
    """Callers who add pairs and take them back, and threads that take shards and deliver them, in any order."""

    def __init__(self):
        super().__init__()
        self.queue = Queue()
        self.calls: list[Call] = []
        self.waiting: dict[Chunk, dict[int, int]] = {}  # tokens of the pairs that have not begun, by place
        self.call_of: dict[Chunk, Call] = {}
        self.begun: list[Shard] = []
        self.times: dict[int, int] = {}  # that each pair was taken
        self.failed: dict[Chunk, Exception] = {}  # the first error of each that has one
        self.complete: set[Chunk] = set()
        self.turns_left: dict[Call, int] = {}  # shards within which a call that waits begins one

    def those_that_wait(self) -> list[Call]:
        return list(dict.fromkeys(self.call_of[chunk] for chunk, pairs in self.waiting.items() if pairs))

    def fitting(self, chunk: Chunk, room: int) -> list[int]:
        return [tokens for tokens in self.waiting[chunk].values() if tokens <= room]

    @rule(batch_size=BATCH_SIZES)
    def begin_a_call(self, batch_size):
        self.calls.append(Call(batch_size))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), lengths=LENGTHS)
    def add(self, data, lengths):
        call = data.draw(st.sampled_from(self.calls))
        chunk = make_chunk(lengths)
        self.queue.add(call, chunk)
        self.waiting[chunk], self.call_of[chunk] = dict(enumerate(lengths)), call
        self.turns_left.setdefault(call, len(self.those_that_wait()))

    @rule(budget=BUDGETS)
    def take(self, budget):
        before = self.those_that_wait()
        shard = self.queue.take(budget)
        assert bool(shard.parts) == bool(before)
        self.check_turns(shard)
        self.check_order_and_budget(shard, budget)
        self.begun += [shard] if shard.parts else []
        for number in numbers_of(shard.tokens):
            self.times[number] = self.times.get(number, 0) + 1
            assert self.times[number] == 1

    def check_turns(self, shard):
        for call in self.turns_left:
            self.turns_left[call] -= 1
        if shard.parts:
            self.turns_left.pop(shard.parts[0].call)
        assert all(left > 0 for left in self.turns_left.values())

    def check_order_and_budget(self, shard, budget):
        room, taken = budget, dict.fromkeys(self.calls, 0)
        for part in shard.parts:
            call, chunk = part.call, part.chunk
            assert self.call_of[chunk] is call
            for place in part.places:
                tokens = self.waiting[chunk][place]
                if room == budget:  # the first, which has no room only by itself
                    assert tokens == max(self.waiting[chunk].values())
                else:
                    assert tokens == max(self.fitting(chunk, room))
                del self.waiting[chunk][place]
                room, taken[call] = room - tokens, taken[call] + 1
        for call, count in taken.items():
            assert count <= call.batch_size
        still = self.those_that_wait()
        for call in still:  # nothing is left behind that had room
            first = next(chunk for chunk, pairs in self.waiting.items() if self.call_of[chunk] is call and pairs)
            assert taken[call] == call.batch_size or not self.fitting(first, room)
        self.turns_left = {call: self.turns_left.get(call, len(still)) for call in still}

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def remove(self, data):
        call = data.draw(st.sampled_from(self.calls))
        self.queue.remove(call)
        for chunk in [chunk for chunk in self.waiting if self.call_of[chunk] is call]:
            self.waiting[chunk] = {}
        self.turns_left.pop(call, None)

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def deliver(self, data):
        shard = self.begun.pop(data.draw(st.integers(0, len(self.begun) - 1)))
        shard.deliver(np.array(numbers_of(shard.tokens), np.float32)[:, None])

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def fail(self, data):
        shard, error = self.begun.pop(data.draw(st.integers(0, len(self.begun) - 1))), ValueError(len(self.failed))
        shard.fail(error)
        for part in shard.parts:
            self.failed.setdefault(part.chunk, error)

    @invariant()
    def a_chunk_ends_with_its_own_first_error_or_with_all_its_results(self):
        for chunk in [chunk for chunk in self.waiting if is_done(chunk) and chunk not in self.complete]:
            self.complete.add(chunk)
            if chunk in self.failed:
                with pytest.raises(ValueError, match=f"^{self.failed[chunk]}$"):
                    chunk.wait()
            else:
                chunk.wait()
        assert set(self.failed) <= self.complete

    @invariant()
    def the_size_is_what_waits(self):
        assert self.queue.size == sum(sum(pairs.values()) for pairs in self.waiting.values())
        for chunk, pairs in self.waiting.items():
            assert chunk.size == sum(pairs.values())

    @invariant()
    def a_chunk_is_done_when_all_its_pairs_are_there_and_each_is_in_its_place(self):
        for chunk in self.waiting:
            there = chunk.logits[:, 0] == numbers_of(chunk.tokens)
            assert is_done(chunk) == (there.all() or chunk in self.failed)
            assert (there | np.isnan(chunk.logits[:, 0])).all()

    def teardown(self):
        """What has neither been taken nor taken back comes."""
        while self.queue.size:
            self.take(384)
        assert not any(self.waiting.values())


Callers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCallers = Callers.TestCase


# ---- shards of one call


@given(LENGTHS, BATCH_SIZES, BUDGETS)
def test_the_first_pair_of_a_shard_is_the_longest_that_waits(lengths, batch_size, budget):
    queue, _ = queue_of((lengths, batch_size))
    first = []
    while (shard := queue.take(budget)).parts:
        (part,) = shard.parts
        first.append(lengths[part.places[0]])
    assert first[0] == max(lengths)
    assert first == sorted(first, reverse=True)


@pytest.mark.parametrize(
    ("lengths", "budget", "batch_size", "sizes_of_shards"),
    [
        ([12] * 64, 192, 99, [16] * 4),
        ([97] * 3, 96, 99, [1] * 3),
        ([48, 48], 96, 99, [2]),
        ([48, 49], 96, 99, [1, 1]),
        ([60, 40, 30, 30], 100, 99, [2, 2]),  # 60 and 40, which is the longest that still has room
        ([12] * 64, 384, 5, [5] * 12 + [4]),  # no more than the caller allows
        ([5000, 5000], 384, 99, [1, 1]),  # a pair that is longer is a shard of its own
        ([3, 5000, 3], 384, 99, [1, 2]),
    ],
)
def test_sizes_of_shards(lengths, budget, batch_size, sizes_of_shards):
    queue, _ = queue_of((lengths, batch_size))
    assert [sizes(queue.take(budget)) for _ in sizes_of_shards] == [[size] for size in sizes_of_shards]
    assert queue.size == 0
    assert queue.take(budget).parts == []


def test_a_shard_may_hold_pairs_of_two_chunks_of_a_call_which_share_its_batch_size():
    queue, (call,) = queue_of(([10] * 3, 5))
    queue.add(call, make_chunk([20] * 4))
    assert [sizes(queue.take(384)) for _ in range(2)] == [[3, 2], [2]]


def test_a_chunk_waits_until_the_one_before_it_has_begun():
    queue, (call,) = queue_of(([90, 90], 99))
    queue.add(call, make_chunk([3]))
    assert [sizes(queue.take(96)) for _ in range(3)] == [[1], [1, 1], []]


# ---- turns


def test_one_pair_behind_ten_thousand_is_in_the_next_shard_but_one_and_alone_in_turn_after_it():
    queue, (large,) = queue_of(([12] * 10_000, 32))
    queue.take(384)
    small = Call(32)
    queue.add(small, make_chunk([12]))
    shards = [queue.take(384), queue.take(384)]
    assert [shard.parts[0].call for shard in shards] == [large, small]  # the shard that it begins is filled up
    assert sizes(shards[1]) == [1, 31]


def test_one_pair_fills_up_the_next_shard_if_there_is_room():
    queue, (large, small) = queue_of(([100] * 10, 32), ([12], 32))
    shard = queue.take(384)
    assert [part.call for part in shard.parts] == [large, small]
    assert sizes(shard) == [3, 1]


@given(st.lists(st.tuples(st.integers(1, 40), BATCH_SIZES), min_size=1, max_size=12), st.integers(12, 100))
def test_each_of_the_calls_that_wait_begins_a_shard_within_as_many_shards(calls, budget):
    queue, made = queue_of(*(([12] * count, batch_size) for count, batch_size in calls))
    begun, waiting = set(), set(made)
    for _ in made:
        shard = queue.take(budget)
        begun |= {part.call for part in shard.parts}
    assert begun == waiting


def test_one_that_was_only_filled_up_keeps_its_place():
    queue, (first, second, third) = queue_of(([50] * 9, 1), ([12] * 9, 1), ([12] * 9, 1))
    starts = [queue.take(62).parts for _ in range(6)]
    assert [parts[0].call for parts in starts] == [first, second, third] * 2
    assert [part.call for part in starts[0]] == [first, second]


def test_a_call_that_is_removed_loses_its_turn_and_its_pairs_and_no_other_does():
    queue, (first, second, third) = queue_of(([12] * 5, 9), ([13] * 5, 9), ([14] * 5, 9))
    queue.remove(second)
    assert queue.size == 5 * 12 + 5 * 14
    queue.remove(second)  # an interrupted caller may do it again
    assert [part.call for part in queue.take(999).parts] == [first, third]
    assert queue.size == 0


def test_a_call_that_was_removed_may_come_again():
    queue, (call,) = queue_of(([12] * 5, 9))
    chunk = call.chunks[0]
    queue.remove(call)
    assert not call.chunks
    assert chunk.take(999, 9, at_least_one=True) == []
    queue.add(call, make_chunk([7]))
    assert queue.size == 7
    assert sizes(queue.take(99)) == [1]


def test_no_more_calls_are_asked_for_one_shard_than_can_be_asked_quickly():
    queue, calls = queue_of(*[([3], 1)] * (MOST_CALLS + 10))
    assert [part.call for part in queue.take(10_000).parts] == calls[:MOST_CALLS]
    assert [part.call for part in queue.take(10_000).parts] == calls[MOST_CALLS:]


def test_the_turns_are_kept_when_there_are_more_calls_than_are_asked():
    queue, calls = queue_of(*[([3, 3], 1)] * (MOST_CALLS + 2))
    queue.take(3)  # the first has its turn and goes to the end
    begun = [queue.take(3).parts[0].call for _ in calls]
    assert begun == [*calls[1:], calls[0]]


def test_clear_takes_everything_out_and_names_the_chunks():
    queue, (first, second) = queue_of(([12] * 5, 2), ([13] * 5, 9))
    queue.add(first, make_chunk([7]))
    queue.take(24)
    left = [*second.chunks, *first.chunks]  # in turn
    assert queue.clear() == left
    assert len(left) == 3
    assert queue.size == 0
    assert queue.take(99).parts == []
    assert [chunk.size for chunk in left] == [0, 0, 0]


# ---- shards


def test_the_pairs_of_a_shard_are_those_of_its_parts_in_order_and_their_logits_come_to_their_places():
    queue, (first, second) = queue_of(([3, 9, 6], 9), ([5, 8], 9))
    chunks = [first.chunks[0], second.chunks[0]]
    shard = queue.take(99)
    order = [(0, 1), (0, 2), (0, 0), (1, 1), (1, 0)]  # by chunk and length
    assert numbers_of(shard.tokens) == [numbers_of(chunks[i].tokens)[j] for i, j in order]
    assert not any(is_done(chunk) for chunk in chunks)
    shard.deliver(np.arange(5, dtype=np.float32)[:, None])
    assert [chunk.logits[:, 0].tolist() for chunk in chunks] == [[2, 0, 1], [4, 3]]
    assert all(is_done(chunk) for chunk in chunks)


def test_a_chunk_is_done_with_the_last_of_its_shards():
    queue, (call,) = queue_of(([12] * 5, 2))
    chunk = call.chunks[0]
    shards = [queue.take(99) for _ in range(3)]
    for number, shard in enumerate(shards[::-1]):
        assert not is_done(chunk)
        shard.deliver(np.full((len(shard.tokens), 1), number, np.float32))
    assert is_done(chunk)
    assert sorted(chunk.logits[:, 0].tolist()) == [0, 1, 1, 2, 2]


def test_a_shard_is_split_by_calls():
    queue, (first, second) = queue_of(([12] * 2, 9), ([13], 9))
    queue.add(first, make_chunk([7] * 3))
    whole = queue.take(99)
    parts = whole.split()
    assert [[part.call for part in shard.parts] for shard in parts] == [[first, first], [second]]
    assert [sizes(shard) for shard in parts] == [[2, 3], [1]]
    assert sorted(numbers_of(whole.tokens)) == sorted(numbers_of(parts[0].tokens) + numbers_of(parts[1].tokens))
    assert [len(shard.split()) for shard in parts] == [1, 1]


def test_the_tokens_of_calls_that_end_with_a_shard_are_counted_unless_it_is_of_one_call():
    queue, _ = queue_of(([12] * 2, 9), ([13] * 2, 1), ([14], 9))
    assert queue.take(99).size_of_ended_calls() == 2 * 12 + 14  # the second has one more pair
    assert queue.take(99).size_of_ended_calls() == 0  # which is nobody else's shard


def test_who_waits_waits_for_the_last_result():
    queue, (call,) = queue_of(([12, 12], 1))
    chunk, first, last = call.chunks[0], queue.take(24), queue.take(24)
    first.deliver(np.ones((1, 1)))
    threading.Timer(0.3, last.deliver, [np.ones((1, 1))]).start()
    begun = time.monotonic()
    chunk.wait()
    assert chunk.logits.tolist() == [[1], [1]]
    assert time.monotonic() - begun < 5  # and no longer


def test_an_error_of_a_shard_ends_the_waiting_for_each_of_its_chunks_and_the_first_error_stays():
    queue, (first, second, third) = queue_of(([12], 9), ([12], 9), ([12], 9))
    chunks = [call.chunks[0] for call in (first, second, third)]
    shard = queue.take(24)
    shard.fail(KeyError("the cause"))
    shard.fail(ValueError("what came of it"))
    for chunk in chunks[:2]:
        with pytest.raises(KeyError, match="the cause"):
            chunk.wait()
    assert not is_done(chunks[2])


def test_who_is_notified_is_told_once_at_the_end():
    queue, (call,) = queue_of(([12, 12], 1))
    chunk, told = call.chunks[0], []
    shards = [queue.take(24), queue.take(24)]
    chunk.call_at_end(lambda: told.append("end"))
    shards[0].deliver(np.zeros((1, 1)))
    assert told == []
    shards[1].deliver(np.zeros((1, 1)))
    shards[1].fail(KeyError())
    assert told == ["end"]
    chunk.call_at_end(lambda: told.append("late"))
    assert told == ["end", "late"]


def test_an_event_loop_that_is_closed_is_no_error():
    def call_in_closed_loop():
        raise RuntimeError("Event loop is closed")

    queue, (call,) = queue_of(([12], 9))
    chunk = call.chunks[0]
    chunk.call_at_end(call_in_closed_loop)
    queue.take(24).deliver(np.zeros((1, 1)))
    assert is_done(chunk)


def test_a_second_error_while_the_first_is_being_told_changes_nothing():
    queue, (call,) = queue_of(([12, 12], 1))
    chunk = call.chunks[0]
    shards = [queue.take(24), queue.take(24)]
    shards[0].fail(KeyError("the cause"))
    chunk._running.acquire()  # as who waits does for a moment
    shards[1].fail(ValueError("what came of it"))
    chunk._running.release()
    with pytest.raises(KeyError, match="the cause"):
        chunk.wait()


def test_results_that_come_after_an_error_change_nothing():
    queue, (call,) = queue_of(([12, 12], 1))
    chunk = call.chunks[0]
    shards = [queue.take(24), queue.take(24)]
    shards[0].fail(KeyError("the cause"))
    shards[1].deliver(np.zeros((1, 1)))
    with pytest.raises(KeyError, match="the cause"):
        chunk.wait()


# ---- how much the next shard should have


@pytest.mark.parametrize(
    ("waiting", "threads", "largest", "budget"),
    [
        (0, 4, 384, SMALLEST_SHARD),
        (SMALLEST_SHARD * 4, 4, 384, SMALLEST_SHARD),
        (800, 4, 384, 200),  # one for each thread
        (803, 4, 384, 200),
        (384 * 4 + 1000, 4, 384, 384),  # none of more than the backend likes
        (100, 4, 48, 48),  # of which SMALLEST_SHARD may be more
        (100_000, 1, 16_384, 16_384),
    ],
)
def test_the_fewer_tokens_wait_the_smaller_is_a_shard(waiting, threads, largest, budget):
    assert budget_of(waiting, threads, largest) == budget


@given(st.integers(0, 10**6), st.integers(1, 64), st.integers(1, 20_000))
def test_a_budget_is_at_least_one_token_and_at_most_a_full_shard(waiting, threads, largest):
    assert 1 <= budget_of(waiting, threads, largest) <= largest
