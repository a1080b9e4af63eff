"""Families whose folders bring code of their own: how they are recognised, what is read, and what is refused.

(Scores: test_goldens, test_parity_remote.)
"""

import json

import numpy as np
import pytest
from checkpoints import GOLDENS, REMOTE, copy_checkpoint, edit_json, edit_tensors, logits_of
from hostile_pairs import PAIRS
from numbert import CrossEncoder
from numbert.kernels.positions import alibi_table, rotary_tables
from numbert.loaders import gte, gte_remote, jina_bert, jina_xlm, remote
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.errors import ConfigError, WeightsError
from numbert.loaders.spec import LayerRule
from safetensors.numpy import load_file

pytestmark = pytest.mark.usefixtures("files_at_rest")

ALL = ["gte", *REMOTE]
JINA_1, JINA_2, GTE = REMOTE
SOME = PAIRS[:40]
CODE = {"AutoModel": "modeling.Model"}


@pytest.fixture
def copy(tmp_path):
    return lambda name: copy_checkpoint(name, tmp_path)


def spec_of(folder):
    with load_checkpoint(folder) as checkpoint:
        return checkpoint.spec


def change(folder, **values):
    edit_json(folder / "config.json", lambda config: config.update(values))


def drop(folder, *keys):
    edit_json(folder / "config.json", lambda config: [config.pop(key, None) for key in keys])


def scores(folder):
    return logits_of(CrossEncoder(folder), SOME)


# ---- which family a folder is of


@pytest.mark.parametrize("name", ALL)
def test_a_known_family_is_read_with_its_code_or_without_it(copy, name):
    folder = copy(name)
    drop(folder, "auto_map")
    without = scores(folder)
    change(folder, auto_map=CODE)
    (folder / "modeling.py").write_text("raise SystemExit('this was run')")
    np.testing.assert_array_equal(scores(folder), without)


@pytest.mark.parametrize("name", ["narrow", "xlm-roberta", "modernbert", "mpnet"])
def test_unknown_code_is_refused_by_what_is_known(copy, name):
    folder = copy(name)
    change(folder, auto_map=CODE)
    with pytest.raises(ConfigError, match="auto_map: the model brings its own code, which is never run") as caught:
        spec_of(folder)
    for module in remote.MODULES:
        assert module.SIGN in str(caught.value)
    assert "model_type 'bert', position_embedding_type 'alibi', bert.encoder.layer.0.mlp.gated_layers.weight" in str(
        caught.value
    )


@pytest.mark.parametrize("values", [{"position_embedding_type": "absolute"}, {"model_type": "electra"}])
def test_tensors_without_the_keys_are_not_enough(copy, values):
    folder = copy(JINA_1)
    change(folder, **values)
    with pytest.raises(ConfigError, match="auto_map"):
        spec_of(folder)


def test_keys_without_the_tensors_are_not_enough(copy):
    folder = copy("narrow")
    change(folder, position_embedding_type="alibi", feed_forward_type="geglu")
    with pytest.raises(ConfigError, match="position_embedding_type: found 'alibi', expected 'absolute'"):
        spec_of(folder)
    change(folder, auto_map=CODE)
    with pytest.raises(ConfigError, match="auto_map"):
        spec_of(folder)


@pytest.mark.parametrize("kind", [["bert"], {"bert": 1}, None, 3])
@pytest.mark.parametrize("key", ["model_type", "position_embedding_type"])
def test_keys_of_any_type_are_refused(copy, key, kind):
    folder = copy(JINA_1)
    change(folder, **{key: kind})
    with pytest.raises(ConfigError, match="auto_map"):
        spec_of(folder)


@pytest.mark.parametrize("name", ALL)
def test_the_class_must_be_that_with_a_head(copy, name):
    folder = copy(name)
    change(folder, architectures=["NewModel"])
    with pytest.raises(ConfigError, match=r"architectures: found .*a model with a classification head"):
        spec_of(folder)


@pytest.mark.parametrize("name", ALL)
def test_tensors_that_nothing_promises_are_refused(copy, name):
    folder = copy(name)
    more = {"lora.weight": np.zeros((2, 2), np.float32)}
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(more))
    with pytest.raises(WeightsError, match=r"has more than config\.json promises: lora\.weight"):
        spec_of(folder)


@pytest.mark.parametrize("first", ["bert.", ""])
def test_norms_of_queries_are_refused_by_name(copy, first):
    folder = copy(JINA_1)
    norm = {f"{first}encoder.layer.0.attention.self.layer_norm_q.weight": np.ones(48, np.float32)}
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(norm))
    with pytest.raises(WeightsError, match=r"layer_norm_q\.weight, .* jina-bert-v2-qk-post-norm"):
        spec_of(folder)


def test_gte_is_read_under_both_names_with_both_types(copy):
    folder = copy("gte")
    expected = scores(folder)

    def rename(tensors):
        for name in [name for name in tensors if name.startswith("gte.")]:
            tensors[name.replace("gte.", "new.", 1)] = tensors.pop(name)

    change(folder, model_type="new", architectures=["NewForSequenceClassification"])
    np.testing.assert_array_equal(scores(folder), expected)
    edit_tensors(folder / "model.safetensors", rename)
    np.testing.assert_array_equal(scores(folder), expected)
    change(folder, model_type="gte", architectures=["GteForSequenceClassification"])
    np.testing.assert_array_equal(scores(folder), expected)


# ---- how many logits


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize("labels", [1, 3])
def test_the_last_layer_says_how_many_labels_there_are_where_nothing_else_does(copy, name, labels):
    folder = copy(name)
    drop(folder, "id2label", "num_labels")
    last = "classifier.out_proj" if name == JINA_2 else "classifier"
    more = {f"{last}.weight": np.ones((labels, spec_of(folder).hidden_size), np.float32)}
    more[f"{last}.bias"] = np.zeros(labels, np.float32)
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(more))
    assert spec_of(folder).num_labels == labels
    change(folder, num_labels=labels)
    assert spec_of(folder).num_labels == labels
    change(folder, num_labels=labels + 1)
    with pytest.raises(WeightsError, match=rf"classifier.*found shape \({labels}, \d+\), config\.json promises"):
        spec_of(folder)


@pytest.mark.parametrize("last", [None, np.zeros((), np.float32), np.zeros((0, 48), np.float32)])
def test_a_last_layer_that_is_none_is_refused(copy, last):
    folder = copy(JINA_1)

    def spoil(tensors):
        del tensors["classifier.weight"]
        if last is not None:
            tensors["classifier.weight"] = last

    edit_tensors(folder / "model.safetensors", spoil)
    with pytest.raises((ConfigError, WeightsError), match=r"classifier|num_labels"):
        spec_of(folder)


# ---- what is read


def test_the_first_jina_reranker_is_read(copy):
    folder = copy(JINA_1)
    spec = spec_of(folder)
    assert spec.alibi
    assert spec.gated
    assert not spec.has_position_table
    assert spec.activation == "gelu"
    assert spec.without_bias == {"feed_forward.gate", "feed_forward.up"}
    assert (spec.usable_length, spec.num_token_types, spec.num_labels) == (64, 2, 1)
    change(folder, feed_forward_type="reglu", hidden_act="silu")
    assert spec_of(folder).activation == "relu"


def test_slopes_of_six_heads_are_four_and_two_of_the_next_eight():
    bias = alibi_table(9, 6).table
    slopes = [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    np.testing.assert_array_equal(bias, -np.array(slopes)[:, None] * np.abs(np.arange(-8, 9)))


def test_token_type_0_is_added_though_no_token_has_another(copy):
    folder, name = copy(JINA_1), "bert.embeddings.token_type_embeddings.weight"
    expected = scores(folder)
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors[name].__setitem__(1, 7))
    np.testing.assert_array_equal(scores(folder), expected)
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors[name].__setitem__(0, 7))
    assert np.abs(scores(folder) - expected).max() > 0.1


def test_positions_of_the_second_jina_reranker_begin_behind_that_of_padding(copy):
    folder, name = copy(JINA_2), "roberta.embeddings.position_embeddings.weight"
    spec = spec_of(folder)
    assert (spec.first_position, spec.usable_length) == (2, 64)
    expected = scores(folder)
    assert not any("<pad>" in text for pair in SOME for text in pair)  # which would take row 1
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors[name].__setitem__(slice(2), 7))
    np.testing.assert_array_equal(scores(folder), expected)
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors[name].__setitem__(2, 7))
    assert np.abs(scores(folder) - expected).max() > 0.1


@pytest.mark.parametrize("name", ["gte", GTE, JINA_1])
def test_swapped_halves_of_the_gate_show(copy, name):
    folder = copy(name)
    expected, inner = scores(folder), spec_of(folder).intermediate_size

    def swap(tensors):
        for key in [key for key in tensors if "gate" in key]:
            tensors[key] = np.ascontiguousarray(np.roll(tensors[key], inner, axis=0))

    edit_tensors(folder / "model.safetensors", swap)
    assert np.abs(scores(folder) - expected).max() > 0.1  # logits spread by half a unit and more


FUSED = {
    "gte": "gte.encoder.layer.1.attention.qkv_proj",
    GTE: "new.encoder.layer.1.attention.qkv_proj",
    JINA_2: "roberta.encoder.layers.1.mixer.Wqkv",
}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_rows_of_queries_keys_and_values_are_in_that_order(name, kind):
    fused = load_file(GOLDENS / name / "model.safetensors")[f"{FUSED[name]}.{kind}"]
    with load_checkpoint(GOLDENS / name) as checkpoint:
        parts = [checkpoint.weights[f"layers.1.attention.{part}.{kind}"] for part in ("query", "key", "value")]
    np.testing.assert_array_equal(np.concatenate(parts), fused)


# ---- rates of GTE


def test_rates_of_the_ntk_kind_are_slower_twice_at_every_length():
    spec, factor, width = spec_of(GOLDENS / GTE), 8.0, 18
    assert set(spec.layers) == {LayerRule(300.0 * factor, slower=factor ** (2 / width))}
    rule = spec.layers[0]
    rates = (300.0 * factor) ** (-np.arange(0, width, 2) / width) / factor ** (2 / width)
    for positions in (2, 9, 64):
        table = rotary_tables(positions, width, rule.theta, rule.slower)
        angles = np.arange(positions)[:, None] * rates
        # Angles of up to 64 from rates that were rounded to float32.
        np.testing.assert_allclose(table.cosine, np.cos(angles), atol=64 * 2**-23)
        np.testing.assert_allclose(table.sine, np.sin(angles), atol=64 * 2**-23)


@pytest.mark.parametrize("values", [{"rope_scaling": None}, {"rope_scaling": {"type": "ntk", "factor": 7.0}}])
def test_the_factor_is_used_for_short_pairs_too(copy, values):
    folder = copy(GTE)
    short = [("a", "b"), ("rain", "the river")]
    expected = logits_of(CrossEncoder(folder), short)
    change(folder, **values)
    assert np.abs(logits_of(CrossEncoder(folder), short) - expected).max() > 1e-3  # float32 differs by 1e-5 at most


THETAS = [
    ({}, 160_000.0, 10_000.0),
    ({"rope_theta": 5.0}, 5.0, 5.0),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 6.0}}, 6.0, 6.0),
    ({"rope_parameters": {"rope_type": "default"}, "rope_theta": 5.0}, 5.0, 5.0),
    ({"rope_parameters": {"rope_theta": 6.0}, "rope_theta": 5.0}, 6.0, 6.0),
    ({"rope_parameters": None, "rope_scaling": None, "rope_theta": 5}, 5.0, 5.0),
]


@pytest.mark.parametrize(("values", "of_gte", "of_new"), THETAS)
def test_both_spellings_of_theta_and_the_defaults_of_both_classes(copy, values, of_gte, of_new):
    for name, theta in (("gte", of_gte), (GTE, of_new)):
        folder = copy(name)
        drop(folder, "rope_parameters", "rope_scaling", "rope_theta")
        change(folder, **values)
        assert set(spec_of(folder).layers) == {LayerRule(theta)}


def test_a_rule_of_the_ntk_kind_may_be_in_either_place_or_in_both(copy):
    folder = copy(GTE)
    expected = spec_of(folder).layers
    rule = {"type": "ntk", "rope_type": "ntk", "factor": 8.0, "rope_theta": 300.0, "mixed_b": None}
    change(folder, rope_parameters=rule, rope_scaling=None)
    assert spec_of(folder).layers == expected
    change(folder, rope_scaling=rule)
    assert spec_of(folder).layers == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"type": "linear", "factor": 8.0}, "rope_scaling: found .*, expected the kind 'default', or 'ntk'"),
        ({"rope_type": "yarn", "factor": 8.0}, "rope_scaling: found .*, expected the kind 'default', or 'ntk'"),
        ({"type": ["ntk"], "factor": 8.0}, "rope_scaling: found .*, expected the kind 'default', or 'ntk'"),
        ({"type": "default", "factor": 8.0}, "rope_scaling: found .*, expected the kind 'default', or 'ntk'"),
        ({"factor": 8.0}, "rope_scaling: found .*, expected the kind 'default', or 'ntk'"),
        ({"type": "ntk", "factor": 8.0, "mixed_b": 0.5}, "rope_scaling: found .*mixed_b.*, expected the kind"),
        ({"type": "ntk", "rope_type": "default"}, "rope_scaling: found .*, expected one kind, not two"),
        ({"type": "ntk"}, "rope_scaling: factor: found nothing"),
        ({"type": "ntk", "factor": 0}, "rope_scaling: factor: found 0, expected a number between"),
        ({"type": "ntk", "factor": "8"}, "rope_scaling: factor: found '8', expected a number between"),
        ({"type": "ntk", "factor": 8.0, "rope_theta": None}, "rope_scaling: rope_theta: found nothing"),
        ("ntk", "rope_scaling: found 'ntk', expected an object"),
    ],
)
def test_other_rates_are_refused(copy, rule, expected):
    folder = copy(GTE)
    change(folder, rope_scaling=rule)
    with pytest.raises(ConfigError, match=expected):
        spec_of(folder)


def test_two_rules_that_differ_are_refused(copy):
    folder = copy(GTE)
    change(folder, rope_parameters={"rope_type": "default", "rope_theta": 300.0})
    with pytest.raises(ConfigError, match=r"rope_scaling: found .*, expected what rope_parameters says, or nothing"):
        spec_of(folder)


# ---- what is refused by name

REFUSED = [
    (JINA_1, "feed_forward_type", "original", "'geglu' or 'reglu'"),
    (JINA_1, "feed_forward_type", None, "'geglu' or 'reglu'"),
    (JINA_1, "type_vocab_size", 0, "an integer from 1"),
    (JINA_1, "max_position_embeddings", 349_526, "at most 349525 with 6 heads"),
    (JINA_1, "is_decoder", True, "decoders"),
    (JINA_2, "position_embedding_type", "rotary", "no other rule of positions"),
    (JINA_2, "hidden_act", "mish", "'gelu' or 'gelu_new' or"),
    (GTE, "position_embedding_type", "absolute", "no other rule of positions"),
    (GTE, "layer_norm_type", "rms_norm", "the only norm that is implemented"),
    (GTE, "logn_attention_scale", True, "scores that grow with the length"),
    (GTE, "head_dim", 9, "None or 18"),
    (GTE, "num_attention_heads", 4, "heads of an even width"),
    (GTE, "max_position_embeddings", 466_034, "at most 466033 with heads of 18"),
    (GTE, "rope_theta", 1e-300, "a number between 1e-30"),
    (GTE, "type_vocab_size", 17, "an integer from 0 to 16"),
]


@pytest.mark.parametrize(("name", "key", "value", "expected"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(copy, name, key, value, expected):
    folder = copy(name)
    change(folder, **{key: value})
    with pytest.raises(ConfigError, match=rf"config\.json: {key}: found") as caught:
        spec_of(folder)
    assert expected in str(caught.value)


@pytest.mark.parametrize(("name", "longest"), [(JINA_1, 349_525), (GTE, 466_033)])
def test_as_many_positions_as_the_refusal_names_are_read(copy, name, longest):
    folder = copy(name)
    change(folder, max_position_embeddings=longest)
    assert spec_of(folder).usable_length == longest


def test_gte_may_have_no_token_types(copy):
    folder = copy("gte")
    change(folder, type_vocab_size=0)
    name = "gte.embeddings.token_type_embeddings.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop(name))
    assert spec_of(folder).num_token_types == 0
    assert np.isfinite(scores(folder)).all()


def test_the_goldens_are_of_the_families_that_their_names_say():
    expected = {"gte": gte, JINA_1: jina_bert, JINA_2: jina_xlm, GTE: gte_remote}
    for name, module in expected.items():
        config = json.loads((GOLDENS / name / "config.json").read_text())
        tensors = load_file(GOLDENS / name / "model.safetensors")
        assert module.SIGN in tensors
        assert ("auto_map" in config) == (name != "gte")
