"""What importing costs and touches, seen in processes of their own."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


def run(code: str, **environment: str) -> str:
    """Run a program in a new process, away from the repository, and return what it prints."""
    return run_process(code, **environment).stdout.strip()


def run_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a new process, away from the repository."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=120, cwd=ROOT.parent, env={**os.environ, **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result


def test_import_brings_in_nothing_heavy():
    loaded = run("import sys, numbert; print(*sys.modules)").split()
    heavy = {"numba", "llvmlite", "huggingface_hub", "tokenizers", "safetensors", "numpy", "torch"}
    assert not heavy & set(loaded)


def test_public_names_are_there_and_come_from_us():
    assert run("import numbert; print(all(getattr(numbert, name).__module__ for name in numbert.__all__))") == "True"


def test_unknown_names_are_refused():
    code = "import numbert\ntry:\n    numbert.nothing\nexcept AttributeError as error:\n    print(error)"
    assert run(code) == "module 'numbert' has no attribute 'nothing'"


SCORE = """
import json, logging, os, socket, sys, warnings
import numba  # which adds filters of its own
def refuse(*args, **kwargs): raise AssertionError("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
before = dict(os.environ), list(warnings.filters), list(logging.root.handlers), logging.root.level
options = numba.config.CACHE_DIR, numba.config.NUMBA_NUM_THREADS
from numbert import CrossEncoder
CrossEncoder().predict(("a", "b"))
after = dict(os.environ), list(warnings.filters), list(logging.root.handlers), logging.root.level
same = before == after, options == (numba.config.CACHE_DIR, numba.config.NUMBA_NUM_THREADS)
print(json.dumps({"modules": list(sys.modules), "same": same}))
"""


@pytest.fixture(scope="module")
def scored():
    """What a process tells that has scored with a local model and opened no socket, and ended.

    (A worker thread that is no daemon and waits for work would keep it alive.)
    """
    return json.loads(run(SCORE))


def test_scoring_with_a_local_model_opens_no_socket_and_needs_no_hub_and_no_torch(scored):
    assert not {"huggingface_hub", "torch", "transformers", "requests", "httpx", "httpx2"} & set(scored["modules"])


def test_import_and_scoring_change_no_global_state_and_the_process_ends(scored):
    assert scored["same"] == [True, True]


def test_the_module_is_the_command_line():
    command = [sys.executable, "-m", "numbert", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT.parent)
    assert result.stdout.startswith("numbert ")


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
from numbert import CrossEncoder
assert CrossEncoder().backend == "reference"
"""


def test_warnings_reach_whoever_configured_no_logging():
    assert run_process(WITHOUT_NUMBA).stderr.count("Numba cannot be imported") == 1


def test_warnings_reach_a_configured_handler_once():
    lines = run_process("import logging; logging.basicConfig(format='mine: %(message)s')\n" + WITHOUT_NUMBA).stderr
    assert lines.count("Numba cannot be imported") == lines.count("mine: ") == 1


def test_warnings_can_be_turned_off_like_those_of_any_library():
    quiet = "import logging; logging.getLogger('numbert').addHandler(logging.NullHandler())\n"
    assert run_process(quiet + WITHOUT_NUMBA).stderr == ""
