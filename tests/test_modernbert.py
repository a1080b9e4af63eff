"""ModernBERT's config.json: what is read, and what is refused. (Scores: test_goldens, test_parity_modernbert.)"""

import numpy as np
import pytest
from checkpoints import GOLDENS, copy_checkpoint, edit_json, edit_tensors, logits_of
from hostile_pairs import PAIRS
from numbert import CrossEncoder
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.errors import ConfigError, WeightsError
from numbert.loaders.spec import LayerRule
from random_models import WITHOUT_BIAS

FULL, SLIDING = "full_attention", "sliding_attention"
pytestmark = pytest.mark.usefixtures("files_at_rest")

SOME = PAIRS[:40]


@pytest.fixture
def folder(tmp_path):
    return copy_checkpoint("modernbert", tmp_path)


def spec_of(folder):
    with load_checkpoint(folder) as checkpoint:
        return checkpoint.spec


REFUSED = {
    "hidden_activation": ("mish", "'gelu' or 'gelu_new' or"),
    "classifier_activation": ("mish", "'gelu' or 'gelu_new' or"),
    "classifier_pooling": ("max", "'cls' or 'mean'"),
    "head_dim": (7, "None or 14"),
    "num_attention_heads": (2, "heads of an even width"),  # of 21
    "max_position_embeddings": (1 << 20, "at most 599186 with heads of 14"),
    "norm_eps": (0, "a number between 0 and 0.01"),
    "attention_bias": (1, "true or false"),
    "mlp_bias": ("no", "true or false"),
    "norm_bias": (None, "found nothing"),
    "classifier_bias": ([], "true or false"),
    "num_hidden_layers": (0, "an integer from 1"),
    "global_attn_every_n_layers": (0, "an integer from 1"),
    "layer_types": ([FULL] * 3, "a list of 4 times"),
    "local_attention": (-1, "an integer from 0"),
    "sliding_window": (9, "half of local_attention"),
    "global_rope_theta": (1e-300, "a number between 1e-30"),
    "local_rope_theta": ("fast", "a number between 1e-30"),
    "rope_scaling": ({"type": "yarn"}, "only the plain rates"),
    "rope_parameters": ({"rope_theta": 1e4}, "an object with 'full_attention' and 'sliding_attention'"),
    "is_decoder": (True, "decoders"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_computed_is_refused_by_name(folder, key):
    value, expected = REFUSED[key]
    edit_json(folder / "config.json", lambda config: config.update({key: value}))
    with pytest.raises(ConfigError, match=rf"config\.json: {key}: .*") as caught:
        spec_of(folder)
    assert expected in str(caught.value)


@pytest.mark.parametrize("layers", ["all", [FULL, "chunked_attention", FULL, FULL], [1, 2, 3, 4]])
def test_layer_types_must_be_known_ones(folder, layers):
    edit_json(folder / "config.json", lambda config: config.update(layer_types=layers))
    with pytest.raises(ConfigError, match=r"layer_types: found .*, expected a list of 4 times"):
        spec_of(folder)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"rope_type": "linear", "rope_theta": 1e4}, "the rope_type 'default'"),
        ({"rope_theta": 1e4, "factor": 2}, "the rope_type 'default'"),
        (7, "an object with rope_theta"),
        ({"rope_theta": -1}, "a number between 1e-30"),
        ({"rope_theta": None}, "found nothing"),
    ],
)
def test_the_newer_spelling_of_theta_is_checked(folder, rule, expected):
    edit_json(folder / "config.json", lambda config: config.update(rope_parameters={SLIDING: rule}))
    with pytest.raises(ConfigError, match=r"config\.json: rope_parameters: sliding_attention") as caught:
        spec_of(folder)
    assert expected in str(caught.value)


def test_the_older_spelling_and_the_defaults(folder):
    rules = spec_of(folder).layers
    assert rules == (LayerRule(900.0), *(LayerRule(30.0, (5, 5)),) * 2, LayerRule(900.0))
    for key in ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta", "local_attention"):
        edit_json(folder / "config.json", lambda config, key=key: config.pop(key))
    slow, fast = LayerRule(160_000.0), LayerRule(10_000.0, (64, 64))
    assert spec_of(folder).layers == (slow, fast, fast, slow)


def test_the_newer_spelling_goes_before_the_older(folder):
    newer = {FULL: {"rope_type": "default", "rope_theta": 5.0}, SLIDING: None}
    edit_json(
        folder / "config.json", lambda config: config.update(rope_parameters=newer, layer_types=[SLIDING, FULL] * 2)
    )
    assert spec_of(folder).layers == (LayerRule(30.0, (5, 5)), LayerRule(5.0)) * 2


def test_every_switch_is_read():
    spec = spec_of(GOLDENS / "modernbert-mean")
    assert spec.without_bias == frozenset()
    assert spec.pooling == "mean"
    assert spec.head[0].bias
    assert spec.head[1] == "relu"
    assert spec_of(GOLDENS / "modernbert").without_bias == WITHOUT_BIAS


def test_a_bias_that_the_switches_do_not_promise_is_refused(folder):
    bias = {"model.layers.0.attn.Wqkv.bias": np.zeros(126, np.float32)}
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(bias))
    with pytest.raises(WeightsError, match=r"has more than config\.json promises.*Wqkv\.bias"):
        spec_of(folder)


def test_fused_rows_of_another_number_are_refused(folder):
    name = "model.layers.1.mlp.Wi.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({name: tensors[name][:-1]}))
    with pytest.raises(WeightsError, match=r"Wi\.weight.*found shape \(89, 42\), config\.json promises \(90, 42\)"):
        spec_of(folder)


def test_a_number_that_is_not_finite_is_named_by_its_place_in_the_file(folder):
    def spoil(tensors):
        tensors["model.layers.1.attn.Wqkv.weight"][100, 3] = np.inf  # among the values, the last third

    edit_tensors(folder / "model.safetensors", spoil)
    with pytest.raises(WeightsError, match=r"Wqkv\.weight.*found inf at \(100, 3\)"):
        CrossEncoder(folder)


def test_swapped_halves_of_the_gate_show(folder):
    expected = logits_of(CrossEncoder(folder), SOME)

    def swap(tensors):
        for i in range(4):
            name = f"model.layers.{i}.mlp.Wi.weight"
            tensors[name] = np.ascontiguousarray(np.roll(tensors[name], 45, axis=0))

    edit_tensors(folder / "model.safetensors", swap)
    assert np.abs(logits_of(CrossEncoder(folder), SOME) - expected).max() > 0.1  # logits spread by several units


def test_the_gpu_refuses_by_name_what_it_lacks():
    from numbert.engine.assembly import assemble
    from numbert.kernels.cuda import blocks

    with load_checkpoint(GOLDENS / "modernbert") as checkpoint, pytest.raises(NotImplementedError, match="positions"):
        assemble(checkpoint.spec, checkpoint.weights, blocks, "float32")
