"""ALBERT's config.json: what is read, what is refused; and layers that share weights, which are kept once.

(Scores: test_goldens, test_parity_families.)
"""

import tracemalloc

import numpy as np
import pytest
from checkpoints import GOLDENS, copy_checkpoint, edit_json, edit_tensors, load_golden, logits_of
from hostile_pairs import PAIRS
from numbert import CrossEncoder
from numbert.engine.assembly import assemble
from numbert.kernels.reference import blocks as reference
from numbert.loaders.albert import NAMES
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.errors import ConfigError, WeightsError
from numbert.loaders.names import tensor_table
from numbert.loaders.spec import LayerRule
from random_models import make_spec, random_weights

SOME = PAIRS[:40]


@pytest.fixture
def folder(tmp_path):
    return copy_checkpoint("albert", tmp_path)


def spec_of(folder):
    with load_checkpoint(folder) as checkpoint:
        return checkpoint.spec


def change(folder, **settings):
    edit_json(folder / "config.json", lambda config: config.update(settings))


REFUSED = {
    "num_hidden_layers": (1025, "an integer from 1 to 1024"),
    "num_hidden_groups": (4, "an integer from 1 to 3"),  # more than layers
    "inner_group_num": (342, "an integer from 1 to 341"),  # more than 1024 layers in all
    "embedding_size": (None, "found nothing"),
    "hidden_act": ("mish", "'gelu' or 'gelu_new' or"),
    "layer_norm_eps": (0, "a number between 0 and 0.01"),
    "type_vocab_size": (0, "an integer from 1 to 16"),
    "max_position_embeddings": (0, "an integer from 1"),
    "position_embedding_type": ("relative_key", "'absolute' or None"),
    "is_decoder": (True, "decoders"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_computed_is_refused_by_name(folder, key):
    value, expected = REFUSED[key]
    change(folder, **{key: value})
    with pytest.raises(ConfigError, match=rf"config\.json: {key}: .*") as caught:
        spec_of(folder)
    assert expected in str(caught.value)


def test_every_size_is_read(folder):
    spec = spec_of(folder)
    assert spec.layers == (LayerRule(),) * 6  # 3 times through the 2 layers of a group
    assert (spec.layers_with_weights, spec.layers_in_group) == (4, 2)
    assert (spec.embedding_size, spec.projection, spec.activation, spec.head[1]) == (18, "after", "gelu_tanh", "tanh")


def test_what_is_absent_is_as_in_transformers(folder):
    for key in ("num_hidden_groups", "inner_group_num", "embedding_size", "hidden_act", "layer_norm_eps"):
        edit_json(folder / "config.json", lambda config, key=key: config.pop(key))
    with pytest.raises(WeightsError, match="has more than"):  # a second group, and a second layer of the first
        spec_of(folder)
    kept = "albert_layer_groups.0.albert_layers.0."

    def narrow(tensors):
        for name in [name for name in tensors if "albert_layers" in name and kept not in name]:
            del tensors[name]
        for name in [name for name in tensors if name.startswith("albert.embeddings")]:
            tensors[name] = np.resize(tensors[name], (*tensors[name].shape[:-1], 128))
        tensors["albert.encoder.embedding_hidden_mapping_in.weight"] = np.ones((48, 128), np.float32)

    edit_tensors(folder / "model.safetensors", narrow)
    spec = spec_of(folder)
    assert (spec.num_layers, spec.layers_with_weights, spec.layers_in_group) == (3, 1, 1)
    assert (spec.embedding_size, spec.activation, spec.norm_eps) == (128, "gelu_tanh", 1e-12)


def test_the_projection_is_there_where_sizes_are_equal_too(folder):
    change(folder, embedding_size=48)
    with pytest.raises(WeightsError, match=r"found shape \(503, 18\), config\.json promises \(503, 48\)"):
        spec_of(folder)

    def widen(tensors):
        for name in [name for name in tensors if name.startswith("albert.embeddings")]:
            tensors[name] = np.resize(tensors[name], (*tensors[name].shape[:-1], 48))
        tensors["albert.encoder.embedding_hidden_mapping_in.weight"] = np.eye(48, dtype=np.float32)

    edit_tensors(folder / "model.safetensors", widen)
    with load_checkpoint(folder) as checkpoint:
        assert checkpoint.weights["projection.weight"].shape == (48, 48)
    before = logits_of(CrossEncoder(folder), SOME)
    name = "albert.encoder.embedding_hidden_mapping_in.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({name: -tensors[name]}))
    assert np.abs(logits_of(CrossEncoder(folder), SOME) - before).max() > 0.1


def test_heads_of_pre_training_may_be_there(folder):
    more = {"predictions.bias": np.zeros(3, np.float32), "sop_classifier.classifier.bias": np.zeros(2, np.float32)}
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update(more))
    spec_of(folder)


def test_a_layer_that_is_lacking_is_named(folder):
    name = "albert.encoder.albert_layer_groups.1.albert_layers.1.ffn.bias"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop(name))
    with pytest.raises(WeightsError, match=rf"lacks {name}"):
        spec_of(folder)


def test_tokenizers_of_albert_give_no_types():
    golden = load_golden("albert")
    assert max(map(max, golden.type_ids)) == 0  # though tokenizer.json has them, and the model two rows for them
    with load_checkpoint(golden.folder) as checkpoint:
        assert checkpoint.tokenizer.template.types == (0, 0, 0, 0, 0)
        assert checkpoint.spec.num_token_types == 2


# ---- layers that share weights


def layers_of(turns, groups, in_group):
    """Return the numbers of the layers with weights in the order of use, as transformers goes through them."""
    order = []
    for i in range(turns):
        group = int(i / (turns / groups))
        order += [group * in_group + inner for inner in range(in_group)]
    return order


@pytest.mark.parametrize(("turns", "groups", "in_group"), [(12, 1, 1), (3, 2, 2), (7, 3, 1), (49, 31, 1), (5, 5, 3)])
def test_groups_are_gone_through_in_the_order_of_transformers(turns, groups, in_group):
    spec = make_spec(8, 1, 8, turns * in_group, 1, layers_with_weights=groups * in_group, layers_in_group=in_group)
    assert [spec.weights_of_layer(i) for i in range(spec.num_layers)] == layers_of(turns, groups, in_group)


def test_layers_with_the_same_weights_are_packed_once():
    with load_checkpoint(GOLDENS / "albert") as checkpoint:
        layers = assemble(checkpoint.spec, checkpoint.weights, reference, "float32").layers
    assert len({id(layer) for layer in layers}) == 4
    assert [layer is layers[0] for layer in layers] == [True, False, True, False, False, False]
    assert [layer is layers[5] for layer in layers] == [False, False, False, False, False, True]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_more_turns_take_no_more_memory(precision, rng):
    cpu = pytest.importorskip("numbert.kernels.cpu.compiled", reason="the CPU backend needs Numba")
    taken = []
    for turns in (1, 1, 12):  # the first compiles
        spec = make_spec(96, 2, 384, turns, 1, layers_with_weights=1)
        weights = random_weights(rng, spec)
        tracemalloc.start()
        encoder = assemble(spec, weights, cpu, precision)
        taken.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(encoder.layers) == turns
    assert taken[1] > 96 * 384 * 2  # bytes, of the two layers of a feed-forward block
    assert taken[2] < 1.05 * taken[1]


def test_a_wrong_order_of_groups_would_show(folder):
    expected = logits_of(CrossEncoder(folder), SOME)
    change(folder, num_hidden_layers=4)  # group 1 twice, not once
    assert np.abs(logits_of(CrossEncoder(folder), SOME) - expected).max() > 0.1


def test_the_names_are_those_of_groups_and_their_layers(folder):
    table = tensor_table(spec_of(folder), NAMES)
    place = "albert.encoder.albert_layer_groups.{}.albert_layers.{}.ffn.weight"
    found = [table[f"layers.{i}.feed_forward.up.weight"].name for i in range(4)]
    assert found == [place.format(group, inner) for group in (0, 1) for inner in (0, 1)]


def test_another_activation_would_show(folder):
    expected = logits_of(CrossEncoder(folder), SOME)
    change(folder, hidden_act="gelu")
    assert np.abs(logits_of(CrossEncoder(folder), SOME) - expected).max() > 3e-4  # three times what is promised
