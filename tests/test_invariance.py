"""The promise: a pair's score has the same bits alone, in any batch, in any order, with any number of threads."""

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checkpoints import GOLDENS
from hypothesis import given, settings
from hypothesis import strategies as st
from numbert import CrossEncoder
from numbert.engine.encoder import forward
from recording_backend import wait_until_idle

pytestmark = pytest.mark.usefixtures("crew_of_four")

WORDS = "a the Berlin people river 7 éclair naïve 東京 museum how many? .. -- 🙂 [SEP] supercalifragilistic".split()
TEXT = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
LONG_TEXT = st.integers(300, 700).map(lambda count: "word " * count)
PAIRS = st.lists(st.tuples(TEXT, TEXT | LONG_TEXT), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def models():
    """The embedded model with 1, 2, 3 and 8 threads."""
    return {threads: CrossEncoder(num_threads=threads) for threads in (1, 2, 3, 8)}


PRECISIONS = [{"dtype": "float32"}, {"matmul_precision": "high"}, {"dtype": "bfloat16"}, {"dtype": "int8"}]
# Attention over all tokens; distances; turned heads, windows and gates, with the first token, the mean, and modules;
# contents that meet distances, by themselves and with a convolution; layers that share weights.
KINDS = [None] + [
    GOLDENS / name
    for name in ("mpnet", "modernbert", "modernbert-mean", "modular", "deberta-v3", "deberta-v2", "albert")
]
KINDS += [GOLDENS / "jina-reranker-v1", GOLDENS / "gte-remote"]  # gates before norms behind the blocks


@pytest.fixture(scope="module")
def models_of_kind():
    """A model of each kind with 1, 2 and 3 threads, in each precision."""
    return [
        {threads: CrossEncoder(folder, num_threads=threads, **precision) for threads in (1, 2, 3)}
        for folder in KINDS
        for precision in PRECISIONS
    ]


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(7)
    lengths = rng.integers(0, 40, (60, 2)).tolist()
    return [tuple(" ".join(rng.choice(WORDS, length)) for length in pair) for pair in lengths] + [("q", "word " * 600)]


def bits(scores) -> list[int]:
    return np.asarray(scores, np.float32).reshape(-1).view(np.uint32).tolist()


@settings(max_examples=120)
@given(pairs=PAIRS, data=st.data())
def test_score_of_a_pair_depends_on_nothing_but_the_pair(models_of_kind, pairs, data):
    models = models_of_kind[data.draw(st.integers(0, len(models_of_kind) - 1))]
    alone = [bits(models[1].predict(pair)) for pair in pairs]
    order = data.draw(st.permutations(range(len(pairs))))
    threads = data.draw(st.sampled_from(list(models)))
    batch_size = data.draw(st.integers(1, 40))
    together = models[threads].predict([pairs[i] for i in order], batch_size=batch_size)
    assert [bits(row) for row in together] == [alone[i] for i in order]


def test_reference_and_its_ranking_are_invariant_in_order_too(model):
    documents = ["b c", "a b", "b c", "", "a b"]
    ranks = model.rank("a b", documents)
    ids = [rank["corpus_id"] for rank in ranks]
    assert ids.index(0) < ids.index(2)  # equal passages stay in the order of the documents
    assert ids.index(1) < ids.index(4)


def test_eight_threads_on_one_model_get_those_bits(models, pairs):
    expected = bits(models[2].predict(pairs))
    barrier = threading.Barrier(8)

    def work(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(len(pairs))
        barrier.wait()
        results = [bits(models[2].predict([pairs[i] for i in order])) for _ in range(2)]
        return all(result == [expected[i] for i in order] for result in results)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def _predict_in_child(model, pairs, results) -> None:
    results.put(bits(model.predict(pairs)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_after_predict_can_predict(models, pairs):
    expected = bits(models[3].predict(pairs))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_predict_in_child, args=(models[3], pairs, results)) for _ in range(2)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [expected, expected]
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    assert bits(models[3].predict(pairs)) == expected


def test_callers_leave_no_buffers_behind(models, pairs, crew_of_four):
    lane = models[2]._scorer.runner.lane
    for count in (1, 10, 61) * 6:
        thread = threading.Thread(target=models[2].predict, args=(pairs[:count],))
        thread.start()
        thread.join()
    wait_until_idle(crew_of_four)
    assert set(lane._teams) <= {1, 2}
    assert all(len(teams) <= 2 for teams in lane._teams.values())  # as many as compute at once


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_an_error_in_a_request_that_is_shared_reaches_the_caller(monkeypatch, backend):
    def fail(*_):
        raise MemoryError("no room")

    model = CrossEncoder(num_threads=2, backend=backend)
    monkeypatch.setattr("numbert.engine.runner.forward", fail)
    with pytest.raises(MemoryError, match="no room"):
        model.predict(("q", "word " * 100))


def test_an_error_in_one_of_the_threads_that_share_a_request_is_the_one_that_is_raised(monkeypatch):
    model, pair = CrossEncoder(num_threads=3), ("q", "word " * 100)
    expected = bits(model.predict(pair))

    def fail_on_second(encoder, batch, ops, workspace):
        if workspace.rows_of(100)[0] > 0:
            raise MemoryError("no room")
        return forward(encoder, batch, ops, workspace)

    with monkeypatch.context() as patch:
        patch.setattr("numbert.engine.runner.forward", fail_on_second)
        with pytest.raises(MemoryError, match="no room"):
            model.predict(pair)
    assert bits(model.predict(pair)) == expected
