"""What a scorer does with pairs: how often each is computed, in what order, what is refused, what an error leaves."""

import copy
import dataclasses
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbert import BackendError, CrossEncoder, InputError, NonFiniteScoreError
from numbert.engine import scorer as scorer_module
from numbert.engine import tokenization
from numbert.engine.scorer import CHUNK, FIRST_CHUNK
from recording_backend import (
    SPEC,
    TEMPLATE,
    NumberTokenizer,
    RecordingBackend,
    ids_of,
    make_scorer,
    take_place_of_reference,
    tell_apart,
    wait_until_idle,
)

TEXT = st.lists(st.integers(3, 999), max_size=25).map(lambda ids: " ".join(map(str, ids)))
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=30)
pytestmark = pytest.mark.usefixtures("crew_of_four")
LONGEST = SPEC.max_positions


def numbered(count: int, first: int = 3) -> list[tuple[str, str]]:
    """So many different pairs, of different lengths."""
    return [("7", " ".join([str(first + i)] * (1 + i % 5))) for i in range(count)]


def logits_of(scorer, pairs, *, batch_size=32, max_length=LONGEST, windows=False, on_progress=lambda count: None):
    return scorer.logits(pairs, max_length, batch_size, windows, on_progress)


def expected(pairs) -> list[list[float]]:
    return [tell_apart(ids_of(pair)) for pair in pairs]


def both_ways(test):
    """Run a test on shards that one thread computes each, and on one that two threads share."""
    return pytest.mark.parametrize(("num_threads", "shared"), [(1, False), (2, True)], ids=["alone", "team"])(test)


# ---- every pair gets its own logits, and is computed once


@given(PAIRS, st.integers(1, 3), st.integers(1, 9), st.sampled_from([16, 384]), st.booleans(), st.data())
def test_each_pair_gets_its_logits_and_is_computed_once(pairs, threads, batch_size, largest, share, data):
    pairs += data.draw(st.lists(st.sampled_from(pairs), max_size=10)) if pairs else []
    backend = RecordingBackend(largest_shard=largest, shares_shards=share)
    logits = logits_of(make_scorer(backend, num_threads=threads), pairs, batch_size=batch_size)
    assert logits.shape == (len(pairs), 1)
    assert logits.tolist() == expected(pairs)
    assert sorted(backend.pairs) == sorted(map(ids_of, set(pairs)))
    assert all(len(shard) <= batch_size for shard in backend.shards)


def test_identical_pairs_far_from_each_other_are_computed_once_too():
    backend = RecordingBackend()
    pairs = numbered(CHUNK + 100)
    logits = logits_of(make_scorer(backend), pairs + pairs[::-1])
    assert logits.tolist() == expected(pairs + pairs[::-1])
    assert len(backend.pairs) == len(pairs)


def test_a_pair_and_its_reverse_are_two():
    backend = RecordingBackend()
    assert logits_of(make_scorer(backend), [("5", "6"), ("6", "5")]).tolist() == expected([("5", "6"), ("6", "5")])
    assert len(backend.pairs) == 2


def test_the_longest_shard_is_computed_first():
    backend = RecordingBackend(largest_shard=24)
    logits_of(make_scorer(backend), numbered(60))
    tokens = [max(map(len, shard)) for shard in backend.shards]
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[0] > tokens[-1]


@pytest.mark.parametrize(("dtype", "labels"), [("float32", 1), ("float64", 1), ("float32", 3)])
def test_shape_and_dtype_of_logits(dtype, labels):
    backend = RecordingBackend(lambda ids: [ids[1] + 1 / 3] * labels)
    scorer = make_scorer(backend, spec=dataclasses.replace(SPEC, num_labels=labels), dtype=dtype)
    logits = logits_of(scorer, [("5", "6"), ("7", "8")])
    assert logits.dtype == dtype
    assert logits.tolist() == np.array([[5 + 1 / 3] * labels, [7 + 1 / 3] * labels], dtype).tolist()
    assert logits_of(scorer, []).shape == (0, labels)
    assert logits_of(scorer, []).dtype == dtype
    assert set(backend.dtypes) == {dtype}


def test_what_is_known_of_the_backend_is_what_it_says():
    backend = RecordingBackend()
    backend.PEAK = "as fast as fingers"
    runner = make_scorer(backend).runner
    assert (runner.peak, runner.describe()) == (backend.PEAK, backend.describe())


# ---- which threads compute


def test_a_small_request_is_shared_by_the_threads_where_the_backend_can(crew_of_four):
    backend = RecordingBackend(shares_shards=True)
    wait_until_idle(crew_of_four)
    pairs = numbered(20)  # 140 tokens
    assert logits_of(make_scorer(backend, num_threads=3), pairs).tolist() == expected(pairs)
    assert backend.team_sizes == [3]


@pytest.mark.parametrize(("shares", "count", "batch_size"), [(False, 20, 32), (False, 20, 19), (True, 1, 32)])
def test_otherwise_a_thread_computes_each_shard(shares, count, batch_size):
    backend = RecordingBackend(shares_shards=shares)
    pairs = numbered(count)
    assert logits_of(make_scorer(backend, num_threads=3), pairs, batch_size=batch_size).tolist() == expected(pairs)
    assert set(backend.team_sizes) == {1}
    assert all(len(shard) <= batch_size for shard in backend.shards)


def test_shards_are_computed_side_by_side():
    meeting = threading.Barrier(3, timeout=10)
    backend = RecordingBackend(before_head=lambda pairs, member: meeting.wait())
    pairs = numbered(12)
    assert logits_of(make_scorer(backend, num_threads=3), pairs, batch_size=4).tolist() == expected(pairs)
    assert len(backend.shards) == 3


@pytest.mark.parametrize("shares", [False, True])
def test_many_callers_get_their_own_logits(shares):
    # The backend fails when a workspace is lent to two callers at once.
    scorer = make_scorer(RecordingBackend(shares_shards=shares, largest_shard=48), num_threads=2)
    requests = [numbered(count, first) for first, count in enumerate([1, 20, 90] * 8, 3)]
    with ThreadPoolExecutor(8) as callers:
        results = list(callers.map(lambda pairs: logits_of(scorer, pairs).tolist(), requests))
    assert results == [expected(pairs) for pairs in requests]


def test_workspaces_are_used_again(crew_of_four):
    made = []

    class CountingBackend(RecordingBackend):
        def make_team(self, size):
            made.append(size)
            return super().make_team(size)

    scorer = make_scorer(CountingBackend(shares_shards=True), num_threads=2)
    for _ in range(5):
        wait_until_idle(crew_of_four)
        logits_of(scorer, numbered(20))
        logits_of(scorer, numbered(1))
    assert sorted(made) == [1, 2]


# ---- chunks and progress


@pytest.mark.parametrize("count", [0, 1, FIRST_CHUNK - 1, FIRST_CHUNK, FIRST_CHUNK + CHUNK + 1, 2 * CHUNK])
def test_few_pairs_are_tokenized_at_once_whatever_the_length_of_the_input(count):
    backend, tokenizer = RecordingBackend(), NumberTokenizer()
    told: list[tuple[int, int]] = []
    pairs = different(count)
    scorer = make_scorer(backend, tokenizer=tokenizer, spec=LARGE_VOCABULARY)
    logits = logits_of(scorer, pairs, on_progress=lambda more: told.append((more, len(backend.pairs))))
    assert logits.tolist() == expected(pairs)
    assert tokenizer.most_texts <= 2 * CHUNK
    done = np.cumsum([more for more, _ in told]).tolist()
    assert done[-1] == count
    assert all(computed >= said for (_, computed), said in zip(told, done, strict=True))
    chunks = [min(FIRST_CHUNK, count), *[CHUNK] * ((count - FIRST_CHUNK) // CHUNK)]
    assert [more for more, _ in told if more] == [size for size in [*chunks, count - sum(chunks)] if size]


def test_a_call_is_never_more_than_two_chunks_ahead_of_what_is_computed():
    tokenized = computed = most = 0

    class CountingTokenizer(NumberTokenizer):
        def encode(self, texts, on_one_thread=False):
            nonlocal tokenized, most
            tokenized += len(texts)
            most = max(most, tokenized - computed)
            return super().encode(texts, on_one_thread)

    def count(more):
        nonlocal computed
        computed += more

    pairs = [(text, text) for _, text in different(4 * CHUNK)]
    scorer = make_scorer(RecordingBackend(), tokenizer=CountingTokenizer(), spec=LARGE_VOCABULARY)
    assert logits_of(scorer, pairs, on_progress=count).tolist() == expected(pairs)
    assert tokenized == computed == len(pairs)
    assert most <= 2 * CHUNK


def test_the_next_chunk_is_tokenized_before_the_first_is_waited_for():
    tokenizer, tokenized = NumberTokenizer(), []
    encode = tokenizer.encode

    def count(texts, on_one_thread=False):
        tokenized.extend(texts)
        return encode(texts)

    tokenizer.encode = count
    told = []
    scorer = make_scorer(RecordingBackend(), tokenizer=tokenizer, spec=LARGE_VOCABULARY)
    pairs = [(text, text) for _, text in different(FIRST_CHUNK + 2 * CHUNK)]
    logits_of(scorer, pairs, on_progress=lambda more: told.append(len(tokenized)))
    assert told == [FIRST_CHUNK + CHUNK, *[FIRST_CHUNK + 2 * CHUNK] * 3]  # the last are those that were computed once


def test_the_caller_does_not_compute_the_first_chunk_of_many():
    # While it computes, it tokenizes nothing.
    threads = set()
    backend = RecordingBackend(before_head=lambda pairs, member: threads.add(threading.current_thread()))
    logits_of(make_scorer(backend, num_threads=2), numbered(FIRST_CHUNK + 1))
    assert threads
    assert threading.current_thread() not in threads


def different(count):
    """So many pairs with different passages."""
    return [(str(i % 997), str(i)) for i in range(count)]


LARGE_VOCABULARY = dataclasses.replace(SPEC, vocab_size=10_000)


@given(PAIRS)
def test_progress_adds_up_to_the_number_of_pairs(pairs):
    told: list[int] = []
    logits_of(make_scorer(RecordingBackend()), pairs + pairs[:5], on_progress=told.append)
    assert sum(told) == len(pairs + pairs[:5])
    assert min(told) >= 0


# ---- long passages

LONG_PASSAGE = " ".join(map(str, range(100, 150)))  # 54 tokens with the query and the special ones


def test_a_long_pair_is_truncated_to_max_length():
    backend = RecordingBackend()
    logits_of(make_scorer(backend), [("9", LONG_PASSAGE), ("9", "8")], max_length=20)
    assert sorted(backend.pairs) == [(1, 9, 2, 8, 2), (1, 9, 2, *range(100, 116), 2)]


@pytest.mark.parametrize("best", [100, 124, 149], ids=["first", "middle", "last"])
def test_with_windows_the_largest_logit_counts_for_each_label_and_all_is_read(best):
    backend = RecordingBackend(lambda ids: [float(best in ids), -float(ids[-2]), float(len(ids))])
    scorer = make_scorer(backend, spec=dataclasses.replace(SPEC, num_labels=3))
    pairs = [("9", "8"), ("9", LONG_PASSAGE), ("9", "7 6")]
    logits = logits_of(scorer, pairs, max_length=20, windows=True)
    assert logits.tolist() == [[0, -8, 5], [1, -115, 20], [0, -6, 6]]
    assert {number for pair in backend.pairs for number in pair} >= set(range(100, 150))
    assert logits_of(scorer, pairs, max_length=20)[1].tolist() == [float(best == 100), -115, 20]


@given(st.lists(st.tuples(TEXT, TEXT), max_size=8), st.integers(8, 20), st.integers(1, 3))
def test_windows_of_one_pair_never_count_for_another(pairs, max_length, num_threads):
    together = logits_of(make_scorer(RecordingBackend()), pairs, max_length=max_length, windows=True)
    scorer = make_scorer(RecordingBackend(shares_shards=True), num_threads=num_threads)
    alone = [logits_of(scorer, [pair], max_length=max_length, windows=True)[0].tolist() for pair in pairs]
    assert together.tolist() == alone


def test_find_long_names_the_pairs_that_are_cut():
    scorer = make_scorer(RecordingBackend())
    pairs = [("9", "8 " * count) for count in (1, 15, 16, 17, 40)]
    assert scorer.find_long(pairs, 20) == [3, 4]  # 16 and the query and three special tokens are 20


def test_find_long_holds_the_ids_of_a_chunk_at_most(monkeypatch):
    sizes = []

    def tokenize(pairs, *rest, **settings):
        sizes.append(len(pairs))
        return tokenization.tokenize(pairs, *rest)

    monkeypatch.setattr(scorer_module, "CHUNK", 2)
    monkeypatch.setattr(scorer_module, "tokenize", tokenize)
    pairs = [("9", "8 " * count) for count in (1, 17, 16, 15, 40)]
    assert make_scorer(RecordingBackend()).find_long(pairs, 20) == [1, 4]
    assert sizes == [2, 2, 1]


# ---- what a kernel may not be given

TEXTS_AS_LONG_AS_POSSIBLE = ("5 " * 30, "6 " * 31)  # 64 tokens
WRONG = [
    ("token id: found -1, the model has rows for 0 to 999", {"pair": ("-1 5", "6")}),
    ("token id: found 1000, the model has rows for 0 to 999", {"pair": ("5", "6 1000")}),
    ("token type: found -1, the model has rows for 0 to 1", {"types": (0, 0, 0, -1, 0)}),
    ("token type: found 2, the model has rows for 0 to 1", {"types": (0, 0, 0, 1, 2)}),
    ("token type: found 1, the model has rows for 0 to 0", {"num_token_types": 0}),
    ("token type: found 1, the model has rows for 0 to 0", {"num_token_types": 1}),
    ("position: found -1, the model has rows for 0 to 63", {"first_position": -1}),
    ("position: found 64, the model has rows for 0 to 63", {"first_position": 1}),
]
ALLOWED = [
    {"pair": ("0 5", "6 999")},
    {"types": (0, 0, 0, 1, 1)},
    {"num_token_types": 0, "types": (0, 0, 0, 0, 0)},
    {"first_position": 0},
]


def scorer_and_pairs(backend, num_threads, pair=TEXTS_AS_LONG_AS_POSSIBLE, types=TEMPLATE.types, **spec):
    """A scorer of a model with these sizes, and the pair in question among others that make a request for a team."""
    tokenizer = NumberTokenizer(TEMPLATE._replace(types=types))
    scorer = make_scorer(backend, num_threads=num_threads, spec=dataclasses.replace(SPEC, **spec), tokenizer=tokenizer)
    return scorer, [*numbered(8), pair]


@both_ways
@pytest.mark.parametrize(("message", "changes"), WRONG, ids=[f"{m.split(',')[0]}, {next(iter(c))}" for m, c in WRONG])
def test_what_would_leave_a_table_is_refused_before_any_kernel_runs(num_threads, shared, message, changes):
    backend = RecordingBackend(shares_shards=shared)
    scorer, pairs = scorer_and_pairs(backend, num_threads, **changes)
    with pytest.raises(InputError, match=f"^{message}; the tokenizer is of another model$"):
        logits_of(scorer, pairs)
    for lookup in backend.lookups:  # other shards may have been computed, but nothing was looked up that is not there
        for values, limit in zip(lookup, (1000, max(scorer.spec.num_token_types, 1), 64), strict=True):
            assert 0 <= values.min() <= values.max() < limit


@both_ways
@pytest.mark.parametrize("changes", ALLOWED, ids=lambda changes: ", ".join(changes))
def test_what_lies_at_the_edge_of_a_table_is_computed(num_threads, shared, changes, crew_of_four):
    wait_until_idle(crew_of_four)
    backend = RecordingBackend(shares_shards=shared)
    scorer, pairs = scorer_and_pairs(backend, num_threads, **changes)
    assert logits_of(scorer, pairs).tolist() == expected(pairs)
    assert set(backend.team_sizes) == {num_threads}


@both_ways
def test_a_scorer_is_usable_after_a_refusal(num_threads, shared):
    backend = RecordingBackend(shares_shards=shared)
    scorer, pairs = scorer_and_pairs(backend, num_threads, pair=("1000", "5"))
    for _ in range(3):
        with pytest.raises(InputError, match="found 1000"):
            logits_of(scorer, pairs)
        assert logits_of(scorer, pairs[:-1]).tolist() == expected(pairs[:-1])


def test_after_an_error_no_more_pairs_of_the_call_are_computed(crew_of_four):
    begun, go_on = [], threading.Event()

    def fail_once(pairs, member):
        begun.append(pairs)
        if len(begun) == 1:
            raise MemoryError("no room")
        assert go_on.wait(10)

    scorer = make_scorer(RecordingBackend(before_head=fail_once))
    with pytest.raises(MemoryError, match="no room"):
        logits_of(scorer, numbered(50), batch_size=5)
    go_on.set()
    wait_until_idle(crew_of_four)
    assert len(begun) <= 2  # the next may have begun before the caller was told


# ---- logits that are no numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("labels", [1, 2])
def test_a_logit_that_is_not_finite_names_the_first_pair_that_has_one(value, labels):
    backend = RecordingBackend(lambda ids: [0.0] * (labels - 1) + [value if 13 in ids else 1.0])
    scorer = make_scorer(backend, spec=dataclasses.replace(SPEC, num_labels=labels))
    pairs = [("7", "7"), ("7", "7"), ("7", "8 " * 30), ("5", "13"), ("13", "6 " * 40), ("5", "13")]
    found = [0.0] * (labels - 1) + [value]
    with pytest.raises(NonFiniteScoreError) as caught:
        logits_of(scorer, pairs)
    assert str(caught.value).startswith(f"pair 3 ('5', '13'): found logits {found}, expected finite numbers; ")
    assert logits_of(scorer, pairs[:3]).tolist() == [[0.0] * (labels - 1) + [1.0]] * 3


def test_a_text_is_shortened_in_the_message():
    scorer = make_scorer(RecordingBackend(lambda ids: [float("nan")]))
    with pytest.raises(NonFiniteScoreError) as caught:
        logits_of(scorer, [("7 " * 5000, "8")])
    assert len(str(caught.value)) < 300


# ---- errors


class DeliberateError(Exception):
    """What no part of numbert raises."""


def test_an_error_in_one_shard_reaches_the_caller_and_the_scorer_stays_usable():
    def fail(pairs, member):
        if any(13 in pair for pair in pairs):
            raise DeliberateError("on purpose")

    backend = RecordingBackend(largest_shard=24, before_head=fail)
    scorer = make_scorer(backend, num_threads=2)
    good = numbered(40, 20)
    for _ in range(5):
        with pytest.raises(DeliberateError, match="on purpose"):
            logits_of(scorer, [*good[:20], ("13", "5"), *good[20:]])
        assert logits_of(scorer, good).tolist() == expected(good)


def test_after_an_error_shards_that_have_not_begun_are_dropped():
    def fail_at_first(pairs, member):
        if not backend.shards:
            backend.shards.append(pairs)
            raise DeliberateError("on purpose")
        time.sleep(0.01)  # the thread takes some more shards until the caller has woken up

    backend = RecordingBackend(largest_shard=9, before_head=fail_at_first)
    scorer = make_scorer(backend)
    with pytest.raises(DeliberateError, match="on purpose"):
        logits_of(scorer, numbered(400))
    logits_of(scorer, numbered(1))  # its shard is computed after all that were queued before
    assert len(backend.lookups) < 100  # of more than 200, which take two seconds


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_of_a_member_of_a_team_is_the_one_that_is_raised(failing, crew_of_four):
    def fail(pairs, member):
        if member == failing and armed:
            raise DeliberateError("on purpose")

    armed = [True]
    backend = RecordingBackend(shares_shards=True, before_head=fail)
    scorer = make_scorer(backend, num_threads=3)
    pairs = numbered(20)
    for _ in range(3):
        wait_until_idle(crew_of_four)
        with pytest.raises(DeliberateError, match="on purpose") as caught:
            logits_of(scorer, pairs)
        assert caught.value.__cause__ is None  # members that waited failed too, which says nothing
        assert caught.value.__context__ is None
    armed.clear()
    wait_until_idle(crew_of_four)
    assert logits_of(scorer, pairs).tolist() == expected(pairs)
    assert backend.team_sizes == [3]


# ---- copies


@pytest.fixture
def backend(monkeypatch):
    """A recording backend that a copy in this process finds again."""
    recording = RecordingBackend(shares_shards=True)
    take_place_of_reference(monkeypatch, recording)
    return recording


@pytest.mark.parametrize(
    "make_copy", [copy.deepcopy, lambda scorer: pickle.loads(pickle.dumps(scorer))], ids=["deepcopy", "pickle"]
)
def test_a_copy_computes_the_same_with_workspaces_of_its_own(backend, make_copy):
    scorer, pairs = make_scorer(backend, num_threads=3, dtype="float64"), numbered(20)
    assert logits_of(scorer, pairs).tolist() == expected(pairs)
    packed = len(backend.dtypes)
    twin = make_copy(scorer)
    with ThreadPoolExecutor(4) as callers:  # the backend fails if one finds a workspace of the other
        results = list(callers.map(lambda one: logits_of(one, pairs), [scorer, twin] * 20))
    assert [result.tolist() for result in results] == [expected(pairs)] * 40
    assert twin.runner.lane is not scorer.runner.lane
    assert twin.runner.num_threads == 3
    assert twin.runner.backend == "reference"
    assert results[1].dtype == np.float64
    assert len(backend.dtypes) == packed  # nothing was packed again


def test_a_deep_copy_shares_the_weights(model):
    scorer, twin = (one._scorer for one in (model, copy.deepcopy(model)))
    arrays = [[id(array) for array in _arrays(one.runner.encoder)] for one in (scorer, twin)]
    assert arrays[0] == arrays[1]
    assert len(arrays[0]) > 30


def _arrays(value):
    if isinstance(value, np.ndarray):
        return [value]
    return [array for part in value for array in _arrays(part)] if isinstance(value, tuple) else []


def test_a_pickle_for_other_instructions_is_refused(backend, monkeypatch):
    content = pickle.dumps(make_scorer(backend))
    monkeypatch.setattr(backend, "describe", lambda: {"instruction_set": "abacus", "kernel_cache": "none"})
    with pytest.raises(BackendError, match="packed for fingers, this process computes with abacus; load"):
        pickle.loads(content)


def test_a_model_that_a_backend_does_not_compute_is_refused_by_name(backend, monkeypatch):
    def refuse(record, precision):
        raise NotImplementedError("a head of clay")

    monkeypatch.setattr(backend, "pack_head", refuse)
    with pytest.raises(BackendError, match="backend 'reference': found a model that needs a head of clay, expected"):
        make_scorer(backend)


def test_a_model_in_gpu_memory_is_not_pickled(backend):
    backend.PICKLES = False
    scorer = make_scorer(backend)
    with pytest.raises(BackendError, match="a model in GPU memory cannot be pickled; load it"):
        pickle.dumps(scorer)


# ---- the same through what users call


def test_predict_and_rank_compute_each_distinct_pair_once(backend):
    model = CrossEncoder(backend="reference", num_threads=2)
    pairs = [("how many", "seven"), ("how many", "eight"), ("how many", "seven")]
    scores = model.predict(pairs, activation_fn="identity")
    assert scores[0] == scores[2] != scores[1]
    assert len(backend.pairs) == 2
    backend.forget()
    assert [rank["corpus_id"] for rank in model.rank("how many", ["eight"] * 4)] == [0, 1, 2, 3]
    assert len(backend.pairs) == 1


@pytest.mark.parametrize("backend_name", ["cpu", "reference"])
@pytest.mark.parametrize("words", [2, 60], ids=["alone", "team"])
def test_predict_refuses_ids_of_another_model_on_real_backends(backend_name, words):
    model = CrossEncoder(backend=backend_name, num_threads=2)
    runner = model._scorer.runner
    runner.spec = dataclasses.replace(model.spec, vocab_size=100)
    runner.lane = runner._make_lane(2)
    with pytest.raises(InputError, match=r"token id: found .* the model has rows for 0 to 99"):
        model.predict(("how many", "people " * words))
