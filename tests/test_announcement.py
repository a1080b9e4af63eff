"""The first compilation says so on a terminal, when it lasts."""

import io
import itertools
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from conftest import ROOT

pytest.importorskip("numba", reason="what is compiled are Numba's kernels")
from numba import njit
from numba.core import event
from numba.core.errors import TypingError
from numbert.kernels.cpu import cache, jit, meeting

COMPILE = """
import numpy as np
from numba.core import event
from numbert.kernels.cpu import jit, meeting
jit._Announcement.PATIENCE = 0.02  # a small kernel takes 0.1 s or more
class Begun(event.Listener):
    def on_start(self, event): print("begun")
    def on_end(self, event): print("compiled")
event.register("numba:compile", Begun())
meeting.await_arrivals(np.ones(1, np.int64), 1, 5)
meeting.arrive(np.zeros(1, np.int64))
print("done")
"""


def run_on_terminal(program: str, **environment: str) -> list[str]:
    """Run a program on a terminal of its own; return the lines that stood there in the end."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT.parent, env={**os.environ, **environment},
    )  # fmt: skip
    os.close(theirs)
    output = b""
    try:
        while part := os.read(ours, 4096):
            output += part
    except OSError:  # so ends a terminal on Linux
        pass
    os.close(ours)
    assert process.wait(60) == 0, output
    return output.decode().splitlines()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty")
def test_compilation_is_announced_once_on_a_terminal_while_it_lasts(tmp_path):
    line = "numbert: compiling kernels for this processor, once (some seconds) ..."
    steps = ["begun", line, "compiled", "begun", "compiled", "done"]
    assert run_on_terminal(COMPILE, NUMBERT_CACHE_DIR=str(tmp_path)) == steps
    assert run_on_terminal(COMPILE, NUMBERT_CACHE_DIR=str(tmp_path)) == ["done"]


class StoppedTimer:
    """Stands for threading.Timer and does nothing but remember."""

    made: "list[StoppedTimer]" = []  # noqa: RUF012

    def __init__(self, interval, function):
        self.interval, self.function, self.cancelled = interval, function, False
        self.made.append(self)

    def start(self):
        pass

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def timers(monkeypatch):
    """All timers that are made meanwhile, by compilations which last 0.4 seconds each; no cache, no terminal."""
    monkeypatch.setattr(StoppedTimer, "made", [])
    monkeypatch.setattr(threading, "Timer", StoppedTimer)
    monkeypatch.setattr(jit, "time", types.SimpleNamespace(monotonic=itertools.count(100, 0.4).__next__))
    monkeypatch.setattr(cache, "DIRECTORY", None)
    with event.install_listener("numba:compile", jit._Announcement()):
        yield StoppedTimer.made


def compile_one() -> None:
    jit.kernel(meeting.arrive.py_func)(np.zeros(1, np.int64))


def test_a_second_of_compiling_in_all_is_waited_for(timers):
    for _ in range(4):
        compile_one()
    assert [timer.interval for timer in timers] == pytest.approx([1, 0.6, 0.2])  # the fourth began after it
    assert all(timer.cancelled for timer in timers)
    assert {timer.function for timer in timers} == {jit._announce}


def test_compilation_of_other_functions_is_not_announced(timers):
    assert njit(lambda x: x + 1)(1) == 2
    assert timers == []


def test_an_error_while_compiling_stops_the_clock(timers):
    @jit.kernel
    def wrong(x):
        return x.nothing

    wrong.py_func.__module__ = meeting.__name__  # a kernel like ours
    for _ in range(2):
        with pytest.raises(TypingError):
            wrong(1)
    compile_one()
    assert len(timers) == 3
    assert all(timer.cancelled for timer in timers)


def test_where_no_thread_can_be_started_nothing_is_announced(timers, monkeypatch):
    def refuse(timer):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(StoppedTimer, "start", refuse)
    compile_one()
    assert len(timers) == 1


def test_the_announcement_says_where_there_is_no_cache(monkeypatch, capsys):
    for directory, words in ((None, "in each process, as there is no kernel cache"), ("/a", "processor, once (some")):
        monkeypatch.setattr(cache, "DIRECTORY", directory)
        jit._announce()
        assert words in capsys.readouterr().err


def test_a_stderr_that_is_missing_or_closed_is_no_terminal(monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, io.StringIO()):
        assert not jit._is_terminal(stream)
    for stream in (None, closed):  # closed after the compilation began
        monkeypatch.setattr(sys, "stderr", stream)
        jit._announce()
