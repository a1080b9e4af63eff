"""Many callers among cancellations, failures and forks get the same bits, and a program ends when it will."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT
from numbert import CrossEncoder
from numbert.engine.encoder import forward
from recording_backend import wait_until_idle

PAIRS = [("how many people", f"about {number} people live there " * (1 + number % 7)) for number in range(150)]
BAD = ("how many people", "unaffable " * 20)  # of which a forward pass fails, when a test wants it
needs_signals = pytest.mark.skipif(not hasattr(os, "fork"), reason="Ctrl-C is no signal here")


class DeliberateError(Exception):
    """What no part of numbert raises."""


def forked_scores(model, pairs):
    """Score pairs in a forked process that is given up when it takes too long; return the bytes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            os.write(writing, model.predict(pairs).tobytes())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as result:
        content = result.read()
    assert os.waitpid(child, 0)[1] == 0
    return content


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_sixty_four_callers_get_their_bits_among_cancellations_failures_and_forks(crew_of_four, monkeypatch):
    model = CrossEncoder(num_threads=4)
    scores = model.predict(PAIRS)
    bad_ids = model._scorer.tokenizer.encode([BAD[1]])[0][:10]

    def fail_at_bad_ones(encoder, batch, ops, workspace):
        ids = batch.ids.tolist()
        if any(ids[i : i + 10] == bad_ids for i in range(len(ids))):
            raise DeliberateError("on purpose")
        return forward(encoder, batch, ops, workspace)

    monkeypatch.setattr("numbert.engine.runner.forward", fail_at_bad_ones)

    async def give_up(pairs):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(model.apredict(pairs, batch_size=1), 0.005)

    def work(number):
        source = random.Random(number)
        for _ in range(3):
            start = source.randrange(len(PAIRS))
            pairs, wanted = PAIRS[start : start + 30], scores[start : start + 30].tobytes()
            if number % 8 == 1:
                with pytest.raises(DeliberateError, match="on purpose"):
                    model.predict([*pairs[:3], BAD])
            elif number % 8 == 2:
                asyncio.run(give_up(PAIRS))
            elif number % 32 == 3:
                assert forked_scores(model, pairs) == wanted
            elif number % 8 == 4:
                assert asyncio.run(model.apredict(pairs)).tobytes() == wanted
            else:
                assert model.predict(pairs, batch_size=source.randrange(1, 40)).tobytes() == wanted

    with ThreadPoolExecutor(64) as callers:
        list(callers.map(work, range(64)))
    wait_until_idle(crew_of_four)
    assert model._scorer.runner.lane.queue.size == 0
    assert model.predict(PAIRS).tobytes() == scores.tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_can_be_forked_before_during_and_after_use(crew_of_four):
    model = CrossEncoder(num_threads=4)
    before = forked_scores(model, PAIRS)
    caller = threading.Thread(target=model.predict, args=(PAIRS * 3,))
    caller.start()
    while not crew_of_four.is_busy and caller.is_alive():
        time.sleep(0.0002)
    during = forked_scores(model, PAIRS)
    caller.join()
    after = forked_scores(model, PAIRS)
    assert before == during == after == model.predict(PAIRS).tobytes()


# ---- the end of a program

BEGIN = """
import sys, threading
from numbert import BackendError, CrossEncoder
model = CrossEncoder(num_threads=2)
few = [("how many", "people")] * 3
expected = model.predict(few)
many = [("how many", f"{number} people " * 40) for number in range(20_000)]
"""
DAEMON = """
def ask():
    try:
        model.predict(many)
    except BackendError as error:
        print(error, flush=True)
threading.Thread(target=ask, daemon=True).start()
from numbert.engine.workers import crew
while not crew().is_busy:
    pass
print("end", flush=True)
"""
LONG = """
for _ in range(3):
    try:
        print("begin", flush=True)
        model.predict(many)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    assert (model.predict(few) == expected).all()
    assert (model.predict(many[:100]) == model.predict(many[:100], batch_size=1)).all()
    print("usable", flush=True)
"""


def start(program):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT.parent,
    )  # fmt: skip


def test_a_daemon_thread_in_predict_does_not_hold_up_the_end_and_its_error_is_ours():
    with start(BEGIN + DAEMON) as process:
        lines = [process.stdout.readline()]
        begun = time.monotonic()
        lines += process.communicate(timeout=60)[0].splitlines()
        seconds = time.monotonic() - begun
    assert process.returncode == 0
    assert lines[0] == "end\n"
    message = "Python is about to end and computes no more scores; wait for them before the program ends"
    assert lines[1:] in ([], [message])  # the thread may end before it can print
    assert seconds < 10  # all pairs would take minutes


@needs_signals
def test_ctrl_c_ends_a_long_call_at_once_and_the_model_is_usable_afterwards():
    with start(BEGIN + LONG) as process:
        for seconds in (0, 0.05, 0.3):
            assert process.stdout.readline() == "begin\n"
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            begun = time.monotonic()
            assert process.stdout.readline() == "interrupted\n"
            assert time.monotonic() - begun < 5  # all pairs would take minutes; on a quiet machine a tenth of a second
            assert process.stdout.readline() == "usable\n"
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("", "", 0)


@needs_signals
def test_ctrl_c_ends_a_program_in_a_long_call():
    with start(BEGIN + "print('begin', flush=True)\nmodel.predict(many)\n") as process:
        assert process.stdout.readline() == "begin\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_scores_of_a_call_that_is_made_while_others_end_are_the_same():
    """Models come and go while others compute."""
    scores = CrossEncoder(num_threads=2).predict(PAIRS)

    def use_once(_):
        return CrossEncoder(num_threads=2).predict(PAIRS[:50]).tobytes()

    with ThreadPoolExecutor(4) as callers:
        assert set(callers.map(use_once, range(12))) == {scores[:50].tobytes()}
    assert np.isfinite(scores).all()
