"""DeBERTa's config.json: what is read, what is refused; and its rules against the formulas, where they go wrong easily.

(Scores of transformers: test_goldens, test_parity_families.)
"""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba", reason="the CPU backend needs Numba")
from checkpoints import GOLDENS, copy_checkpoint, edit_json, edit_tensors, load_golden
from deberta_by_the_formula import Formula
from numbert import CrossEncoder
from numbert.engine.assembly import assemble
from numbert.engine.encoder import forward
from numbert.kernels.cpu import compiled as cpu
from numbert.kernels.reference import blocks as reference
from numbert.loaders import deberta, deberta_v1
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.errors import ConfigError, WeightsError
from numbert.loaders.files import ModelFiles
from numbert.loaders.names import tensor_table
from numbert.loaders.spec import Config, ConvolutionRule, DistanceRows
from numbert.loaders.tensors import open_weights, read_headers
from random_models import random_batch
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.usefixtures("files_at_rest")

VERSIONS = ("deberta-v3", "deberta-v2", "deberta-v1")


@pytest.fixture
def folder(tmp_path):
    return copy_checkpoint("deberta-v3", tmp_path)


def spec_of(folder):
    with load_checkpoint(folder) as checkpoint:
        return checkpoint.spec


# ---- config.json

TABLES = "as tables of distances are made at load"
REFUSED = {
    "relative_attention": (None, "found nothing"),
    "share_att_key": ("yes", "true or false"),
    "position_biased_input": (1, "true or false"),
    "position_buckets": (3, "none, or from 4 to 125"),
    "max_relative_positions": ("far", "an integer from -1"),
    "pos_att_type": (["p2p"], "some of ['c2p', 'p2c'], each once"),
    "norm_rel_ebd": (None, "words between bars"),
    "type_vocab_size": (-1, "an integer from 0 to 16"),
    "embedding_size": (None, "found nothing"),
    "attention_head_size": (13, "12 (hidden_size / num_attention_heads)"),
    "pooler_hidden_size": (35, "36 (the hidden size)"),
    "pooler_hidden_act": ("mish", "'gelu' or 'gelu_new' or"),
    "hidden_act": ("mish", "'gelu' or 'gelu_new' or"),
    "layer_norm_eps": (0, "a number between 0 and 0.01"),
    "max_position_embeddings": (700_000, f"at most 621378, {TABLES}"),
    "position_embedding_type": ("relative_key", "'absolute' or None"),
    "conv_kernel_size": (4, "an odd number"),
    "is_decoder": (True, "decoders"),
}


def refuses(folder, expected, **change):
    key = next(iter(change))
    edit_json(folder / "config.json", lambda config: config.update(change))
    with pytest.raises(ConfigError, match=rf"config\.json: {key}: .*") as caught:
        spec_of(folder)
    assert expected in str(caught.value)


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_computed_is_refused_by_name(folder, key):
    value, expected = REFUSED[key]
    refuses(folder, expected, **{key: value})


@pytest.mark.parametrize("kinds", ["", "c2p|", "c2p|c2p", ["c2p", "c2p"], [["c2p"]], [None], {}, False, 3, "p2p"])
@pytest.mark.parametrize("name", ["deberta-v3", "deberta-v1"])
def test_kinds_are_known_ones_each_once(name, kinds, tmp_path):
    # Version 1 would count a word that it does not know, an empty one too, when it scales the scores.
    refuses(copy_checkpoint(name, tmp_path), "some of ['c2p', 'p2c'], each once", pos_att_type=kinds)


@pytest.mark.parametrize(("buckets", "farthest"), [(1, -1), (2, -1), (126, -1), (12, 7), (5, 3)])
def test_buckets_whose_borders_are_not_defined_are_refused(folder, buckets, farthest):
    refuses(folder, "none, or from 4 to", position_buckets=buckets, max_relative_positions=farthest)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"conv_kernel_size": 2}, "an odd number"),
        ({"conv_kernel_size": None}, "found nothing"),
        ({"conv_groups": 3}, "a divisor of hidden_size"),
        ({"conv_groups": 0}, "an integer from 1"),
        ({"conv_groups": 1, "conv_kernel_size": 65535, "hidden_size": 1 << 12}, "a divisor of hidden_size, with at"),
        ({"conv_act": "mish"}, "'gelu' or 'gelu_new' or"),
        ({"num_hidden_layers": 1}, "at least 2 with a convolution"),
    ],
)
def test_a_convolution_that_is_not_computed_is_refused(tmp_path, change, expected):
    refuses(copy_checkpoint("deberta-v2", tmp_path), expected, **change)


def test_heads_of_version_1_that_are_mixed_are_refused(tmp_path):
    refuses(copy_checkpoint("deberta-v1", tmp_path), "heads that are mixed", talking_head=True)


PUBLISHED = {  # hidden, layers, heads, inner, and buckets
    "v3-large": (1024, 24, 16, 4096, 256),
    "v2-xlarge": (1536, 24, 24, 6144, 256),
    "v2-xxlarge": (1536, 48, 24, 6144, 256),
}


def published(name, **change):
    hidden, layers, heads, inner, buckets = PUBLISHED[name]
    sizes = {
        "model_type": "deberta-v2", "vocab_size": 128100, "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": inner, "max_position_embeddings": 512, "num_labels": 1,
        "attention_head_size": 64, "position_buckets": buckets, "relative_attention": True, "norm_rel_ebd":
        "layer_norm", "share_att_key": True, "pos_att_type": "p2c|c2p", "position_biased_input": False,
    }  # fmt: skip
    return deberta.read_spec(Config(GOLDENS / "config.json", {**sizes, **change}))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_within_the_limits(name):
    assert published(name).distance_rows == DistanceRows(("p2c", "c2p"), 256, 256, 512, normed=True, shared=True)


@pytest.mark.parametrize(
    "change",
    [
        {"max_position_embeddings": 8192},
        {"position_buckets": -1, "max_relative_positions": 8192},
        {"position_buckets": 8192, "max_relative_positions": 16384},
    ],
)
def test_tables_that_are_made_at_load_are_limited(change):
    with pytest.raises(ConfigError, match=rf"max_(position|relative).*found \d+, expected at most 910, {TABLES}"):
        published("v2-xxlarge", **change)
    published("v2-xxlarge", **change, pos_att_type=None)  # none are made


def test_every_rule_is_read():
    three, two, one = map(spec_of, (GOLDENS / name for name in VERSIONS))
    assert three.distance_rows == DistanceRows(("p2c", "c2p"), 16, 16, 64, normed=True, shared=True)
    assert two.distance_rows == DistanceRows(("p2c", "c2p"), 12, 12, 40, normed=False, shared=False)
    assert one.distance_rows == DistanceRows(("c2p", "p2c"), 20, 0, 20, normed=False, shared=False)
    assert [spec.score_terms for spec in (three, two, one)] == [3, 3, 3]
    assert [spec.has_position_table for spec in (three, two, one)] == [False, True, False]
    assert [spec.num_token_types for spec in (three, two, one)] == [0, 2, 0]
    assert [spec.projection for spec in (three, two, one)] == [None, "before", None]
    assert [spec.convolution for spec in (three, two, one)] == [None, ConvolutionRule(3, 1, "gelu"), None]
    assert {spec.head[1] for spec in (three, two, one)} == {"gelu"}


def test_what_is_absent_is_as_in_transformers(folder):
    kept = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings")  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    plain = deberta.read_spec(Config(folder, {key: config[key] for key in kept}))
    assert (plain.distance_rows, plain.score_terms, plain.convolution, plain.projection) == (None, 1, None, None)
    assert (plain.has_position_table, plain.num_token_types, plain.norm_eps, plain.num_labels) == (True, 0, 1e-7, 2)
    assert (plain.activation, plain.head[1]) == ("gelu", "gelu")
    relative = deberta.read_spec(Config(folder, {**{key: config[key] for key in kept}, "relative_attention": True}))
    assert relative.distance_rows == DistanceRows((), 64, 0, 64, normed=False, shared=False)


# ---- tensors


def test_a_table_of_positions_that_is_not_used_may_be_there(folder):
    expected = CrossEncoder(folder).predict(("a", "b"))
    table = {"deberta.embeddings.position_embeddings.weight": np.ones((64, 36), np.float32)}
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(table))
    assert CrossEncoder(folder).predict(("a", "b")) == expected


@pytest.mark.parametrize("name", ["rel_embeddings.weight", "LayerNorm.bias", "layer.1.attention.self.key_proj.bias"])
def test_a_tensor_that_is_lacking_is_named(folder, name):
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop(f"deberta.encoder.{name}"))
    with pytest.raises(WeightsError, match=rf"lacks deberta\.encoder\.{name}"):
        spec_of(folder)


@pytest.mark.parametrize("key", ["relative_attention", "norm_rel_ebd"])
def test_tensors_of_a_rule_that_the_configuration_lacks_are_refused(folder, key):
    edit_json(folder / "config.json", lambda config: config.pop(key))
    with pytest.raises(WeightsError, match=r"has more than config\.json promises: deberta\.encoder\.LayerNorm"):
        spec_of(folder)


@pytest.mark.parametrize("name", VERSIONS)
def test_the_formula_is_that_of_transformers(name):
    golden = load_golden(name)
    formula = Formula(
        json.loads((golden.folder / "config.json").read_text()), load_file(golden.folder / "model.safetensors")
    )
    some = range(0, len(golden.ids), 23)
    found = [formula.logits(np.array(golden.ids[i]), np.array(golden.type_ids[i])) for i in some]
    # transformers computed in float32: worst seen 5e-6.
    np.testing.assert_allclose(found, golden.logits[some.start : some.stop : some.step], atol=3e-5)


# ---- rules, against the formula

SIZES = {
    "vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 31,
    "max_position_embeddings": 700, "num_labels": 2, "relative_attention": True, "position_biased_input": False,
}  # fmt: skip
BOTH = ["c2p", "p2c"]
V2 = {
    **SIZES, "model_type": "deberta-v2", "position_buckets": 256, "max_relative_positions": 512, "pos_att_type": BOTH,
    "share_att_key": True, "norm_rel_ebd": "layer_norm",
}  # fmt: skip
V1 = {**SIZES, "model_type": "deberta", "max_relative_positions": 128, "pos_att_type": BOTH}
RULES = {
    "as published": V2,
    "few buckets": {**V2, "position_buckets": 8, "max_relative_positions": 40},
    "an odd number of buckets": {**V2, "position_buckets": 33},
    "no buckets": {**V2, "position_buckets": -1, "max_relative_positions": 129},
    "c2p only": {**V2, "pos_att_type": ["c2p"]},
    "p2c only": {**V2, "pos_att_type": "p2c"},
    "no kinds": {**V2, "pos_att_type": None},
    "layers of their own": {**V2, "share_att_key": False},
    "layers of their own, c2p only": {**V2, "share_att_key": False, "pos_att_type": ["c2p"]},
    "layers of their own, p2c only": {**V2, "share_att_key": False, "pos_att_type": ["p2c"]},
    "no norm": {**V2, "norm_rel_ebd": "none"},
    "kinds without distances": {**V2, "relative_attention": False, "norm_rel_ebd": "none"},
    "positions, types, narrow": {**V2, "position_biased_input": True, "type_vocab_size": 2, "embedding_size": 10},
    "convolution": {**V2, "conv_kernel_size": 3},
    "convolution in groups": {**V2, "conv_kernel_size": 5, "conv_groups": 4, "conv_act": "gelu"},
    "version 1": V1,
    "version 1, c2p only": {**V1, "pos_att_type": "c2p"},
    "version 1, p2c only": {**V1, "pos_att_type": "p2c"},
    "version 1, kinds without distances": {**V1, "relative_attention": False},
    "version 1, all distances": {**V1, "max_relative_positions": -1, "type_vocab_size": 2},
}
# Pairs are computed together, one after the other, so that nothing may cross from pair to pair. The longest have all
# distances around half of the buckets, where they begin to hold several, around the last bucket, and beyond.
LENGTHS = [3, 129, 1, 130, 200]
LONGER = [129, 513, 640]
LONG = {"as published", "an odd number of buckets", "no buckets", "version 1", "version 1, all distances"}


def make_checkpoint(config, folder, rng):
    """Write tensors; return the spec, weights as they are read, and the formula."""
    family = {"deberta": deberta_v1, "deberta-v2": deberta}[config["model_type"]]
    spec = family.read_spec(Config(folder / "config.json", config))
    table, tensors = tensor_table(spec, family.NAMES), {}
    for source in table.values():
        values = rng.standard_normal(source.shape)
        if "LayerNorm.weight" in source.name:
            values = 1 + 0.2 * values
        elif values.ndim == 1:
            values *= 0.2
        elif "embeddings" not in source.name:  # keeps the variance, times what makes attention choose and logits spread
            values *= (1 + (".self." in source.name) + 3 * (source.name == "classifier.weight")) / np.sqrt(
                values[0].size
            )
        tensors[source.name] = values.astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    return spec, open_weights(read_headers(ModelFiles(folder)), table, ()), Formula(config, tensors)


def by_formula(formula, batch):
    cuts = batch.offsets[1:-1]
    pairs = zip(np.split(batch.ids, cuts), np.split(batch.type_ids, cuts), strict=True)
    return np.array([formula.logits(ids, types) for ids, types in pairs])


def by_numbert(spec, weights, batch, ops=reference, precision="float64"):
    return forward(assemble(spec, weights, ops, precision), batch, ops, ops.make_team(1)[0])


@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_that_of_the_formula_for_pairs_of_all_lengths_together(name, tmp_path, rng):
    spec, weights, formula = make_checkpoint(RULES[name], tmp_path, rng)
    batch = random_batch(rng, spec, LENGTHS + LONGER * (name in LONG))
    expected = by_formula(formula, batch)
    assert expected.std(axis=0).min() > 0.3
    # Tables of distances are rounded to float32 once: worst seen 1e-6.
    np.testing.assert_allclose(by_numbert(spec, weights, batch), expected, atol=1e-5)
    # What numbert promises for float32: worst seen 3e-5.
    np.testing.assert_allclose(by_numbert(spec, weights, batch, cpu, "float32"), expected, atol=1e-4)


def with_rows(spec, **change):
    return replace(spec, distance_rows=spec.distance_rows._replace(**change))


TRAPS = {
    "the scale of plain attention": ("as published", lambda spec: replace(spec, score_terms=1)),
    "the scale of plain attention where no distance is used": (
        "kinds without distances",
        lambda spec: replace(spec, score_terms=1),
    ),
    "p2c left out": ("as published", lambda spec: with_rows(spec, kinds=("c2p",))),
    "c2p left out": ("as published", lambda spec: with_rows(spec, kinds=("p2c",))),
    "rows that are not normed": ("as published", lambda spec: with_rows(spec, normed=False)),
    "buckets that reach farther": ("as published", lambda spec: with_rows(spec, farthest=640)),
    "no buckets": ("few buckets", lambda spec: with_rows(spec, buckets=0)),
    "projection behind the norm": ("positions, types, narrow", lambda spec: replace(spec, projection="after")),
    "no convolution": ("convolution", lambda spec: replace(spec, convolution=None)),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_rule_that_is_overlooked_would_show(trap, tmp_path, rng):
    name, spring = TRAPS[trap]
    spec, weights, _ = make_checkpoint({**RULES[name], "embedding_size": 24}, tmp_path, rng)
    if trap.startswith("projection"):  # to the same size, so that the norm is as wide before as behind
        spec, weights = replace(spec, projection="before"), with_projection(weights, rng)
    batch = random_batch(rng, spec, [130, 512, 640])
    right, wrong = by_numbert(spec, weights, batch), by_numbert(spring(spec), weights, batch)
    assert np.abs(right - wrong).max() > 5e-3  # a hundred times what is allowed above, at least


def with_projection(weights, rng):
    return {**weights, "projection.weight": (rng.standard_normal((24, 24)) / 5).astype(np.float32)}


def test_rows_of_version_1_that_are_not_taken_by_head_would_show(tmp_path, rng, monkeypatch):
    spec, weights, _ = make_checkpoint(V1, tmp_path, rng)
    for name, theirs in deberta_v1.NAMES.items():
        if "in_proj" in theirs:
            monkeypatch.setitem(deberta_v1.NAMES, name, theirs.replace(" of heads", ""))
    thirds = open_weights(read_headers(ModelFiles(tmp_path)), tensor_table(spec, deberta_v1.NAMES), ())
    batch = random_batch(rng, spec, [3, 64])
    assert np.abs(by_numbert(spec, weights, batch) - by_numbert(spec, thirds, batch)).max() > 0.1


def test_a_convolution_does_not_cross_from_pair_to_pair(tmp_path, rng):  # the same bits: test_invariance
    spec, weights, formula = make_checkpoint(RULES["convolution in groups"], tmp_path, rng)
    batch = random_batch(rng, spec, [5, 1, 5, 2, 5])
    expected = by_formula(formula, batch)
    np.testing.assert_allclose(by_numbert(spec, weights, batch), expected, atol=1e-5)
    one_pair = batch._replace(offsets=batch.offsets[[0, -1]])
    assert np.abs(by_formula(formula, one_pair)[0] - expected[0]).max() > 0.1  # the first pair, if it had no end


@pytest.mark.parametrize("name", VERSIONS)
def test_float16_checkpoints_are_computed_as_their_numbers_are(name, tmp_path):
    folder = copy_checkpoint(name, tmp_path)
    edit_tensors(
        folder / "model.safetensors",
        lambda tensors: tensors.update({key: array.astype(np.float16) for key, array in tensors.items()}),
    )
    golden = load_golden(name)
    formula = Formula(json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors"))
    ids, types = np.array(golden.ids[7]), np.array(golden.type_ids[7])
    with load_checkpoint(folder) as checkpoint:
        assert checkpoint.weights.stored_dtypes() == ["F16"]
        spec = checkpoint.spec
        batch = random_batch(np.random.default_rng(0), spec, [len(ids)])._replace(ids=ids, type_ids=types)
        found = by_numbert(spec, checkpoint.weights, batch)[0]
    np.testing.assert_allclose(found, formula.logits(ids, types), atol=1e-5)  # tables are rounded to float32 once


@pytest.mark.parametrize("name", VERSIONS)
def test_the_gpu_refuses_by_name_what_it_lacks(name):
    from numbert.kernels.cuda import blocks

    with (
        load_checkpoint(GOLDENS / name) as checkpoint,
        pytest.raises(NotImplementedError, match=r"positions|projected"),
    ):
        assemble(checkpoint.spec, checkpoint.weights, blocks, "float32")
