"""The CUDA backend against the reference: in Numba's simulator, or on a GPU where there is one.

The simulator must be chosen before Numba is imported, so it wants a process of its own:

    NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/test_cuda.py
"""

import itertools
import math
import os
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import GOLDENS
from random_models import make_spec, random_batch, random_weights

pytest.importorskip("numba_cuda", reason="needs numbert[cuda]")
if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    from numba import cuda

    if not cuda.is_available():
        pytest.skip("no GPU; NUMBA_ENABLE_CUDASIM=1 runs these tests without one", allow_module_level=True)
    pytestmark = pytest.mark.gpu

from numba import cuda
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator.kernelapi import FakeCUDAShared
from numbert import CrossEncoder
from numbert.engine.assembly import assemble
from numbert.engine.encoder import forward
from numbert.kernels.cuda import blocks, linear, packing
from numbert.kernels.cuda.primitives import SIMULATED
from numbert.kernels.parameters import Linear, Norm, Stream
from numbert.kernels.reference import blocks as reference

PAIRS = [("how many people", "Seven people."), ("rain", ""), ("", "It rains in a town by the river, often at night.")]


def shared_array(self, shape, dtype, alignment=None):
    """Return the array of the line that asks; all threads of a block get the same one, even if they ask at once."""
    frame = sys._getframe(1)
    return self._allocations.setdefault((frame.f_code, frame.f_lineno), np.empty(shape, str(dtype)))


def run_block(self, grid_point, *args):
    """Run the threads of a block, which meet at a barrier: one that is left out shows, and one of some threads only."""
    places = list(np.ndindex(*self._block_dim))
    self.meeting = threading.Barrier(len(places), timeout=60)  # seconds

    def compute():
        try:
            self._f(*args)
        except BaseException:
            self.meeting.abort()  # for the others, who wait for this thread
            raise

    threads = [simulator.BlockThread(compute, self, grid_point, place, self._debug) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [thread.exception for thread in threads if thread.exception]
    errors.sort(key=lambda error: isinstance(error[0], threading.BrokenBarrierError))  # the cause comes first
    for error, trace in errors:
        raise error.with_traceback(trace)


@pytest.fixture(autouse=True, scope="module")
def quick_and_safe_simulator():
    """Mend two things: it waits for its threads in a loop, which takes most of the time; and threads that ask for the
    same shared array at once may get two."""
    if not SIMULATED:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeCUDAShared, "array", shared_array)
        patch.setattr(simulator.BlockManager, "run", run_block)
        patch.setattr(simulator.BlockThread, "syncthreads", lambda self: self._manager.meeting.wait())
        yield


@pytest.fixture
def workspace():
    return blocks.make_team(1)[0]


def upload(workspace, x: np.ndarray) -> blocks.Rows:
    """Put activations where the kernels expect them, with NaN in the rows that belong to nobody."""
    rows = workspace.take("input", len(x), packing.round_up(x.shape[1]))
    full = np.full((packing.round_up_rows(len(x)), rows.stride), np.nan, np.float32)
    full[: len(x)] = packing.fill_up(x, len(x), rows.stride)
    return rows._replace(data=cuda.to_device(full.ravel()))


def random_linear(rng, outputs: int, inputs: int) -> Linear:
    weight = rng.standard_normal((outputs, inputs)) / math.sqrt(inputs)
    return Linear(weight.astype(np.float32), rng.standard_normal(outputs).astype(np.float32))


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(x.astype(np.float64)), 1e-30))) - 7)
    return np.rint(x / unit) * unit


FINISH = {
    linear.NONE: lambda y: y,
    linear.ADD: lambda y: y + 2,
    linear.GELU: reference.gelu,
    linear.TANH: np.tanh,
    linear.RELU: reference.relu,
}


@pytest.mark.parametrize("finish", FINISH)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 1, 1), (17, 33, 31), (65, 40, 70)])
def test_linear(rng, workspace, rows, outputs, inputs, precision, finish):
    layer, x = random_linear(rng, outputs, inputs), rng.standard_normal((rows, inputs)).astype(np.float32)
    packed = packing.pack_linear(layer, precision)
    out = workspace.take("out", rows, packed.outputs)
    out.data.copy_to_device(np.full(out.data.size, 2, np.float32))  # what "add" adds to
    blocks._linear(upload(workspace, x), packed, finish, out, workspace)
    a, weight = (to_bfloat16(x), to_bfloat16(layer.weight)) if precision == "bfloat16" else (x, layer.weight)
    exact = FINISH[finish](a.astype(np.float64) @ weight.T + layer.bias)
    # Sums of 70 products in float32 of numbers of size 1, and GELU's erf on hardware: seen 1.5e-6.
    np.testing.assert_allclose(workspace.fetch(out)[:, :outputs], exact, atol=5e-6)


def test_linear_with_blocks_as_large_as_on_hardware(rng, workspace):
    layer, x = random_linear(rng, 128, 64), rng.standard_normal((128, 64)).astype(np.float32)
    a, exact = upload(workspace, x), x.astype(np.float64) @ layer.weight.T + layer.bias
    for precision, make, threads in (
        ("float32", linear.make_linear(linear.NONE, 16, 8), 128),
        ("bfloat16", linear.make_tensor_core_linear(linear.NONE, 2, 2), 128),
    ):
        packed, out = packing.pack_linear(layer, precision), workspace.take("out", 128, 128)
        make[(2, 1), threads, workspace.stream](a.data, packed.weight, 0, 128, packed.bias, out.data, 128, 64)
        tolerance = 5e-6 if precision == "float32" else 0.05  # here the exact product is of unrounded numbers
        np.testing.assert_allclose(workspace.fetch(out), exact, atol=tolerance)


@pytest.mark.parametrize("width", [1, 31, 48, 70])
def test_normalize(rng, workspace, width):
    x = (rng.standard_normal((5, width)) * 10 + 3).astype(np.float32)
    norm = Norm(*rng.standard_normal((2, width)).astype(np.float32), 1e-6)
    rows = upload(workspace, x)
    blocks._normalize(rows, packing.pack_norm(norm), workspace)
    got = workspace.fetch(rows)
    np.testing.assert_allclose(got[:, :width], reference.layer_norm(x.astype(np.float64), norm), atol=1e-5)
    assert (got[:, width:] == 0).all()


@pytest.mark.parametrize("relative_buckets", [0, 8])
@pytest.mark.parametrize("lengths", [[1], [31, 33, 1], [65]])
def test_attention_block(rng, workspace, lengths, relative_buckets):
    spec = replace(make_spec(52, 4, 30, 1, 1), relative_buckets=relative_buckets, max_positions=80)  # heads of 13
    weights, offsets = random_weights(rng, spec), np.concatenate([[0], np.cumsum(lengths)])
    fast, exact = (assemble(spec, weights, ops, "float32").layers[0].attention for ops in (blocks, reference))
    x = rng.standard_normal((offsets[-1], 52)).astype(np.float32)
    for rows in (None, offsets[:-1]):
        sent = upload(workspace, x)
        got = blocks.attention_block(Stream(sent, sent), offsets, fast, rows, workspace)
        expected = reference.attention_block(Stream(x, x), offsets, exact, rows, reference.Workspace())
        # After LayerNorm, numbers of size 1 to 3, from sums in another order: seen 2e-6.
        np.testing.assert_allclose(workspace.fetch(got.normed)[:, :52], expected.normed, atol=2e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.1)])
@pytest.mark.parametrize(("hidden", "heads", "inner", "layers", "labels"), [(48, 3, 97, 2, 1), (10, 5, 3, 3, 7)])
def test_forward_equals_reference(rng, hidden, heads, inner, layers, labels, precision, tolerance):
    spec = make_spec(hidden, heads, inner, layers, labels)
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, [1, 31, 33, 5])
    fast = forward(assemble(spec, weights, blocks, precision), batch, blocks, blocks.make_team(1)[0])
    exact = forward(assemble(spec, weights, reference, "float64"), batch, reference, reference.make_team(1)[0])
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, exact, atol=tolerance)  # bfloat16: 8 bits of each factor, as on the processor


@pytest.mark.parametrize("name", ["narrow", "mpnet"])
def test_predict_equals_the_cpu_and_the_reference(name):
    model = CrossEncoder(GOLDENS / name, device="cuda")
    assert (model.device, model.backend) == ("cuda", "cuda")
    scores = model.predict(PAIRS)
    for backend in ("cpu", "reference"):
        expected = CrossEncoder(GOLDENS / name, backend=backend).predict(PAIRS)
        np.testing.assert_allclose(scores, expected, atol=1e-4, err_msg=backend)  # what all backends promise
    for wrong in ("cpu", ["cuda", "cpu"]):
        with pytest.raises(ValueError, match="the model was loaded for 'cuda'"):
            model.predict(PAIRS, device=wrong)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_score_of_a_pair_has_the_same_bits_in_any_batch(rng, precision):
    spec = make_spec(48, 3, 97, 2, 1)
    encoder, workspace = assemble(spec, random_weights(rng, spec), blocks, precision), blocks.make_team(1)[0]
    lengths = [7, 33, 1]
    alone = random_batch(rng, spec, lengths)
    together = forward(encoder, alone, blocks, workspace)
    for i, (start, stop) in enumerate(itertools.pairwise(alone.offsets)):
        parts = (part[start:stop] for part in (alone.ids, alone.type_ids, alone.position_ids))
        single = type(alone)(*parts, np.array([0, stop - start]))
        assert (forward(encoder, single, blocks, workspace) == together[i]).all()


def test_a_copy_shares_the_weights_and_a_pickle_is_refused():
    import copy
    import pickle

    model = CrossEncoder(GOLDENS / "narrow", device="cuda")
    twin = copy.deepcopy(model)
    assert twin._scorer.runner.encoder is model._scorer.runner.encoder
    with pytest.raises(RuntimeError, match="GPU memory cannot be pickled"):
        pickle.dumps(model)


def test_a_forked_child_is_told_what_to_do(monkeypatch):
    model = CrossEncoder(GOLDENS / "narrow", device="cuda")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="cannot be used after a fork"):
        model.predict(PAIRS)
