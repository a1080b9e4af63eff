"""The blocks of the CPU backend against the reference, on models of odd sizes; and both backends' signatures."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba", reason="the CPU backend needs Numba")
from numbert.engine.backend import Backend
from numbert.engine.encoder import forward, pack
from numbert.kernels.cpu import blocks as cpu
from numbert.kernels.cuda import blocks as cuda
from numbert.kernels.reference import blocks as reference
from random_models import make_spec, random_batch, random_weights

SIZES = [(312, 12, 100, 2, 3), (48, 3, 97, 1, 1), (384, 12, 1536, 2, 1), (10, 5, 3, 3, 7), (128, 2, 64, 2, 2)]


@pytest.mark.parametrize(("hidden", "heads", "inner", "layers", "labels"), SIZES)
@pytest.mark.parametrize("lengths", [[1], [1, 2, 3], [31, 33, 16, 64, 5], [64] * 5])
def test_cpu_equals_reference(rng, hidden, heads, inner, layers, labels, lengths):
    spec = make_spec(hidden, heads, inner, layers, labels)
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, lengths)
    fast = forward(pack(spec, weights, cpu, "float32"), batch, cpu, cpu.make_team(1)[0])
    exact = forward(pack(spec, weights, reference, "float64"), batch, reference, reference.make_team(1)[0])
    assert fast.dtype == np.float32
    assert exact.dtype == np.float64
    assert fast.shape == exact.shape == (len(lengths), labels)
    # Logits are of size 1 to 3; two or three layers of float32 were never seen more than 4e-6 away.
    np.testing.assert_allclose(fast, exact, atol=2e-5)


def attention_by_the_formula(x, weights):
    """The block for one pair, with the bias of the keys, one head after the other."""
    query, key, value = (reference.linear(x, layer) for layer in (weights.query, weights.key, weights.value))
    heads = [np.split(rows, weights.num_heads, axis=1) for rows in (query, key, value)]
    gathered = [reference.softmax(q @ k.T / np.sqrt(q.shape[1])) @ v for q, k, v in zip(*heads, strict=True)]
    return reference.layer_norm(x + reference.linear(np.hstack(gathered), weights.output), weights.norm)


def test_the_reference_leaves_out_the_bias_of_keys_because_it_changes_nothing(rng):
    spec = make_spec(48, 3, 97, 1, 1)
    attention = pack(spec, random_weights(rng, spec), reference, "float64").layers[0].attention
    x, offsets = rng.standard_normal((31, 48)), np.array([0, 31])
    assert np.abs(attention.key.bias).max() > 0.01
    found = reference.attention_block(x, offsets, attention, None, reference.make_team(1)[0])
    np.testing.assert_allclose(found, attention_by_the_formula(x, attention), atol=1e-13)  # float64, numbers near 1


@pytest.mark.parametrize("size", [1e6, 1e8, 1e10])
def test_a_huge_bias_of_keys_takes_no_digits_from_the_reference(rng, size):
    spec = make_spec(48, 3, 97, 2, 1)
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, [31, 5])
    logits = []
    for scale in (0, size):
        for name in [name for name in weights if name.endswith("attention.key.bias")]:
            weights[name] = (rng.standard_normal(48) * scale).astype(np.float32)
        encoder = pack(spec, weights, reference, "float64")
        logits.append(forward(encoder, batch, reference, reference.make_team(1)[0]))
    assert (logits[0] == logits[1]).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("high", 1e-3), ("bfloat16", 0.1), ("int8", 0.4)])
def test_lower_precision_stays_near_the_reference(rng, dtype, tolerance):
    spec = make_spec(312, 12, 100, 2, 3)
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, [31, 33, 16, 64, 5])
    fast = forward(pack(spec, weights, cpu, dtype), batch, cpu, cpu.make_team(1)[0])
    exact = forward(pack(spec, weights, reference, "float64"), batch, reference, reference.make_team(1)[0])
    # "high" has 16 bits at least. Else weights and rows are rounded to 8 bits; the errors of 3 layers add up to 0.02
    # and 0.1 on logits of size 1 to 3.
    # (The kernels' own tests hold the arithmetic to 5e-6; this one shows that the blocks are put together right.)
    np.testing.assert_allclose(fast, exact, atol=tolerance)
    assert fast.dtype == np.float32


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("lengths", [[1], [13], [64], [1, 2, 3], [31, 33, 16, 64, 5]])
@pytest.mark.parametrize("relative_buckets", [0, 8])  # with them, scores depend on where in its pair a row stands
def test_a_team_computes_the_same_bits_as_one_thread(rng, size, lengths, relative_buckets):
    spec = replace(make_spec(48, 3, 97, 3, 2), relative_buckets=relative_buckets)
    encoder = pack(spec, random_weights(rng, spec), cpu, "float32")
    for batch in (random_batch(rng, spec, lengths), random_batch(rng, spec, lengths[::-1])):
        alone = forward(encoder, batch, cpu, cpu.make_team(1)[0])
        members = cpu.make_team(size)
        with ThreadPoolExecutor(size) as pool:
            for _ in range(2):  # the second time on used buffers
                parts = pool.map(lambda member, batch=batch: forward(encoder, batch, cpu, member), members)
                assert (np.concatenate(list(parts)) == alone).all()


def test_a_member_that_fails_does_not_keep_the_others_waiting(rng):
    spec = make_spec(48, 3, 97, 3, 2)
    encoder, batch = pack(spec, random_weights(rng, spec), cpu, "float32"), random_batch(rng, spec, [64])
    first, second = cpu.make_team(2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(forward, encoder, batch, cpu, first)
        second.leave()
        with pytest.raises(RuntimeError, match="another thread"):
            waiting.result(timeout=60)


def test_float32_reference_keeps_its_dtype_in_every_block(rng):
    spec = make_spec(16, 2, 20, 1, 1)
    batch, workspace = random_batch(rng, spec, [3, 4]), reference.make_team(1)[0]
    encoder = pack(spec, random_weights(rng, spec), reference, "float32")
    x = reference.embedding(batch.ids, batch.type_ids, batch.position_ids, encoder.embedding, workspace)
    results = [x, reference.attention_block(x, batch.offsets, encoder.layers[0].attention, None, workspace)]
    results += [reference.feed_forward_block(x, encoder.layers[0].feed_forward, workspace)]
    results += [reference.classification_head(x, encoder.head, workspace)]
    assert [result.dtype for result in results] == [np.float32] * 4


def test_a_workspace_carries_nothing_from_one_shard_to_the_next(rng):
    spec = make_spec(48, 3, 97, 2, 1)
    encoder, workspace = pack(spec, random_weights(rng, spec), cpu, "float32"), cpu.make_team(1)[0]
    batches = [random_batch(rng, spec, lengths) for lengths in ([64, 64], [3], [30, 1, 1], [64, 64, 64])]
    fresh = [forward(encoder, batch, cpu, cpu.make_team(1)[0]) for batch in batches]
    for batch, expected in zip(batches * 2, fresh * 2, strict=True):
        for buffer in workspace._arrays.values():
            buffer.fill(np.nan if buffer.dtype == np.float32 else -1)
        assert (forward(encoder, batch, cpu, workspace) == expected).all()


@pytest.mark.parametrize("backend", [cpu, cuda, reference])
def test_backends_offer_the_same_blocks_with_the_same_parameters(backend):
    methods = [name for name in vars(Backend) if not name.startswith("_")]
    assert "attention_block" in methods
    assert isinstance(backend.LARGEST_SHARD, int)
    for name in methods:
        expected = list(inspect.signature(getattr(Backend, name)).parameters)[1:]  # without self
        assert list(inspect.signature(getattr(backend, name)).parameters) == expected, name
