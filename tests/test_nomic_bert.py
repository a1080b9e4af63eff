"""NomicBERT's config.json: what is read, and what is refused. (Scores: test_goldens, test_parity_families.)"""

import numpy as np
import pytest
from checkpoints import GOLDENS, copy_checkpoint, edit_json, edit_tensors, logits_of
from hostile_pairs import PAIRS
from numbert import CrossEncoder
from numbert.engine.assembly import assemble
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.errors import ConfigError, WeightsError
from numbert.loaders.spec import ATTENTION, FEED_FORWARD, LayerRule

pytestmark = pytest.mark.usefixtures("files_at_rest")

SOME = PAIRS[:40]


@pytest.fixture
def folder(tmp_path):
    return copy_checkpoint("nomic-bert", tmp_path)


def spec_of(folder):
    with load_checkpoint(folder) as checkpoint:
        return checkpoint.spec


def change(folder, *absent, **settings):
    edit_json(folder / "config.json", lambda config: (config.update(settings), [config.pop(key) for key in absent]))


REFUSED = {
    "head_dim": (17, "None or 18"),
    "num_attention_heads": (12, "heads of an even width"),  # of 3
    "max_position_embeddings": (1 << 20, "at most 466033 with heads of 18"),
    "hidden_act": ("mish", "'gelu' or 'gelu_new' or"),
    "layer_norm_eps": (0, "a number between 0 and 0.01"),
    "num_hidden_layers": (0, "an integer from 1"),
    "type_vocab_size": (0, "an integer from 1 to 16"),
    "rope_scaling": ({"type": "dynamic", "factor": 2.0}, "only the plain rates"),
    "rope_parameters": ({"rope_theta": 1e4, "factor": 2}, "the rope_type 'default'"),
    "position_embedding_type": ("alibi", "'absolute' or None"),
    "is_decoder": (True, "decoders"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_computed_is_refused_by_name(folder, key):
    value, expected = REFUSED[key]
    change(folder, "head_dim", **({"head_dim": None, key: value} if key == "num_attention_heads" else {}))
    change(folder, **{key: value})
    with pytest.raises(ConfigError, match=rf"config\.json: {key}: .*") as caught:
        spec_of(folder)
    assert expected in str(caught.value)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "llama3", None])
def test_rates_of_other_kinds_are_refused(folder, kind):
    change(folder, rope_parameters={"rope_type": kind, "rope_theta": 1000.0})
    with pytest.raises(ConfigError, match=r"rope_parameters: found .*'default', the only one implemented"):
        spec_of(folder)


@pytest.mark.parametrize("rule", [7, [], "fast"])
def test_rope_parameters_are_an_object(folder, rule):
    change(folder, rope_parameters=rule)
    with pytest.raises(ConfigError, match="an object with rope_theta"):
        spec_of(folder)


@pytest.mark.parametrize("theta", [-1, 0, "fast", 1e-300, 1e300, True])
def test_the_base_of_the_rates_is_checked_in_both_spellings(folder, theta):
    change(folder, rope_parameters={"rope_theta": theta})
    with pytest.raises(ConfigError, match=r"rope_parameters: rope_theta: found .*, expected a number between"):
        spec_of(folder)
    change(folder, "rope_parameters", rope_theta=theta)
    with pytest.raises(ConfigError, match=r"config\.json: rope_theta: found .*, expected a number between"):
        spec_of(folder)


def test_both_spellings_of_the_base_are_read_the_newer_first(folder):
    assert spec_of(folder).layers == (LayerRule(1000.0),) * 3
    change(folder, rope_parameters={"rope_type": "default", "rope_theta": 50.0}, rope_theta=7.0)
    assert spec_of(folder).layers == (LayerRule(50.0),) * 3
    for newer in ({"rope_type": "default"}, {}, None):
        change(folder, rope_parameters=newer)
        assert spec_of(folder).layers == (LayerRule(7.0),) * 3


def test_what_is_absent_is_as_in_transformers(folder):
    expected = logits_of(CrossEncoder(folder), SOME)
    change(folder, "rope_parameters", "hidden_act", "head_dim", "layer_norm_eps", "type_vocab_size")
    spec = spec_of(folder)
    assert (spec.layers[0].theta, spec.activation, spec.norm_eps, spec.num_token_types) == (1000.0, "silu", 1e-12, 2)
    assert (logits_of(CrossEncoder(folder), SOME) == expected).all()


def test_every_rule_is_read(folder):
    spec = spec_of(folder)
    assert (spec.has_position_table, spec.gated, spec.pre_norm) == (False, True, False)
    assert spec.without_bias == {*ATTENTION, *FEED_FORWARD}
    assert spec.head[1] == "tanh"


@pytest.mark.parametrize("name", ["attn.Wqkv", "attn.out_proj", "mlp.fc11", "mlp.fc2"])
def test_a_bias_that_is_not_promised_is_refused(folder, name):
    bias = {f"nomic_bert.encoder.layers.0.{name}.bias": np.zeros(36, np.float32)}
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(bias))
    with pytest.raises(WeightsError, match=rf"has more than config\.json promises.*{name}\.bias"):
        spec_of(folder)


@pytest.mark.parametrize("name", ["encoder.layers.1.norm2.bias", "emb_ln.bias", "pooler.dense.bias"])
def test_a_bias_that_is_lacking_is_named(folder, name):
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop(f"nomic_bert.{name}"))
    with pytest.raises(WeightsError, match=rf"lacks nomic_bert\.{name}"):
        spec_of(folder)


def test_fused_rows_of_another_number_are_refused(folder):
    name = "nomic_bert.encoder.layers.1.attn.Wqkv.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({name: tensors[name][:-1]}))
    with pytest.raises(WeightsError, match=r"found shape \(107, 36\), config\.json promises \(108, 36\)"):
        spec_of(folder)


def swap_gate(tensors):
    for i in range(3):
        first, second = (f"nomic_bert.encoder.layers.{i}.mlp.{name}.weight" for name in ("fc11", "fc12"))
        tensors[first], tensors[second] = tensors[second], tensors[first]


def swap_query_and_value(tensors):
    for i in range(3):
        name = f"nomic_bert.encoder.layers.{i}.attn.Wqkv.weight"
        query, key, value = np.split(tensors[name], 3)
        tensors[name] = np.concatenate([value, key, query])


def swap_types(tensors):
    name = "nomic_bert.embeddings.token_type_embeddings.weight"
    tensors[name] = np.ascontiguousarray(tensors[name][::-1])


@pytest.mark.parametrize("swap", [swap_gate, swap_query_and_value, swap_types])
def test_what_is_swapped_shows(folder, swap):
    expected = logits_of(CrossEncoder(folder), SOME)
    edit_tensors(folder / "model.safetensors", swap)
    assert np.abs(logits_of(CrossEncoder(folder), SOME) - expected).max() > 0.1  # logits spread by several units


@pytest.mark.parametrize("settings", [{"rope_parameters": {"rope_theta": 10_000.0}}, {"hidden_act": "gelu"}])
def test_what_is_read_wrong_would_show(folder, settings):
    expected = logits_of(CrossEncoder(folder), SOME)
    change(folder, **settings)
    assert np.abs(logits_of(CrossEncoder(folder), SOME) - expected).max() > 0.1


def test_the_gpu_refuses_by_name_what_it_lacks():
    from numbert.kernels.cuda import blocks

    with load_checkpoint(GOLDENS / "nomic-bert") as checkpoint, pytest.raises(NotImplementedError, match="positions"):
        assemble(checkpoint.spec, checkpoint.weights, blocks, "float32")
