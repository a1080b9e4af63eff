"""The facade: types, shapes and order of results, activations, limits."""

import json
import logging
import shutil

import numpy as np
import pytest
from numbert import ConfigError, CrossEncoder, InputError, NonFiniteScoreError
from numbert.engine.activations import choose_activation, identity, sigmoid, softmax, tanh
from numbert.loaders.source import EMBEDDED_FOLDER

QUERY = "How many people live in Berlin?"
PASSAGES = [
    "Berlin is well known for its museums.",
    "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    "New York City is famous for the Metropolitan Museum of Art.",
]
PAIRS = [(QUERY, passage) for passage in PASSAGES]


@pytest.fixture
def changed_folder(tmp_path):
    """Give a function that copies the embedded model with other settings in its config.json."""

    def copy(**settings):
        folder = tmp_path / "model"
        shutil.copytree(EMBEDDED_FOLDER, folder)
        config = {**json.loads((folder / "config.json").read_text()), **settings}
        config = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy


def test_predict_returns_a_float32_array(model):
    scores = model.predict(PAIRS)
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float32
    assert scores.shape == (3,)
    assert scores.argmax() == 1


def test_one_pair_by_itself_gives_a_float32(model):
    score = model.predict(PAIRS[1])
    assert isinstance(score, np.float32)
    assert score == model.predict([PAIRS[1]])[0]


def test_no_pairs_give_an_empty_array(model):
    assert model.predict([]).shape == (0,)
    assert model.predict([]).dtype == np.float32
    assert model.predict([], convert_to_numpy=False) == []
    assert model.rank(QUERY, []) == []


def test_list_output(model):
    scores = model.predict(PAIRS, convert_to_numpy=False)
    assert isinstance(scores, list)
    assert scores == model.predict(PAIRS).tolist()


def test_rank_sorts_best_first_with_python_floats(model):
    ranks = model.rank(QUERY, PASSAGES, return_documents=True)
    assert [rank["corpus_id"] for rank in ranks] == [1, 0, 2]
    assert [list(rank) for rank in ranks] == [["corpus_id", "score", "text"]] * 3
    assert [rank["text"] for rank in ranks] == [PASSAGES[i] for i in (1, 0, 2)]
    assert [rank["score"] for rank in ranks] == sorted(model.predict(PAIRS).tolist(), reverse=True)
    assert {type(rank["score"]) for rank in ranks} == {float}
    json.dumps(ranks)


@pytest.mark.parametrize(("top_k", "count"), [(None, 3), (0, 0), (1, 1), (99, 3)])
def test_top_k(model, top_k, count):
    assert len(model.rank(QUERY, PASSAGES, top_k=top_k)) == count


def test_rank_takes_any_iterable(model):
    assert model.rank(QUERY, iter(PASSAGES), return_documents=True)[0]["text"] == PASSAGES[1]


def test_activation_for_one_call_is_not_kept(model):
    logits = model.predict(PAIRS)
    np.testing.assert_allclose(
        model.predict(PAIRS, activation_fn="sigmoid"), 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-6
    )
    assert (model.predict(PAIRS) == logits).all()


def test_activation_is_any_function_of_an_array(model):
    scores = model.predict(PAIRS, activation_fn=lambda logits: logits.astype(np.float64) * 2)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, model.predict(PAIRS) * 2, rtol=1e-6)


def test_saturated_scores_are_ranked_by_their_logits(model):
    ranks = model.rank(QUERY, PASSAGES, activation_fn=lambda logits: np.ones_like(logits))
    assert {rank["score"] for rank in ranks} == {1.0}
    assert [rank["corpus_id"] for rank in ranks] == [1, 0, 2]


def test_rank_is_sorted_by_score_even_when_the_activation_falls(model):
    ranks = model.rank(QUERY, PASSAGES, activation_fn=lambda logits: -logits)
    assert [rank["corpus_id"] for rank in ranks] == [2, 0, 1]


def test_sigmoid_is_exact_at_both_ends():
    logits = np.array([-1000, -100, -1, 0, 1, 20, 1000], np.float32)
    exact = 1 / (1 + np.exp(-logits.astype(np.longdouble)))
    np.testing.assert_allclose(sigmoid(logits), exact.astype(np.float64), rtol=3e-7, atol=1e-45)  # three roundings
    assert sigmoid(logits).dtype == np.float32


SAVED = [
    ("torch.nn.modules.linear.Identity", 1, identity),
    ("torch.nn.Sigmoid", 3, sigmoid),
    ("torch.nn.modules.activation.Tanh", 1, tanh),
    ("torch.nn.modules.activation.Softmax", 3, softmax),
    (None, 1, sigmoid),
    (None, 3, identity),
]


@pytest.mark.parametrize(("saved", "num_labels", "expected"), SAVED)
def test_activation_saved_with_the_model(saved, num_labels, expected):
    assert choose_activation(None, saved, num_labels) is expected


def test_callers_activation_wins_over_the_saved_one():
    assert choose_activation("tanh", "torch.nn.Sigmoid", 1) is tanh


def test_an_untrusted_activation_is_not_imported(caplog):
    with caplog.at_level(logging.WARNING, logger="numbert"):
        assert choose_activation(None, "os.system", 1) is sigmoid
    assert "'os.system' is not trusted" in caplog.text


def test_an_unknown_activation_of_torch_is_refused():
    with pytest.raises(ConfigError, match=r"found 'torch.hub.help', expected one of"):
        choose_activation(None, "torch.hub.help", 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
        {"sentence_transformers": None, "sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"},
    ],
)
def test_both_old_places_of_the_activation_are_read(model, changed_folder, settings):
    scores = CrossEncoder(changed_folder(**settings)).predict(PAIRS)
    np.testing.assert_array_equal(scores, np.tanh(model.predict(PAIRS)))


def test_the_new_place_of_the_activation_wins(changed_folder):
    folder = changed_folder()
    settings = {"activation_fn": "torch.nn.modules.activation.Sigmoid", "model_type": "CrossEncoder"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert CrossEncoder(folder).activation_fn is sigmoid


def test_constructor_activation(model):
    scores = CrossEncoder(activation_fn="sigmoid").predict(PAIRS)
    np.testing.assert_array_equal(scores, sigmoid(model.predict(PAIRS)))
    assert CrossEncoder(default_activation_function="tanh").activation_fn is tanh


def test_max_length_truncates(model):
    short = CrossEncoder(max_length=8)
    assert short.max_seq_length == 8
    assert short.predict((QUERY, "Berlin had")) == short.predict((QUERY, "Berlin had a population"))
    assert model.predict((QUERY, "Berlin had")) != model.predict((QUERY, "Berlin had a population"))
    assert model.max_seq_length == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 3}, "max_length must be 4 or more, got 3"),
        ({"max_length": 513}, "max_length: found 513, the model has positions for 512"),
        ({"num_labels": 3}, "num_labels: found 3, the checkpoint has 1"),
        ({"device": "tpu"}, "device: found 'tpu', expected None, 'cpu' or 'cuda'"),
        ({"device": "cuda", "backend": "cpu"}, "device: found 'cuda' with backend 'cpu'"),
        ({"device": "cpu", "backend": "cuda"}, "device: found 'cpu' with backend 'cuda'"),
        ({"device": "cuda", "dtype": "int8"}, "dtype: found 'int8', expected one of .* for backend 'cuda'"),
        ({"backend": "tpu"}, "backend: found 'tpu', expected one of"),
        ({"dtype": "int3"}, "dtype: found 'int3', expected one of"),
        ({"dtype": "float64"}, "float64 is computed by backend='reference'"),
        ({"num_threads": 0}, "num_threads must be a positive integer, got 0"),
    ],
)
def test_wrong_constructor_arguments(options, message):
    with pytest.raises(InputError, match=message):
        CrossEncoder(**options)


def test_backends_agree(model):
    reference = CrossEncoder(backend="reference", dtype="float64").predict(PAIRS)
    assert reference.dtype == np.float64
    np.testing.assert_allclose(model.predict(PAIRS), reference, atol=2e-5)  # 4 layers of float32; worst seen 3e-6


def test_torchs_backend_name_is_accepted():
    assert CrossEncoder(backend="torch").backend == CrossEncoder().backend


def test_logits_that_are_not_finite_are_refused_with_the_pair(model):
    broken = CrossEncoder()
    broken._scorer.runner.encoder.head.steps[-1].bias[:] = np.nan
    with pytest.raises(NonFiniteScoreError, match=r"pair 0 .*museums.*found logits \[nan\]"):
        broken.predict(PAIRS)
    assert np.isfinite(model.predict(PAIRS)).all()


def nan_for_the_second(logits):
    return np.where(np.arange(len(logits))[:, None] == 1, np.nan, logits)


@pytest.mark.parametrize("call", ["predict", "rank"])
def test_an_activation_that_makes_nan_is_refused_with_the_pair(model, call):
    arguments = (PAIRS,) if call == "predict" else (QUERY, PASSAGES)
    with pytest.raises(NonFiniteScoreError, match=r"pair 1 .*: found nan, expected a number; .*correct activation_fn"):
        getattr(model, call)(*arguments, activation_fn=nan_for_the_second)


def test_an_activation_may_make_infinities_which_have_an_order(model):
    ranks = model.rank(QUERY, PASSAGES, activation_fn=lambda logits: np.where(logits == logits.max(), 1e300, -np.inf))
    assert [rank["score"] for rank in ranks] == [np.inf, -np.inf, -np.inf]
    assert ranks[0]["corpus_id"] == 1


def test_an_activation_that_makes_rows_of_different_lengths_is_refused(model):
    with pytest.raises(InputError, match=r"activation_fn: made no array .*, expected shape \(3, 1\)"):
        model.predict(PAIRS, activation_fn=lambda logits: [[1], [1, 2], [3]])


def test_several_labels(tmp_path, changed_folder):
    from safetensors.numpy import load_file, save_file

    folder = changed_folder(id2label={str(i): f"label {i}" for i in range(3)}, sentence_transformers=None)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] = np.repeat(tensors["classifier.weight"], 3, 0) * np.array(
        [[1], [-1], [2]], np.float16
    )
    tensors["classifier.bias"] = np.zeros(3, np.float16)
    save_file(tensors, folder / "model.safetensors")
    model = CrossEncoder(folder)
    scores = model.predict(PAIRS)
    assert scores.shape == (3, 3)
    assert model.predict(PAIRS[0]).shape == (3,)
    np.testing.assert_allclose(scores[:, 0], -scores[:, 1], rtol=1e-5)
    probabilities = model.predict(PAIRS, apply_softmax=True)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert model.predict([]).shape == (0,)
    with pytest.raises(NonFiniteScoreError, match=r"pair 0 .*: found nan"):  # infinity minus infinity
        model.predict(PAIRS, apply_softmax=True, activation_fn=lambda logits: logits + np.inf)
    with pytest.raises(ValueError, match=r"rank\(\) only works for models with num_labels=1"):
        model.rank(QUERY, PASSAGES)


def test_softmax_of_one_label_changes_nothing(model):
    assert (model.predict(PAIRS, apply_softmax=True) == model.predict(PAIRS)).all()


def test_progress_is_shown_on_request_and_reaches_the_end(model, capsys):
    model.predict(PAIRS + PAIRS, show_progress_bar=True)
    assert "6/6" in capsys.readouterr().err
    model.predict(PAIRS)
    assert capsys.readouterr().err == ""


def test_progress_follows_the_log_level(model, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="numbert"):
        model.predict(PAIRS)
    assert "3/3" in capsys.readouterr().err


def test_many_pairs_are_computed_in_chunks(model):
    pairs = [("query", f"passage {i}") for i in range(5000)]
    scores = model.predict(pairs)
    assert (scores[[0, 2047, 2048, 4999]] == model.predict([pairs[i] for i in (0, 2047, 2048, 4999)])).all()


def test_describe_is_json(model):
    facts = json.loads(json.dumps(model.describe()))
    assert facts["parameters"] == 2_155_777
    assert facts["hidden_size"] == 128
