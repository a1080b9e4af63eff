"""The blocks of the CPU backend against the reference, on models of odd sizes; and both backends' signatures."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba", reason="the CPU backend needs Numba")
from numbert.engine.assembly import assemble
from numbert.engine.backend import Backend, Blocks
from numbert.engine.encoder import forward
from numbert.kernels.cpu import compiled as cpu
from numbert.kernels.cpu.disentangled import BLOCK
from numbert.kernels.cpu.packed import ACTIVATIONS
from numbert.kernels.cpu.panels import round_up
from numbert.kernels.cuda import blocks as cuda
from numbert.kernels.parameters import (
    Attention,
    Convolution,
    Disentangled,
    Embedding,
    FeedForward,
    Head,
    Linear,
    Norm,
    Rotary,
    Stream,
)
from numbert.kernels.positions import rotary_tables
from numbert.kernels.reference import blocks as reference
from numbert.loaders.spec import ConvolutionRule, LayerRule, LinearStep, NormStep, ResidualStep, two_layers
from random_models import (
    WITHOUT_BIAS,
    make_disentangled_spec,
    make_modern_spec,
    make_spec,
    random_batch,
    random_weights,
)

POOLINGS = ("first", "last", "mean", "max", "mean_sqrt", "weighted_mean")
SIZES = [(312, 12, 100, 2, 3), (48, 3, 97, 1, 1), (384, 12, 1536, 2, 1), (10, 5, 3, 3, 7), (128, 2, 64, 2, 2)]


@pytest.mark.parametrize(("hidden", "heads", "inner", "layers", "labels"), SIZES)
@pytest.mark.parametrize("lengths", [[1], [1, 2, 3], [31, 33, 16, 64, 5], [64] * 5])
def test_cpu_equals_reference(rng, hidden, heads, inner, layers, labels, lengths):
    spec = make_spec(hidden, heads, inner, layers, labels)
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, lengths)
    fast = forward(assemble(spec, weights, cpu, "float32"), batch, cpu, cpu.make_team(1)[0])
    exact = forward(assemble(spec, weights, reference, "float64"), batch, reference, reference.make_team(1)[0])
    assert fast.dtype == np.float32
    assert exact.dtype == np.float64
    assert fast.shape == exact.shape == (len(lengths), labels)
    # Logits are of size 1 to 3; two or three layers of float32 were never seen more than 4e-6 away.
    np.testing.assert_allclose(fast, exact, atol=2e-5)


def random_attention(rng) -> Attention:
    """The weights of 3 heads of 16, of a scale that keeps activations near 1."""
    layers = [Linear(rng.standard_normal((48, 48)) / np.sqrt(48), rng.standard_normal(48)) for _ in range(4)]
    norm = Norm(rng.standard_normal(48), rng.standard_normal(48), 1e-12)
    return Attention(*layers, norm, 3, 1 / np.sqrt(16), None, None, keeps_sum=False)


def attention_by_the_formula(x, weights):
    """The block for one pair, with the bias of the keys, one head after the other."""
    query, key, value = (reference.linear(x, layer) for layer in (weights.query, weights.key, weights.value))
    heads = [np.split(rows, weights.heads, axis=1) for rows in (query, key, value)]
    gathered = [reference.softmax(q @ k.T / np.sqrt(q.shape[1])) @ v for q, k, v in zip(*heads, strict=True)]
    return reference.layer_norm(x + reference.linear(np.hstack(gathered), weights.output), weights.norm)


def test_the_bias_of_keys_is_left_out_because_it_changes_nothing(rng):
    weights = random_attention(rng)
    assert np.abs(weights.key.bias).max() > 0.01
    x, offsets = rng.standard_normal((31, 48)), np.array([0, 31])
    packed = reference.pack_attention(weights, "float64")
    assert packed.key.bias is None
    found = reference.attention_block(Stream(x, x), offsets, packed, None, reference.Workspace()).normed
    np.testing.assert_allclose(found, attention_by_the_formula(x, weights), atol=1e-13)  # float64, numbers near 1


@pytest.mark.parametrize("backend", [cpu, reference])
def test_where_keys_turn_their_bias_stays_because_it_changes_everything(rng, backend):
    weights = random_attention(rng)._replace(positions=rotary_tables(31, 16, 100.0))
    without = weights._replace(key=Linear(weights.key.weight, None))
    x, offsets = rng.standard_normal((31, 48)).astype(np.float32), np.array([0, 31])

    def result(attention):
        record = attention._replace(positions=backend.pack_positions(attention.positions, "float32"))
        packed = backend.pack_attention(reference._cast(record, "float32"), "float32")
        filled = np.pad(x, ((0, 0), (0, round_up(48) - 48))) if backend is cpu else x.copy()
        stream = Stream(filled, filled)
        return backend.attention_block(stream, offsets, packed, None, backend.make_team(1)[0]).normed[:, :48].copy()

    exact = reference.attention_block(
        Stream(x.astype(np.float64), x.astype(np.float64)), offsets, weights, None, reference.Workspace()
    ).normed
    np.testing.assert_allclose(result(weights), exact, atol=2e-5)  # rows of size 1 to 3, one block
    assert np.abs(result(without) - exact).max() > 0.1


@pytest.mark.parametrize("size", [1e6, 1e8, 1e10])
def test_a_huge_bias_of_keys_takes_no_digits_from_the_reference(rng, size):
    spec = make_spec(48, 3, 97, 2, 1)
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, [31, 5])
    logits = []
    for scale in (0, size):
        for name in [name for name in weights if name.endswith("attention.key.bias")]:
            weights[name] = (rng.standard_normal(48) * scale).astype(np.float32)
        encoder = assemble(spec, weights, reference, "float64")
        logits.append(forward(encoder, batch, reference, reference.make_team(1)[0]))
    assert (logits[0] == logits[1]).all()


RESIDUAL = ResidualStep(("sigmoid", LinearStep("head.dense", 48, 48, bias=True), "tanh"), None)
SHORTCUT = LinearStep("head.shortcut", 48, 70, bias=False)
WIDENING = ResidualStep((LinearStep("head.dense", 48, 70, bias=True), "relu"), SHORTCUT)
HEADS = {
    "BERT's": two_layers(48, "gelu", 3),
    "ModernBERT's": make_modern_spec(48, 3, 97, 1, 3).head,
    "residual": (RESIDUAL, "normalize", LinearStep("head.output", 48, 3, bias=False)),
    "widening": ("sigmoid", "normalize", WIDENING, "silu", LinearStep("head.output", 70, 3, bias=True)),
    "norm first": (NormStep("head.norm", 48, 1e-5, bias=True), "sigmoid", LinearStep("head.output", 48, 3, bias=True)),
}


@pytest.mark.parametrize(
    ("head", "pooling"),
    [*((head, "first") for head in HEADS), *(("ModernBERT's", pooling) for pooling in POOLINGS[1:])],
)
def test_cpu_equals_reference_for_each_head_and_pooling(rng, head, pooling):
    spec = make_modern_spec(48, 3, 97, 2, 3, head=HEADS[head], pooling=pooling)
    check_against_reference(rng, spec, [31, 33, 16, 64, 5])


@pytest.mark.parametrize("without_bias", [frozenset(), WITHOUT_BIAS])
@pytest.mark.parametrize("reach", [None, (0, 0), (5, 5), (2, 7)])
@pytest.mark.parametrize("heads", [1, 2, 5])  # heads of 40, 20 and 8, of which some are filled up
@pytest.mark.parametrize("lengths", [[1, 2, 3], [31, 33, 16, 64, 5]])
def test_cpu_equals_reference_for_turned_heads_windows_and_gates(rng, heads, lengths, reach, without_bias):
    layers = (LayerRule(100.0, reach), LayerRule(10_000.0, None), LayerRule(100.0, reach))
    spec = make_modern_spec(40, heads, 97, 3, 2, without_bias=without_bias)
    check_against_reference(rng, replace(spec, layers=layers), lengths)


def check_against_reference(rng, spec, lengths):
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, lengths)
    fast = forward(assemble(spec, weights, cpu, "float32"), batch, cpu, cpu.make_team(1)[0])
    exact = forward(assemble(spec, weights, reference, "float64"), batch, reference, reference.make_team(1)[0])
    assert fast.shape == exact.shape == (len(lengths), spec.num_labels)
    # Logits are of size 1 to 3; gates multiply errors: never seen more than 1e-5 away.
    np.testing.assert_allclose(fast, exact, atol=5e-5)


@pytest.mark.parametrize("kinds", [("c2p", "p2c"), ("c2p",), ("p2c",), ()])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("width", "heads"), [(48, 3), (40, 5)])  # heads of 16, and of 8, which are filled up
def test_cpu_equals_reference_for_contents_that_meet_distances(rng, kinds, shared, width, heads):
    spec = make_disentangled_spec(*kinds, shared=shared, width=width, heads=heads)
    check_against_reference(rng, spec, [1, 2, 31, 33, 16, 64, 5])


def test_cpu_equals_reference_for_more_queries_than_keys_meet_at_once(rng):
    spec = replace(make_disentangled_spec("c2p", "p2c"), max_positions=2 * BLOCK + 50)
    check_against_reference(rng, spec, [2 * BLOCK + 50, BLOCK, 3, BLOCK + 1])


GROUPED = ConvolutionRule(5, 4, "gelu_tanh")
CONVOLUTION = ConvolutionRule(3, 1, "tanh")
OTHER_RULES = {
    "ALiBi, 5 heads": make_spec(40, 5, 97, 3, 2, alibi=True, has_position_table=False),
    "turned, with biases and norms behind": replace(
        make_spec(48, 3, 97, 2, 2), layers=(LayerRule(50.0, None, 1.3),) * 2
    ),
    "convolution of 3": make_disentangled_spec("c2p", convolution=CONVOLUTION),
    "convolution of 5 in groups": make_disentangled_spec(convolution=GROUPED, width=40, heads=5),
    "convolution with sigmoid": make_disentangled_spec(convolution=ConvolutionRule(3, 1, "sigmoid"), width=40, heads=5),
    "projection before the norm": make_spec(48, 3, 97, 2, 2, embedding_size=21, projection="before"),
    "projection behind the norm": make_spec(48, 3, 97, 2, 2, embedding_size=21, projection="after"),
    "projection to the same size": make_spec(48, 3, 97, 2, 2, projection="after"),
    "shared layers": make_spec(48, 3, 97, 4, 2, layers_with_weights=2, layers_in_group=1),
    **{f"feed-forward with {name}": make_spec(48, 3, 97, 2, 2, activation=name) for name in ACTIVATIONS},
    **{f"gate with {name}": make_spec(48, 3, 97, 2, 2, activation=name, gated=True) for name in ("silu", "relu")},
    **{f"head with {name}": make_spec(48, 3, 97, 2, 2, head=two_layers(48, name, 2)) for name in ACTIVATIONS},
}


@pytest.mark.parametrize("rules", OTHER_RULES)
def test_cpu_equals_reference_for_each_rule_of_a_family(rng, rules):
    check_against_reference(rng, OTHER_RULES[rules], [31, 33, 16, 64, 5, 1])


@pytest.mark.parametrize(("dtype", "tolerance"), [("high", 1e-3), ("bfloat16", 0.1), ("int8", 0.4)])
def test_lower_precision_stays_near_the_reference(rng, dtype, tolerance):
    spec = make_spec(312, 12, 100, 2, 3)
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, [31, 33, 16, 64, 5])
    fast = forward(assemble(spec, weights, cpu, dtype), batch, cpu, cpu.make_team(1)[0])
    exact = forward(assemble(spec, weights, reference, "float64"), batch, reference, reference.make_team(1)[0])
    # "high" has 16 bits at least. Else weights and rows are rounded to 8 bits; the errors of 3 layers add up to 0.02
    # and 0.1 on logits of size 1 to 3.
    # (The kernels' own tests hold the arithmetic to 5e-6; this one shows that the blocks are put together right.)
    np.testing.assert_allclose(fast, exact, atol=tolerance)
    assert fast.dtype == np.float32


RULES = {
    "plain": make_spec(48, 3, 97, 3, 2),
    "distances": make_spec(48, 3, 97, 3, 2, relative_buckets=8),  # scores depend on where in its pair a row stands
    "content and distance": make_disentangled_spec("c2p", "p2c", convolution=CONVOLUTION),
    **{f"modern, {pooling}": make_modern_spec(48, 3, 97, 4, 2, pooling=pooling) for pooling in POOLINGS},
}


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("lengths", [[1], [13], [31, 33, 16, 64, 5]])
@pytest.mark.parametrize("rules", RULES)
def test_a_team_computes_the_same_bits_as_one_thread(rng, size, lengths, rules):
    spec = RULES[rules]
    encoder = assemble(spec, random_weights(rng, spec), cpu, "float32")
    for batch in (random_batch(rng, spec, lengths), random_batch(rng, spec, lengths[::-1])):
        alone = forward(encoder, batch, cpu, cpu.make_team(1)[0])
        members = cpu.make_team(size)
        with ThreadPoolExecutor(size) as pool:
            for _ in range(2):  # the second time on used buffers
                parts = pool.map(lambda member, batch=batch: forward(encoder, batch, cpu, member), members)
                assert (np.concatenate(list(parts)) == alone).all()


def test_a_member_that_fails_does_not_keep_the_others_waiting(rng):
    spec = make_spec(48, 3, 97, 3, 2)
    encoder, batch = assemble(spec, random_weights(rng, spec), cpu, "float32"), random_batch(rng, spec, [64])
    first, second = cpu.make_team(2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(forward, encoder, batch, cpu, first)
        second.leave()
        with pytest.raises(RuntimeError, match="another thread"):
            waiting.result(timeout=60)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("ops", [cpu, reference])
def test_what_leaves_float32_in_a_feed_forward_block_is_not_hidden_by_an_activation(rng, activation, gated, ops):
    spec = make_spec(48, 3, 97, 2, 2, activation=activation, gated=gated)
    weights, batch = random_weights(rng, spec), random_batch(rng, spec, [5])
    bent = f"layers.0.feed_forward.{'gate' if gated else 'up'}"
    weights[f"{bent}.bias"][3], weights[f"{bent}.weight"][3] = -3e38, 0
    weights[f"{bent}.weight"][3, 7] = -3e38  # times a number of either sign: minus infinity for some token
    logits = forward(assemble(spec, weights, ops, "float32"), batch, ops, ops.make_team(1)[0])
    assert not np.isfinite(logits).any()


def test_float32_reference_keeps_its_dtype_in_every_block(rng):
    spec = make_spec(16, 2, 20, 1, 1)
    batch, workspace = random_batch(rng, spec, [3, 4]), reference.make_team(1)[0]
    encoder = assemble(spec, random_weights(rng, spec), reference, "float32")
    stream = reference.embedding(batch.ids, batch.type_ids, batch.position_ids, encoder.embedding, workspace)
    results = [*stream, *reference.attention_block(stream, batch.offsets, encoder.layers[0].attention, None, workspace)]
    results += reference.feed_forward_block(stream, encoder.layers[0].feed_forward, workspace)
    results += [reference.head(stream, batch.offsets, encoder.head, workspace)]
    assert [result.dtype for result in results] == [np.float32] * 7


def test_the_float64_reference_rounds_no_table_of_distances(rng):
    spec = make_disentangled_spec("c2p", "p2c")
    positions = assemble(spec, random_weights(rng, spec), reference, "float64").layers[0].attention.positions
    for table in (positions.key_table, positions.query_table):
        assert (table != table.astype(np.float32)).mean() > 0.9  # few numbers of 53 digits are such of 24


def test_a_workspace_carries_nothing_from_one_shard_to_the_next(rng):
    spec = make_spec(48, 3, 97, 2, 1)
    encoder, workspace = assemble(spec, random_weights(rng, spec), cpu, "float32"), cpu.make_team(1)[0]
    batches = [random_batch(rng, spec, lengths) for lengths in ([64, 64], [3], [30, 1, 1], [64, 64, 64])]
    fresh = [forward(encoder, batch, cpu, cpu.make_team(1)[0]) for batch in batches]
    for batch, expected in zip(batches * 2, fresh * 2, strict=True):
        for buffer in workspace._arrays.values():
            buffer.fill(np.nan if buffer.dtype == np.float32 else -1)
        assert (forward(encoder, batch, cpu, workspace) == expected).all()


ONE = np.zeros((1, 1))
NO_NORM = Norm(None, None, 1e-5)
PLAIN = Attention(*[None] * 4, NO_NORM, 3, 0.25, None, None, keeps_sum=False)
LACKING = {
    "positions of the kind Rotary": (cuda.pack_positions, Rotary(None, None)),
    "embeddings without positions": (
        cuda.pack_embedding,
        Embedding(ONE, None, None, NO_NORM, None, False),
    ),
    r"a window of \(5, 5\)": (cuda.pack_attention, PLAIN._replace(reach=(5, 5))),
    "norms before the blocks": (cuda.pack_attention, PLAIN._replace(keeps_sum=True)),
    "with a gate or without GELU": (
        cuda.pack_feed_forward,
        FeedForward(None, Linear(None, None), None, "gelu", NO_NORM, False),
    ),
    "a gate or without GELU": (cuda.pack_feed_forward, FeedForward(None, None, None, "silu", NO_NORM, False)),
    "pooling 'mean'": (cuda.pack_head, Head("mean", ())),
    "a head with Norm": (cuda.pack_head, Head("first", (NO_NORM,))),
    "a head with tanh": (cuda.pack_head, Head("first", ("tanh",))),
    "projected before": (
        cuda.pack_embedding,
        Embedding(ONE, ONE, None, NO_NORM, None, projects_first=True),
    ),
    "positions of the kind Disentangled": (cuda.pack_positions, Disentangled(None, None, None)),
    "a convolution": (cuda.pack_convolution, Convolution(None, "tanh", NO_NORM, keeps_sum=False)),
}


@pytest.mark.parametrize("what", LACKING)
def test_what_a_backend_lacks_it_refuses_by_name_before_it_packs_anything(what):
    pack, record = LACKING[what]
    with pytest.raises(NotImplementedError, match=what):
        pack(record, "float32")


@pytest.mark.parametrize("backend", [cpu, cuda, reference])
def test_backends_offer_the_same_blocks_with_the_same_parameters(backend):
    methods = [name for name in (*vars(Blocks), *vars(Backend)) if not name.startswith("_")]
    assert "attention_block" in methods
    assert isinstance(backend.LARGEST_SHARD, int)
    if backend is cuda:  # which refuses the weights of these blocks
        methods = [name for name in methods if "convolve" not in name]
    for name in methods:
        expected = list(inspect.signature(getattr(Backend, name)).parameters)[1:]  # without self
        assert list(inspect.signature(getattr(backend, name)).parameters) == expected, name
