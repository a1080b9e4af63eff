"""`apredict` and `arank`: the same scores without holding up the event loop, and each caller by itself."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numbert import CrossEncoder, InputError, InputTypeError, NonFiniteScoreError
from numbert.engine import workers
from recording_backend import (
    NumberTokenizer,
    RecordingBackend,
    ids_of,
    make_scorer,
    take_place_of_reference,
    tell_apart,
    wait_until,
    wait_until_idle,
)

pytestmark = pytest.mark.usefixtures("crew_of_four")
DOCUMENTS = [f"about {number} people live there " * (1 + number % 9) for number in range(100)]
PAIRS = [("how many people", document) for document in DOCUMENTS]


def logits_of(scorer, pairs, batch_size=32):
    return scorer.alogits(pairs, 64, batch_size, False)


def expected(pairs):
    return [tell_apart(ids_of(pair)) for pair in pairs]


def numbered(count, first=3):
    return [("7", str(first + number)) for number in range(count)]


def wait_in_loop(event: threading.Event):
    return asyncio.get_running_loop().run_in_executor(None, event.wait, 10)


# ---- the same scores


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        (PAIRS, {}),
        (PAIRS[0], {}),
        ([], {}),
        (PAIRS, {"batch_size": 3, "activation_fn": "identity"}),
        (PAIRS[:5], {"convert_to_numpy": False, "prompt": "query: "}),
    ],
)
def test_apredict_equals_predict_bit_for_bit(model, inputs, options):
    scores, wanted = asyncio.run(model.apredict(inputs, **options)), model.predict(inputs, **options)
    assert type(scores) is type(wanted)
    assert np.array(scores).dtype == np.array(wanted).dtype
    assert np.array(scores).tobytes() == np.array(wanted).tobytes()


@pytest.mark.parametrize("options", [{}, {"top_k": 3, "return_documents": True}, {"long_documents": "windows"}])
def test_arank_equals_rank(model, options):
    documents = [*DOCUMENTS[:30], "word " * 700]
    assert asyncio.run(model.arank("how many", documents, **options)) == model.rank("how many", documents, **options)


def test_sixty_four_calls_at_once_get_their_own_scores(model):
    requests = [PAIRS[start : start + 1 + start % 20] for start in range(64)]

    async def ask_all():
        return await asyncio.gather(*(model.apredict(pairs) for pairs in requests))

    results = asyncio.run(ask_all())
    scores = model.predict(PAIRS)
    for start, result in enumerate(results):
        assert result.tobytes() == scores[start : start + 1 + start % 20].tobytes()


def test_an_executor_of_one_thread_is_enough_for_many_calls(model):
    async def ask_all():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        return await asyncio.gather(*(model.apredict(PAIRS) for _ in range(20)))

    scores = model.predict(PAIRS)
    assert all(result.tobytes() == scores.tobytes() for result in asyncio.run(ask_all()))


def test_one_model_serves_loops_and_callers_that_wait_at_once(model):
    scores = model.predict(PAIRS)
    with ThreadPoolExecutor(8) as callers:
        waiting = [callers.submit(model.predict, PAIRS) for _ in range(4)]
        looping = [callers.submit(lambda: asyncio.run(model.apredict(PAIRS))) for _ in range(4)]
    assert all(call.result().tobytes() == scores.tobytes() for call in waiting + looping)


# ---- each caller by itself


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.apredict([("a", 5)]), "inputs[0][1]"),
        (lambda model: model.apredict(PAIRS, batch_size=0), "batch_size"),
        (lambda model: model.arank("a", ["b"], long_documents="ignore"), "long_documents"),
    ],
)
def test_what_is_wrong_is_named_as_elsewhere(model, call, message):
    async def ask_both():
        return await asyncio.gather(call(model), model.apredict(PAIRS), return_exceptions=True)

    error, scores = asyncio.run(ask_both())
    assert isinstance(error, InputError | InputTypeError)
    assert message in str(error)
    assert scores.tobytes() == model.predict(PAIRS).tobytes()


def test_an_error_reaches_only_its_awaiter(crew_of_four):
    backend = RecordingBackend(lambda ids: [float("nan")] if 13 in ids else tell_apart(ids))
    scorer = make_scorer(backend, num_threads=4)
    requests = [numbered(1, first) for first in range(3, 40)]
    requests[20] = [("7", "1000")]  # of which there is no row

    async def ask_all():
        return await asyncio.gather(*(logits_of(scorer, pairs) for pairs in requests), return_exceptions=True)

    results = asyncio.run(ask_all())
    for number, (pairs, result) in enumerate(zip(requests, results, strict=True)):
        if number == 10:
            assert isinstance(result, NonFiniteScoreError)
            assert str(result).startswith("pair 0 ('7', '13')")
        elif number == 20:
            assert isinstance(result, InputError)
        else:
            assert result.tolist() == expected(pairs)
    wait_until_idle(crew_of_four)


def held_scorer(crew):
    """A scorer whose four threads are all busy until the event is set."""
    go_on, busy = threading.Event(), []

    def hold_up(pairs, member):
        busy.append(pairs)
        assert go_on.wait(10)

    backend = RecordingBackend(before_head=hold_up)
    scorer = make_scorer(backend, num_threads=4)
    return scorer, backend, go_on, busy


@pytest.mark.parametrize("count", [5, 700])
def test_a_cancelled_call_takes_its_pairs_out_of_the_queue_and_the_others_get_theirs(crew_of_four, count):
    scorer, backend, go_on, busy = held_scorer(crew_of_four)

    async def ask_and_cancel():
        held = []
        for pair in numbered(4):  # together they would be one shard
            held.append(asyncio.create_task(logits_of(scorer, [pair])))
            while len(busy) < len(held):
                await asyncio.sleep(0.001)
        cancelled = asyncio.create_task(logits_of(scorer, numbered(count, 100)))
        while not scorer.runner.lane.queue.size:
            await asyncio.sleep(0.001)
        other = asyncio.create_task(logits_of(scorer, numbered(3, 50)))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        go_on.set()
        return [await task for task in held], await other

    held, other = asyncio.run(asyncio.wait_for(ask_and_cancel(), 10))
    wait_until_idle(crew_of_four)
    assert [result.tolist() for result in held] == [expected([pair]) for pair in numbered(4)]
    assert other.tolist() == expected(numbered(3, 50))
    assert all(max(pair) < 100 for pair in backend.pairs)  # none of the cancelled ones was computed
    assert scorer.runner.lane.queue.size == 0


def test_a_call_that_is_cancelled_while_it_is_tokenized_leaves_nothing_behind(crew_of_four):
    begun, go_on = threading.Event(), threading.Event()

    class HeldTokenizer(NumberTokenizer):
        def encode(self, texts, on_one_thread=False):
            begun.set()
            assert go_on.wait(10)
            return super().encode(texts, on_one_thread)

    backend = RecordingBackend()
    scorer = make_scorer(backend, num_threads=4, tokenizer=HeldTokenizer())

    async def ask_and_cancel():
        task = asyncio.create_task(logits_of(scorer, numbered(5)))
        await wait_in_loop(begun)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(ask_and_cancel())
    wait_until_idle(crew_of_four)
    wait_until(lambda: scorer.runner.lane.queue.size == 0)
    assert asyncio.run(logits_of(scorer, numbered(5))).tolist() == expected(numbered(5))


def test_pairs_of_a_call_that_was_cancelled_while_they_were_tokenized_do_not_wait(crew_of_four):
    computing, finish, tokenizing, go_on = (threading.Event() for _ in range(4))

    class HeldTokenizer(NumberTokenizer):
        def encode(self, texts, on_one_thread=False):
            tokenizing.set()
            assert go_on.wait(10)
            return super().encode(texts, on_one_thread)

    def hold_up(pairs, member):
        computing.set()
        assert finish.wait(10)

    scorer = make_scorer(RecordingBackend(before_head=hold_up), num_threads=1, tokenizer=HeldTokenizer())

    async def ask_and_cancel():
        go_on.set()
        held = asyncio.create_task(logits_of(scorer, numbered(1)))
        await wait_in_loop(computing)
        go_on.clear()
        tokenizing.clear()
        cancelled = asyncio.create_task(logits_of(scorer, numbered(5, 100)))
        await wait_in_loop(tokenizing)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        go_on.set()
        await asyncio.get_running_loop().shutdown_default_executor()  # who tokenized has ended
        left = scorer.runner.lane.queue.size
        finish.set()
        return left, await held

    left, held = asyncio.run(ask_and_cancel())
    assert left == 0
    assert held.tolist() == expected(numbered(1))


def test_a_call_that_takes_too_long_can_be_given_up(crew_of_four):
    scorer, _, go_on, _ = held_scorer(crew_of_four)

    async def ask():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(logits_of(scorer, numbered(5)), 0.02)
        go_on.set()
        result = await logits_of(scorer, numbered(5))
        wait_until_idle(crew_of_four)
        await asyncio.sleep(0)  # who gave up is told as well
        return result, complaints

    result, complaints = asyncio.run(ask())
    assert result.tolist() == expected(numbered(5))
    assert complaints == []


# ---- the event loop


def test_the_event_loop_goes_on_while_a_long_call_is_tokenized_and_computed(crew_of_four):
    ticks, go_on = 0, threading.Event()

    class HeldTokenizer(NumberTokenizer):
        def encode(self, texts, on_one_thread=False):
            assert go_on.wait(10)
            return super().encode(texts, on_one_thread)

    computing = threading.Event()

    def hold_up(pairs, member):
        computing.set()
        assert go_on.wait(10)

    scorer = make_scorer(RecordingBackend(before_head=hold_up), num_threads=4, tokenizer=HeldTokenizer())

    async def count_ticks(until):
        nonlocal ticks
        while not until():
            ticks += 1
            await asyncio.sleep(0)

    async def ask():
        task = asyncio.create_task(logits_of(scorer, numbered(300)))
        await count_ticks(lambda: ticks >= 1000)  # while the tokenizer waits for the loop
        assert not task.done()
        go_on.set()
        await wait_in_loop(computing)
        go_on.clear()
        await count_ticks(lambda: ticks >= 2000)  # while the threads do
        go_on.set()
        return await task

    assert asyncio.run(ask()).tolist() == expected(numbered(300))


def test_the_loops_thread_computes_nothing(monkeypatch):
    threads = []
    backend = RecordingBackend(before_head=lambda pairs, member: threads.append(threading.current_thread()))
    take_place_of_reference(monkeypatch, backend)
    model = CrossEncoder(backend="reference", num_threads=2)
    asyncio.run(model.apredict(PAIRS[0]))
    assert threads
    assert all(thread in workers.crew()._threads for thread in threads)
