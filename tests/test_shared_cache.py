"""Several processes at once with one kernel cache: each computes rightly, and what they leave behind is whole."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from numbert.kernels.parameters import Embedding, Norm
from numbert.kernels.reference import blocks as reference

pytest.importorskip("numba", reason="the kernel cache is Numba's")

# One kernel: it takes a second to compile, those of a model take many. 64 numbers are whole tiles on every processor.
EMBED = """
import json, logging, sys
logging.basicConfig()
import numpy as np
from numbert.kernels.cpu import compiled, elementwise
from numbert.kernels.parameters import Embedding, Norm
table, ids = np.arange(320, dtype=np.float32).reshape(5, 64) % 7, np.arange(5, dtype=np.int32)
embedding = Embedding(table, table, table, Norm(table[1], table[2], 1e-12), None, False)
weights = compiled.pack_embedding(embedding, "float32")
print("ready", flush=True)
sys.stdin.readline()
x = compiled.embedding(ids, ids[::-1].copy(), ids, weights, compiled.make_team(1)[0]).normed
print(json.dumps({"x": x.tolist(), "hits": sum(elementwise.embed.stats.cache_hits.values())}))
"""


def start(cache) -> subprocess.Popen[str]:
    """Start a process that waits for a line before it needs the kernel."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", EMBED],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT.parent,
        env={**os.environ, "NUMBERT_CACHE_DIR": str(cache)},
    )  # fmt: skip


def run_together(cache, count: int) -> list[dict]:
    """Let so many processes need the kernel at the same moment; return what each printed."""
    processes = [start(cache) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n", process.communicate(timeout=60)[1]
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * count, outputs
    assert [log for _, log in outputs] == [""] * count
    return [json.loads(output) for output, _ in outputs]


def test_processes_that_fill_a_cache_together_compute_rightly_and_leave_it_whole(tmp_path):
    table, ids = np.arange(320, dtype=np.float32).reshape(5, 64) % 7, np.arange(5, dtype=np.int32)
    embedding = Embedding(table, table, table, Norm(table[1], table[2], 1e-12), None, False)
    weights = reference.pack_embedding(embedding, "float64")
    expected = reference.embedding(ids, ids[::-1], ids, weights, reference.Workspace()).normed

    first = run_together(tmp_path, 3)
    np.testing.assert_allclose(first[0]["x"], expected, atol=1e-5)  # float32, values below 20
    assert [result["x"] for result in first] == [first[0]["x"]] * len(first)
    assert min(result["hits"] for result in first) == 0  # it was empty
    left = sorted(tmp_path.rglob("*"))
    names = [path.name.partition("-")[0] for path in left if path.is_file()]
    assert len(names) == len(set(names))  # of each kernel one entry
    assert not [path for path in left if "tmp" in path.name]  # half-written files

    (later,) = run_together(tmp_path, 1)
    assert later == {"x": first[0]["x"], "hits": 1}
    assert sorted(tmp_path.rglob("*")) == left
