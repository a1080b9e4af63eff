"""Encoders with modules behind them: what each is read as, and what is refused because it is not understood."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import GOLDENS, copy_checkpoint, edit_json, edit_tensors, load_golden, logits_of
from hostile_pairs import PAIRS
from numbert import ConfigError, CrossEncoder, ModelNotFoundError, NumbertError, SaveError, WeightsError
from numbert.loaders.checkpoint import load_checkpoint
from numbert.loaders.errors import ModelChangedError
from numbert.loaders.files import ModelFiles
from numbert.loaders.spec import LinearStep, NormStep, ResidualStep
from safetensors.numpy import load_file, save_file

MODULAR = "modular"  # ModernBERT of width 24, 1_Pooling (mean), 2_Dense (to 40, GELU), 3_LayerNorm, 4_Dense (to 1)
POOLING, DENSE, NORM, LAST = (
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "3_LayerNorm/config.json",
    "4_Dense/config.json",
)
SOME = PAIRS[::40]
TANH, GELU = "torch.nn.modules.activation.Tanh", "torch.nn.modules.activation.GELU"


@pytest.fixture
def folder(tmp_path):
    return copy_checkpoint(MODULAR, tmp_path)


def refused(folder, error, *parts):
    with pytest.raises(error) as caught:
        load_checkpoint(folder)
    assert type(caught.value) is error
    for part in parts:
        assert part in str(caught.value)


def change(folder, file, **values):
    """Set values of a JSON object; None takes the key away."""
    edit_json(
        folder / file,
        lambda content: [content.pop(k, None) if v is None else content.update({k: v}) for k, v in values.items()],
    )


def edit_list(folder, action):
    edit_json(folder / "modules.json", action)


def head_of(folder):
    return load_checkpoint(folder).spec.head


def scores(folder):
    return logits_of(CrossEncoder(folder, backend="reference", dtype="float64"), SOME)


# ---- what is understood


def test_the_chain_becomes_a_head():
    spec = load_checkpoint(GOLDENS / MODULAR).spec
    assert spec.pooling == "mean"
    assert spec.head == (
        LinearStep("head.1.linear", 24, 40, bias=True),
        "gelu",
        NormStep("head.2.norm", 40, 1e-5, bias=True),
        LinearStep("head.3.linear", 40, 1, bias=True),
    )
    assert spec.num_labels == 1


def test_weights_of_all_folders_are_one_mapping():
    weights = load_checkpoint(GOLDENS / MODULAR).weights
    files = [load_file(path) for path in sorted((GOLDENS / MODULAR).rglob("*.safetensors"))]
    assert len(files) == 4
    assert weights.num_parameters() == sum(array.size for tensors in files for array in tensors.values())
    dense = load_file(GOLDENS / MODULAR / "2_Dense" / "model.safetensors")
    np.testing.assert_array_equal(weights["head.1.linear.weight"], dense["linear.weight"])
    assert {"head.1.linear.bias", "head.2.norm.gain", "head.2.norm.bias", "head.3.linear.weight"} <= set(weights)


def test_dtypes_of_all_folders_are_told(folder):
    path = folder / "3_LayerNorm" / "model.safetensors"
    edit_tensors(path, lambda tensors: tensors.update({k: v.astype(np.float16) for k, v in tensors.items()}))
    assert load_checkpoint(folder).weights.stored_dtypes() == ["F16", "F32"]


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt"),
        ({"pooling_mode": "weightedmean"}, "weighted_mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({}, "mean"),
        ({"pooling_mode_cls_token": True}, "first"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt"),
        ({"pooling_mode_weightedmean_tokens": True}, "weighted_mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": "max", "pooling_mode_cls_token": True}, "max"),  # the older flags are dropped
        ({"include_prompt": True}, "mean"),
    ],
    ids=str,
)
@pytest.mark.parametrize("width", ["embedding_dimension", "word_embedding_dimension"])
def test_poolings_in_both_spellings(folder, settings, pooling, width):
    (folder / POOLING).write_text(json.dumps({width: 24, **settings}))
    assert load_checkpoint(folder).spec.pooling == pooling


ACTIVATIONS = [("Tanh", "tanh"), ("GELU", "gelu"), ("ReLU", "relu"), ("SiLU", "silu"), ("Sigmoid", "sigmoid")]


@pytest.mark.parametrize("prefix", ["torch.nn.modules.activation.", "torch.nn."])
@pytest.mark.parametrize(("name", "step"), ACTIVATIONS)
def test_activations_of_a_dense(folder, prefix, name, step):
    change(folder, DENSE, activation_function=prefix + name)
    assert head_of(folder)[1] == step


def test_a_dense_without_activation_is_bent_by_tanh(folder):
    change(folder, DENSE, activation_function=TANH)
    expected = scores(folder)
    change(folder, DENSE, activation_function=None)
    assert head_of(folder)[1] == "tanh"
    np.testing.assert_array_equal(scores(folder), expected)


@pytest.mark.parametrize("path", ["torch.nn.modules.linear.Identity", "torch.nn.Identity"])
def test_identity_is_no_step(folder, path):
    change(folder, DENSE, activation_function=path)
    assert [type(step) for step in head_of(folder)] == [LinearStep, NormStep, LinearStep]


def test_the_eps_of_a_norm_of_modules_is_not_the_encoders(folder):
    change(folder, "config.json", norm_eps=1e-3)
    assert head_of(folder)[2].eps == 1e-5
    assert load_checkpoint(folder).spec.norm_eps == 1e-3


def test_a_residual_of_one_width_adds_what_went_in(folder):
    make_dense(folder, "4_Dense", 40, 40, use_residual=True)
    head = head_of(folder)
    assert head[3:] == (ResidualStep((LinearStep("head.3.linear", 40, 40, bias=True), "tanh"), None),)


def test_a_residual_of_two_widths_goes_by_way_of_a_layer_without_bias(folder):
    make_dense(folder, "4_Dense", 40, 3, use_residual=True)
    shortcut = LinearStep("head.3.residual", 40, 3, bias=False)
    assert head_of(folder)[3:] == (ResidualStep((LinearStep("head.3.linear", 40, 3, bias=True), "tanh"), shortcut),)
    assert CrossEncoder(folder, backend="reference").num_labels == 3


def test_a_residual_is_added_after_the_activation(folder):
    make_dense(folder, "4_Dense", 40, 40, use_residual=True)
    with_it = scores(folder)
    change(folder, LAST, use_residual=False)
    bent = scores(folder)
    edit_tensors(folder / "4_Dense" / "model.safetensors", lambda t: t.update(eye_and_zero(40)))
    change(folder, LAST, activation_function="torch.nn.Identity")
    np.testing.assert_allclose(with_it, bent + scores(folder), rtol=0, atol=1e-12)  # float64, numbers of about 1


def eye_and_zero(width):
    return {"linear.weight": np.eye(width, dtype=np.float32), "linear.bias": np.zeros(width, np.float32)}


def make_dense(folder, name, inputs, outputs, **settings):
    """Write the last Dense anew, with random weights."""
    content = {"in_features": inputs, "out_features": outputs, "bias": True, "module_output_name": "scores", **settings}
    (folder / name / "config.json").write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, inputs), np.float32)
    tensors = {"linear.weight": weight, "linear.bias": rng.standard_normal(outputs, np.float32)}
    if settings.get("use_residual") and inputs != outputs:
        tensors["residual.weight"] = weight[::-1].copy()
    save_file(tensors, folder / name / "model.safetensors")


def test_a_dense_without_bias(folder):
    change(folder, LAST, bias=False)
    edit_tensors(folder / "4_Dense" / "model.safetensors", lambda tensors: tensors.pop("linear.bias"))
    assert head_of(folder)[-1] == LinearStep("head.3.linear", 40, 1, bias=False)


@pytest.mark.parametrize("settings", [None, {}, {"module_input_name": "sentence_embedding"}])
def test_normalize_brings_rows_to_length_1(folder, settings):
    plain = scores(folder)
    take_place_of_norm(folder, "Normalize", settings)
    assert head_of(folder)[2] == "normalize"
    assert CrossEncoder(folder, backend="reference").num_labels == 1
    assert np.abs(scores(folder) - plain).max() > 1e-3
    edit_tensors(folder / "2_Dense" / "model.safetensors", lambda t: [array.__imul__(4) for array in t.values()])
    change(folder, DENSE, activation_function="torch.nn.ReLU")
    four = scores(folder)
    edit_tensors(folder / "2_Dense" / "model.safetensors", lambda t: [array.__itruediv__(4) for array in t.values()])
    np.testing.assert_allclose(scores(folder), four, rtol=0, atol=1e-12)  # the length is of no matter


def take_place_of_norm(folder, kind, settings):
    name = f"3_{kind}"
    shutil.rmtree(folder / "3_LayerNorm")
    (folder / name).mkdir()
    if settings is not None:
        (folder / name / "config.json").write_text(json.dumps(settings))
    path = f"sentence_transformers.base.modules.normalize.{kind}"
    edit_list(folder, lambda modules: modules[3].update(path=name, type=path))


@pytest.mark.parametrize("package", ["models", "base.modules", "base.models", "sentence_transformer.modules"])
def test_classes_are_known_by_their_names_wherever_they_are(folder, package):
    def move(modules):
        for module in modules:
            module["type"] = f"sentence_transformers.{package}.{module['type'].rpartition('.')[2]}"

    edit_list(folder, move)
    assert head_of(folder) == head_of(GOLDENS / MODULAR)


def test_labels_of_the_configuration_mean_nothing_where_the_head_is_in_modules(folder):
    change(folder, "config.json", id2label={}, num_labels=7, classifier_activation="gelu_new", classifier_pooling="x")
    np.testing.assert_array_equal(scores(folder), scores(GOLDENS / MODULAR))


def test_the_description_names_a_residual(folder):
    make_dense(folder, "4_Dense", 40, 3, use_residual=True)
    facts = CrossEncoder(folder, backend="reference").describe()
    assert facts["head"] == "24 to 40, gelu, norm, residual (40 to 3, tanh)"


def test_the_description_names_pooling_head_and_labels():
    facts = CrossEncoder(GOLDENS / MODULAR, backend="reference").describe()
    assert (facts["family"], facts["pooling"], facts["num_labels"]) == ("modernbert", "mean", 1)
    assert facts["head"] == "24 to 40, gelu, norm, 40 to 1"
    assert facts["parameters"] == load_checkpoint(GOLDENS / MODULAR).weights.num_parameters()


def test_the_golden_is_below_300_kilobytes():
    assert sum(path.stat().st_size for path in (GOLDENS / MODULAR).rglob("*") if path.is_file()) < 300_000


# ---- what is refused

CHAINS = {
    "no Pooling": (lambda m: m.pop(1), "found modules Transformer, Dense, LayerNorm, Dense, expected a Transformer"),
    "two Poolings": (lambda m: m.insert(2, {**m[1], "name": "x", "path": "x"}), "Pooling, Pooling, Dense"),
    "two Transformers": (lambda m: m.insert(2, {**m[0], "name": "x", "path": "x"}), "Pooling, Transformer, Dense"),
    "a Pooling alone": (lambda m: m.__delitem__(slice(2, None)), "found modules Transformer, Pooling, expected"),
    "no Transformer": (lambda m: m.pop(0), "found modules Pooling, Dense, LayerNorm, Dense, expected"),
    "another module": (lambda m: m[3].update(type="sentence_transformers.models.Dropout"), "Pooling, Dense, Dropout"),
    "a name that cannot be shown": (
        lambda m: m[2].update(type="sentence_transformers.\ud800"),
        "Pooling, \\ud800, Lay",
    ),
    "of someone else": (lambda m: m[2].update(type="evil.Dense"), "Pooling, 'evil.Dense', LayerNorm"),
    "a name that two have": (lambda m: m[3].update(name="1"), "[3]: name: found '1', expected a plain name that no"),
    "the Transformer's name": (lambda m: m[3].update(name="0"), "[3]: name: found '0', expected"),
    "no name": (lambda m: m[3].pop("name"), "[3]: name: found None, expected"),
    "a folder that two have": (lambda m: m[4].update(path="2_Dense"), "[4]: path: found '2_Dense', expected a plain"),
    "no folder": (lambda m: m[4].pop("path"), "[4]: path: found None, expected"),
    "the folder itself": (lambda m: m[4].update(path=""), "[4]: path: found '', expected"),
    "a folder outside": (lambda m: m[4].update(path=".."), "[4]: path: found '..', expected"),
    "a path": (lambda m: m[4].update(path="2_Dense/../4_Dense"), "[4]: path: found '2_Dense/../4_Dense', expected"),
    "a path of Windows": (lambda m: m[4].update(path="..\\x"), "[4]: path: found '..\\\\x', expected"),
    "an absolute path": (lambda m: m[4].update(path="/etc"), "[4]: path: found '/etc', expected"),
    "the Transformer elsewhere": (
        lambda m: m[0].update(path="0_Transformer"),
        "path: found '0_Transformer', expected ''",
    ),
}


@pytest.mark.parametrize(("action", "message"), CHAINS.values(), ids=CHAINS)
def test_chains_that_are_not_understood(folder, action, message):
    edit_list(folder, action)
    refused(folder, ConfigError, "modules.json: ", message)


@pytest.mark.parametrize("kind", ["SentenceTransformer", None])
def test_modules_of_another_kind_of_model(folder, kind):
    change(folder, "config_sentence_transformers.json", model_type=kind)
    refused(folder, ConfigError, f"config_sentence_transformers.json: model_type: found {kind!r}, expected 'CrossEnc")
    (folder / "config_sentence_transformers.json").unlink()
    refused(folder, ConfigError, "config_sentence_transformers.json: model_type: found None, expected 'CrossEncoder'")


SETTINGS = [
    ({"transformer_task": "sequence-classification"}, "transformer_task: found 'sequence-classification', expected 'f"),
    ({"module_output_name": "scores"}, "module_output_name: found 'scores', expected 'token_embeddings'"),
    ({"modality_config": {"text": {"method": "forward", "method_output_name": "logits"}}}, "modality_config: found"),
    ({"do_lower_case": True}, "do_lower_case: found True"),
    ({"something": 3}, "something: found 3, expected no such setting"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=str)
def test_settings_of_the_encoder_that_are_not_followed(folder, settings, message):
    change(folder, "sentence_bert_config.json", **settings)
    refused(folder, ConfigError, "sentence_bert_config.json: ", message)


def test_another_kind_of_input_is_refused_even_beside_text(folder):
    # A message takes the place of a text, where a model reads both.
    def add(settings):
        settings["modality_config"]["message"] = {**settings["modality_config"]["text"], "format": "flat"}

    edit_json(folder / "sentence_bert_config.json", add)
    refused(folder, ConfigError, "sentence_bert_config.json: modality_config: found")


@pytest.mark.parametrize("content", ["{}", '{"max_seq_length": 40, "do_lower_case": false}'])
def test_settings_of_older_models(folder, content):
    short = [("which bridge", "the stone one")]
    expected = logits_of(CrossEncoder(folder, backend="reference"), short)
    (folder / "sentence_bert_config.json").write_text(content)
    model = CrossEncoder(folder, backend="reference")
    assert model.max_seq_length == (40 if "40" in content else 64)
    np.testing.assert_array_equal(logits_of(model, short), expected)


POOLINGS = [
    ({"pooling_mode": ["cls", "mean"]}, "pooling_mode: found ['cls', 'mean'], expected one of ['cls', 'mean', 'max'"),
    ({"pooling_mode": []}, "pooling_mode: found [], expected"),
    ({"pooling_mode": "median"}, "pooling_mode: found ['median'], expected"),
    ({"pooling_mode": 3}, "pooling_mode: found 3, expected"),
    ({"pooling_mode": [["cls"]]}, "pooling_mode: found [['cls']], expected"),
    ({"pooling_mode": None, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "found ['cls', 'max']"),
    ({"pooling_mode": None, "pooling_mode_cls_token": 1}, "pooling_mode_cls_token: found 1, expected true or false"),
    ({"include_prompt": False}, "include_prompt: found False, expected true, as the tokens of a prompt are not told"),
    ({"embedding_dimension": 25}, "embedding_dimension: found 25, expected 24, the width of what comes in"),
    ({"embedding_dimension": None}, "embedding_dimension: found nothing, expected a value"),
    ({"word_embedding_dimension": 25}, "word_embedding_dimension: found 25, expected 24"),
    ({"something": 3}, "something: found 3, expected no such setting"),
]


@pytest.mark.parametrize(("settings", "message"), POOLINGS, ids=str)
def test_poolings_that_are_not_understood(folder, settings, message):
    change(folder, POOLING, **settings)
    refused(folder, ConfigError, f"{POOLING}: ", message)


def test_no_mode_at_all_under_its_new_name(folder):
    edit_json(folder / POOLING, lambda content: content.update(pooling_mode=None))
    refused(folder, ConfigError, f"{POOLING}: pooling_mode: found None, expected one of")


DENSES = [
    ({"in_features": 25}, "in_features: found 25, expected 24, the width of what comes in"),
    ({"in_features": None}, "in_features: found nothing"),
    ({"out_features": 0}, "out_features: found 0, expected an integer from 1"),
    ({"out_features": None}, "out_features: found nothing"),
    ({"bias": 1}, "bias: found 1, expected true or false"),
    ({"use_residual": "yes"}, "use_residual: found 'yes', expected true or false"),
    ({"activation_function": "os.system"}, "activation_function: found 'os.system', expected 'torch.nn.modules.activ"),
    ({"activation_function": "torch.nn.Hardtanh"}, "activation_function: found 'torch.nn.Hardtanh', expected"),
    ({"activation_function": "torch.nn.functional.gelu"}, "activation_function: found 'torch.nn.functional.gelu'"),
    ({"activation_function": ["torch.nn.Tanh"]}, "activation_function: found ['torch.nn.Tanh']"),
    ({"module_input_name": "token_embeddings"}, "module_input_name: found 'token_embeddings', expected 'sentence_emb"),
    ({"module_output_name": "other"}, "module_output_name: found 'other', expected 'sentence_embedding' or 'scores'"),
    ({"something": 3}, "something: found 3, expected no such setting"),
]


@pytest.mark.parametrize(("settings", "message"), DENSES, ids=str)
def test_denses_that_are_not_understood(folder, settings, message):
    change(folder, DENSE, **settings)
    refused(folder, ConfigError, f"{DENSE}: ", message)


def test_a_null_is_not_a_missing_setting(folder):
    for key in ("activation_function", "module_input_name"):
        edit_json(folder / DENSE, lambda content, key=key: content.update({key: None}))
        refused(folder, ConfigError, f"{DENSE}: {key}: found None, expected")
        change(folder, DENSE, activation_function=GELU, module_input_name="sentence_embedding")


def test_more_scores_than_anything_has(folder):
    change(folder, LAST, out_features=4097)
    refused(folder, ConfigError, f"{LAST}: out_features: found 4097, expected at most 4096 scores")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 24}, "dimension: found 24, expected 40, the width of what comes in"),
        ({"dimension": None}, "dimension: found nothing"),
        ({"eps": 1e-12}, "eps: found 1e-12, expected no such setting"),
    ],
)
def test_norms_that_are_not_understood(folder, settings, message):
    change(folder, NORM, **settings)
    refused(folder, ConfigError, f"{NORM}: ", message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"module_input_name": "token_embeddings"}, "module_input_name: found 'token_embeddings', expected"),
        ({"module_output_name": "scores"}, "module_output_name: found 'scores', expected 'sentence_embedding'"),
        ({"p": 1}, "p: found 1, expected no such setting"),
    ],
)
def test_other_ways_to_normalize(folder, settings, message):
    take_place_of_norm(folder, "Normalize", settings)
    refused(folder, ConfigError, "3_Normalize/config.json: ", message)


def test_modules_that_make_no_scores(folder):
    change(folder, LAST, module_output_name=None)
    refused(folder, ConfigError, "modules.json: found no Dense whose module_output_name is 'scores', expected")


def test_modules_behind_the_scores(folder):
    change(folder, DENSE, module_output_name="scores")
    refused(folder, ConfigError, "modules.json: found LayerNorm behind the Dense that makes 'scores', expected that")


# ---- the encoder


def test_an_encoder_without_a_head_is_loaded_only_where_modules_have_one(folder):
    (folder / "modules.json").unlink()
    refused(
        folder,
        ConfigError,
        "architectures: found ['ModernBertModel'], expected ['ModernBertForSequenceClassification']",
    )
    change(folder, "config.json", architectures=None)
    refused(folder, WeightsError, "model.safetensors: lacks classifier.", "the model has no classification head")


@pytest.mark.parametrize("name", ["ModernBertForSequenceClassification", "ModernBertForMaskedLM", "BertModel"])
def test_a_model_with_a_head_of_its_own_has_no_modules(folder, name):
    change(folder, "config.json", architectures=[name])
    refused(folder, ConfigError, "architectures: found ['", "expected ['ModernBertModel'], a model without a head, as")


def test_tensors_of_a_head_of_its_own_are_refused(folder):
    prefixed = {f"model.{name}": array for name, array in load_file(folder / "model.safetensors").items()}
    save_file(prefixed, folder / "model.safetensors")
    refused(folder, WeightsError, "model.safetensors: lacks embeddings.norm.weight, embeddings.tok_embeddings.weight")


HEADS_OF_FAMILIES = {  # how the tensors begin that only a classification head needs, and the class of the encoder
    "narrow": ("classifier.", "BertModel"),
    "roberta": ("classifier.", "RobertaModel"),
    "xlm-roberta": ("classifier.", "XLMRobertaModel"),
    "camembert": ("classifier.", "CamembertModel"),
    "electra": ("classifier.", "ElectraModel"),
    "distilbert": (("classifier.", "pre_classifier."), "DistilBertModel"),
    "mpnet": ("classifier.", "MPNetModel"),
    "deberta-v3": (("classifier.", "pooler."), "DebertaV2Model"),
    "deberta-v1": (("classifier.", "pooler."), "DebertaModel"),
    "albert": ("classifier.", "AlbertModel"),
    "nomic-bert": ("classifier.", "NomicBertModel"),
    "jina-reranker-v1": ("classifier.", "JinaBertModel"),
    "jina-reranker-v2": ("classifier.", "XLMRobertaModel"),
    "gte": ("classifier.", "GteModel"),
    "gte-remote": ("classifier.", "NewModel"),
}


@pytest.fixture(params=HEADS_OF_FAMILIES)
def without_head(request, tmp_path):
    """A model of each family, its head cut off, with the modules of the golden behind it."""
    name = request.param
    folder = copy_checkpoint(name, tmp_path)
    beginnings, architecture = HEADS_OF_FAMILIES[name]
    tensors = load_file(folder / "model.safetensors")
    kept = {key.partition(".")[2]: array for key, array in tensors.items() if not key.startswith(beginnings)}
    save_file(kept, folder / "model.safetensors")
    change(folder, "config.json", architectures=[architecture])
    width = load_checkpoint(GOLDENS / name).spec.hidden_size
    for path in (GOLDENS / MODULAR).iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
    for file in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        shutil.copyfile(GOLDENS / MODULAR / file, folder / file)
    change(folder, POOLING, embedding_dimension=width)
    make_dense(folder, "2_Dense", width, 40, module_output_name="sentence_embedding")
    return SimpleNamespace(folder=folder, whole=GOLDENS / name, pooler=[key for key in kept if "pooler" in key])


def test_encoders_of_all_families_are_read_without_a_head(without_head):
    weights, whole = load_checkpoint(without_head.folder).weights, load_checkpoint(without_head.whole).weights
    encoder = {name for name in whole if not name.startswith("head.")}
    assert {name for name in weights if not name.startswith("head.")} == encoder
    for name in encoder:
        np.testing.assert_array_equal(weights[name], whole[name])
    assert np.isfinite(scores(without_head.folder)).all()


def test_a_pooler_that_is_not_used_may_be_there_or_not(without_head):
    name = "pooler.dense.weight"
    expected = scores(without_head.folder)
    path = without_head.folder / "model.safetensors"
    if without_head.pooler:
        edit_tensors(path, lambda tensors: [tensors.pop(key) for key in without_head.pooler])
        np.testing.assert_array_equal(scores(without_head.folder), expected)
    elif without_head.whole.name in ("roberta", "xlm-roberta", "camembert", "mpnet", "jina-reranker-v2"):
        edit_tensors(path, lambda tensors: tensors.update({name: np.zeros((2, 2), np.float32)}))
        np.testing.assert_array_equal(scores(without_head.folder), expected)
    else:  # families whose encoders have none
        edit_tensors(path, lambda tensors: tensors.update({name: np.zeros((2, 2), np.float32)}))
        refused(without_head.folder, WeightsError, f"has more than config.json promises: {name}")


# ---- files of modules


def test_tensors_of_modules_are_exactly_those_that_are_promised(folder):
    path = folder / "2_Dense" / "model.safetensors"
    edit_tensors(path, lambda tensors: tensors.update(more=np.zeros(3, np.float32)))
    refused(folder, WeightsError, "2_Dense/model.safetensors: has more than config.json promises: more")
    edit_tensors(path, lambda tensors: (tensors.pop("more"), tensors.pop("linear.bias")))
    refused(folder, WeightsError, "2_Dense/model.safetensors: lacks linear.bias")
    change(folder, DENSE, bias=False)
    load_checkpoint(folder)
    change(folder, DENSE, out_features=41)
    change(folder, NORM, dimension=41)
    change(folder, LAST, in_features=41)
    refused(folder, WeightsError, "2_Dense/model.safetensors: tensor linear.weight: found shape (40, 24)", "(41, 24)")


def test_a_residual_of_another_width_needs_its_layer(folder):
    change(folder, DENSE, use_residual=True)
    refused(folder, WeightsError, "2_Dense/model.safetensors: lacks residual.weight")


@pytest.mark.parametrize("file", [POOLING, DENSE, NORM, "2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"])
def test_a_file_that_a_module_must_have(folder, file):
    (folder / file).unlink()
    refused(folder, ModelNotFoundError, f"{MODULAR}: found no {file}; check that the download is complete")


def test_pickled_weights_of_a_module_are_refused_with_advice(folder):
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    refused(
        folder, ModelNotFoundError, "found no 2_Dense/model.safetensors; the pickled weights there are never loaded"
    )


def test_an_index_of_shards_is_not_looked_for_in_a_module(folder):
    path = folder / "2_Dense" / "model.safetensors"
    path.rename(path.with_name("model-00001-of-00001.safetensors"))
    index = {"weight_map": dict.fromkeys(("linear.weight", "linear.bias"), "model-00001-of-00001.safetensors")}
    path.with_name("model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, ModelNotFoundError, "found no 2_Dense/model.safetensors")


needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@needs_links
def test_a_folder_of_a_module_that_is_a_link_is_not_entered(folder, tmp_path):
    (folder / "2_Dense").rename(tmp_path / "elsewhere")
    (folder / "2_Dense").symlink_to(tmp_path / "elsewhere")
    refused(folder, ConfigError, "2_Dense: found a link, expected a folder of the model")


def test_a_folder_of_a_module_that_is_none(folder):
    take_place_of_norm(folder, "Normalize", None)
    (folder / "3_Normalize").rmdir()
    (folder / "3_Normalize").write_text("")
    refused(folder, ConfigError, "3_Normalize: found a file, expected a folder of the model")
    with ModelFiles(folder) as files, pytest.raises(ConfigError, match="none: found nothing, expected a folder"):
        files.inside("none")


def test_a_normalize_needs_no_folder_which_git_does_not_keep_when_it_is_empty(folder, tmp_path):
    take_place_of_norm(folder, "Normalize", None)
    expected = scores(folder)
    (folder / "3_Normalize").rmdir()
    np.testing.assert_array_equal(scores(folder), expected)
    CrossEncoder(folder, backend="reference").save_pretrained(tmp_path / "new")
    np.testing.assert_array_equal(scores(tmp_path / "new"), expected)
    with pytest.raises(ModelChangedError, match="3_Normalize"), load_checkpoint(folder):
        (folder / "3_Normalize").mkdir()


@needs_links
def test_a_folder_that_becomes_a_link_after_it_was_looked_at_is_not_entered(folder, tmp_path, monkeypatch):
    usual = ModelFiles._status

    def swap(self, name, *, follow_links):
        status = usual(self, name, follow_links=follow_links)
        if name == "2_Dense":
            monkeypatch.undo()
            (folder / name).rename(tmp_path / "elsewhere")
            (folder / name).symlink_to(tmp_path / "elsewhere")
        return status

    monkeypatch.setattr(
        ModelFiles, "_status", lambda self, name, follow_links: swap(self, name, follow_links=follow_links)
    )
    refused(folder, ModelNotFoundError, "2_Dense: cannot be looked for: Not a directory")


@needs_links
def test_files_of_a_module_may_be_links_as_in_a_snapshot_of_the_hub(folder, tmp_path):
    expected = scores(folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        blob = tmp_path / "blobs" / path.relative_to(folder).as_posix().replace("/", "-")
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(blob)
    np.testing.assert_array_equal(scores(folder), expected)


@pytest.mark.parametrize("file", [POOLING, DENSE, "2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"])
def test_a_file_of_a_module_that_changes_while_the_model_is_loaded_is_refused(folder, file):
    with pytest.raises(ModelChangedError, match=file), load_checkpoint(folder):
        (folder / file).write_bytes((folder / file).read_bytes())


def test_a_file_of_a_module_that_appears_while_the_model_is_loaded_is_refused(folder):
    take_place_of_norm(folder, "Normalize", None)
    with pytest.raises(ModelChangedError, match=r"3_Normalize/config\.json"), load_checkpoint(folder):
        (folder / "3_Normalize" / "config.json").write_text("{}")


@needs_links
def test_a_folder_of_a_module_that_is_replaced_while_the_model_is_loaded_is_refused(folder, tmp_path):
    take_place_of_norm(folder, "Normalize", None)
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelChangedError, match="3_Normalize"), load_checkpoint(folder):
        os.rename(tmp_path / "other", folder / "3_Normalize")  # which has no file that could have changed


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts what is open there")
def test_folders_of_modules_are_given_back(folder):
    before = len(os.listdir("/proc/self/fd"))
    checkpoint = load_checkpoint(folder)
    with checkpoint:
        assert len(os.listdir("/proc/self/fd")) > before + 5
    assert len(os.listdir("/proc/self/fd")) == before
    del checkpoint
    change(folder, LAST, bias=3)
    for _ in range(3):
        with pytest.raises(NumbertError):
            load_checkpoint(folder)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs the files of POSIX")
@pytest.mark.parametrize(("file", "error"), [(DENSE, ConfigError), ("2_Dense/model.safetensors", WeightsError)])
def test_a_pipe_in_the_place_of_a_modules_file_is_never_waited_for(folder, file, error):
    (folder / file).unlink()
    os.mkfifo(folder / file)
    refused(folder, error, f"{file}: found a pipe, expected a regular file")


# ---- scores


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_a_score_has_the_same_bits_alone_and_in_any_batch(folder, pooling, dtype):
    change(folder, POOLING, pooling_mode=pooling)
    take_place_of_norm(folder, "Normalize", None)
    make_dense(folder, "4_Dense", 40, 3, use_residual=True)
    one, three = (CrossEncoder(folder, dtype=dtype, num_threads=count) for count in (1, 3))
    alone = [one.predict(pair).tobytes() for pair in SOME]
    together = three.predict(SOME[::-1], batch_size=5)[::-1]
    assert [row.tobytes() for row in together] == alone


# ---- saving


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_saved_model_of_modules_is_the_same_model(folder, tmp_path):
    model = CrossEncoder(folder)
    model.save_pretrained(tmp_path / "new")
    twin = CrossEncoder(tmp_path / "new")
    np.testing.assert_array_equal(logits_of(twin, SOME), logits_of(model, SOME))
    assert json.loads((tmp_path / "new" / "modules.json").read_text()) == json.loads(
        (folder / "modules.json").read_text()
    )
    assert set(names(folder)) <= set(names(tmp_path / "new"))
    assert not [name for name in names(tmp_path / "new") if name.startswith(".numbert")]
    twin.save_pretrained(tmp_path / "new")  # over itself
    np.testing.assert_array_equal(logits_of(CrossEncoder(tmp_path / "new"), SOME), logits_of(model, SOME))


def test_what_another_model_left_in_a_modules_folder_is_not_read(folder, tmp_path):
    take_place_of_norm(folder, "Normalize", None)
    (tmp_path / "new" / "3_Normalize").mkdir(parents=True)
    (tmp_path / "new" / "3_Normalize" / "config.json").write_text('{"module_input_name": "x"}')
    CrossEncoder(folder, backend="reference").save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new" / "3_Normalize" / "config.json").exists()
    np.testing.assert_array_equal(scores(tmp_path / "new"), scores(folder))


def test_a_module_that_was_replaced_since_it_was_loaded_is_not_saved(folder, tmp_path):
    model = CrossEncoder(folder, backend="reference")
    make_dense(folder, "4_Dense", 40, 1)
    with pytest.raises(SaveError, match="found other files than those that were loaded"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@needs_links
def test_a_module_whose_file_leads_out_of_the_folder_is_not_published(folder, tmp_path):
    (folder / DENSE).rename(tmp_path / "secret.json")
    (folder / DENSE).symlink_to(tmp_path / "secret.json")
    with pytest.raises(SaveError, match=r"2_Dense/config\.json: found a link to"):
        CrossEncoder(folder, backend="reference").save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@needs_links
@pytest.mark.parametrize("put", ["a file", "a link"])
def test_something_else_in_the_place_of_a_modules_folder_is_left_alone(folder, tmp_path, put):
    target = tmp_path / "new"
    target.mkdir()
    (tmp_path / "elsewhere").mkdir()
    place = target / "2_Dense"
    place.write_text("") if put == "a file" else place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SaveError, match="2_Dense: found a file or a link, expected a folder or nothing"):
        CrossEncoder(folder, backend="reference").save_pretrained(target)
    assert names(target) == ["2_Dense"]
    assert not names(tmp_path / "elsewhere")


def test_a_save_that_fails_leaves_modules_as_they_were(folder, tmp_path, monkeypatch):
    target = copy_checkpoint(MODULAR, tmp_path / "target")
    make_dense(folder, "4_Dense", 40, 1)
    before = {name: (target / name).read_bytes() for name in names(target) if (target / name).is_file()}
    model, usual = CrossEncoder(folder, backend="reference"), os.replace

    def fail_late(self, other):
        if self.name == "vocab.txt" or self.parent.name == "4_Dense":
            monkeypatch.undo()
            raise OSError(28, "No space left on device")
        return usual(self, other)

    monkeypatch.setattr("pathlib.Path.replace", fail_late)
    with pytest.raises(SaveError, match="No space left on device"):
        model.save_pretrained(target)
    assert {name: (target / name).read_bytes() for name in names(target) if (target / name).is_file()} == before
    with pytest.raises(SaveError):  # noqa: PT012
        monkeypatch.setattr("pathlib.Path.replace", fail_late)
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_golden_logits_are_those_of_sentence_transformers():
    expected = load_golden(MODULAR)
    worst = np.abs(logits_of(CrossEncoder(expected.folder), PAIRS) - expected.logits).max()
    assert worst <= 1e-5 * np.ptp(expected.logits), worst


@pytest.mark.parametrize("listed", [[0] * 100_000, "all"], ids=["numbers", "modules"])
def test_more_modules_than_any_model_has_are_refused_in_short(folder, listed):
    def grow(modules):
        normalize = {"type": "sentence_transformers.models.Normalize"}
        return [*modules, *({**normalize, "name": f"n{i}", "path": f"n{i}"} for i in range(60))]

    path = folder / "modules.json"
    path.write_text(json.dumps(grow(json.loads(path.read_text())) if listed == "all" else listed))
    with pytest.raises(ConfigError, match=r"modules\.json: found \d+ modules, expected at most 64") as caught:
        load_checkpoint(folder)
    assert len(str(caught.value)) < 500
