"""Live comparison with transformers and sentence-transformers, where they are installed."""

import importlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from checkpoints import GOLDENS, logits_of, tokens_of
from hostile_pairs import PAIRS, PASSAGES, QUERIES
from numbert import CrossEncoder
from numbert.loaders.source import EMBEDDED_FOLDER

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
record_goldens = importlib.import_module("record_goldens")
Shape = record_goldens.Shape

pytestmark = pytest.mark.parity

# Absolute, on logits: what numbert promises for float32.
TOLERANCE = 1e-4  # worst seen: 2.0e-5 (random, 7 heads of 1), 4.7e-6 (embedded), 9.6e-6 (larger model)
# Distances to the float64 reference, ours against torch's: both round in float32, in another order of sums.
ERROR_RATIO = 4  # worst seen: 2.4, on the embedded model
# Absolute, on scores: they are padded to the longest of a batch there, which changes the order of sums.
SCORE_TOLERANCE = 2e-5  # worst seen: 6.9e-6 on logits of three labels, 1.9e-6 on the embedded model

LARGER_MODEL = Path(__file__).parents[2] / "shared" / "models" / "minilm-l6-reranker"  # not part of the project
MODELS = [
    EMBEDDED_FOLDER,
    pytest.param(
        LARGER_MODEL,
        marks=pytest.mark.skipif(not LARGER_MODEL.is_dir(), reason="the larger model is not on this machine"),
    ),
]
models = pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)

SHAPES = [
    Shape(heads=7, head_width=1, layers=2, intermediate=1, labels=4),
    Shape(heads=2, head_width=7, layers=4, intermediate=15),
    Shape(heads=3, head_width=31, layers=2, intermediate=127, dtype=torch.float16),
    Shape(heads=2, head_width=33, layers=2, intermediate=257, labels=2),
    Shape(heads=2, head_width=64, layers=3, intermediate=384, dtype=torch.bfloat16),
    Shape(heads=1, head_width=65, layers=1, intermediate=64, labels=7, eps=1e-3),
    Shape(heads=1, head_width=130, layers=2, intermediate=33, cased=True, max_length=17),
    Shape(heads=16, head_width=8, layers=6, intermediate=509, shard_size="100KB"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.heads}x{shape.head_width}x{shape.layers}")
def test_random_models_are_tokenized_and_scored_as_by_transformers(shape, tmp_path):
    record_goldens.write_checkpoint(tmp_path, shape, seed=shape.head_width)
    compare(CrossEncoder(tmp_path), PAIRS[::9])


@models
def test_real_models_are_tokenized_and_scored_as_by_transformers(folder):
    compare(CrossEncoder(folder), PAIRS)


def compare(model, pairs):
    theirs = transformers_results(model.model_path, tuple(pairs))
    ids, type_ids = tokens_of(pairs, model._scorer.tokenizer, model.spec, model.max_seq_length)
    assert ids == [row.ids for row in theirs]
    assert type_ids == [row.type_ids for row in theirs]
    worst = np.abs(logits_of(model, pairs) - np.array([row.logits for row in theirs])).max()
    assert worst <= TOLERANCE, worst


@models
def test_logits_are_about_as_near_to_float64_as_those_of_torch(folder):
    pairs = [pair for pair in PAIRS if len(pair[0]) + len(pair[1]) < 200][::9]
    exact = logits_of(CrossEncoder(folder, backend="reference", dtype="float64"), pairs)
    theirs = np.array([row.logits for row in transformers_results(folder, tuple(pairs))])
    our_error = np.abs(logits_of(CrossEncoder(folder), pairs) - exact).max()
    assert our_error <= ERROR_RATIO * np.abs(theirs - exact).max()


@cache
def transformers_results(folder, pairs):
    return record_goldens.compute(folder, list(pairs))


@pytest.fixture(scope="module")
def both():
    """Our class and sentence-transformers', with the embedded model."""
    return load_both(EMBEDDED_FOLDER)


@pytest.fixture(scope="module")
def both_with_three_labels():
    return load_both(GOLDENS / "odd-heads-float16")


def load_both(folder):
    theirs = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed").CrossEncoder
    # Unasked, it would compute in float16, in which these models are stored.
    return CrossEncoder(folder), theirs(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def assert_same(ours, theirs):
    """Compare type, dtype, shape and values of what `predict` returns."""
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= SCORE_TOLERANCE


@pytest.mark.parametrize("inputs", [PAIRS[0], list(PAIRS[0]), [PAIRS[0]], PAIRS[:5], np.array(PAIRS[:5])])
def test_predict_returns_what_sentence_transformers_returns(both, inputs):
    ours, theirs = both
    assert_same(ours.predict(inputs), theirs.predict(inputs))


@pytest.mark.parametrize("inputs", [PAIRS[0], [PAIRS[0]], PAIRS[:5]])
@pytest.mark.parametrize("softmax", [False, True])
def test_predict_returns_a_row_for_several_labels(both_with_three_labels, inputs, softmax):
    ours, theirs = both_with_three_labels
    assert_same(ours.predict(inputs, apply_softmax=softmax), theirs.predict(inputs, apply_softmax=softmax))


@pytest.mark.parametrize("name", ["Sigmoid", "Identity", "Tanh"])
def test_torch_modules_are_understood_as_activation(both, both_with_three_labels, name):
    activation = getattr(torch.nn, name)()
    for ours, theirs in (both, both_with_three_labels):
        assert_same(
            ours.predict(PAIRS[100:140], activation_fn=activation),
            theirs.predict(PAIRS[100:140], activation_fn=activation),
        )


def test_softmax_module_is_applied_over_labels(both_with_three_labels):
    ours, theirs = both_with_three_labels
    activation = torch.nn.Softmax(dim=-1)
    assert_same(ours.predict(PAIRS[:9], activation_fn=activation), theirs.predict(PAIRS[:9], activation_fn=activation))


@pytest.mark.parametrize("query", QUERIES[:4])
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_k": 0}, {"return_documents": True}], ids=str)
def test_rank_returns_what_sentence_transformers_returns(both, query, options):
    ours, theirs = (model.rank(query, PASSAGES, **options) for model in both)
    assert len(ours) == len(theirs)
    for our_result, their_result in zip(ours, theirs, strict=True):
        assert list(our_result) == list(their_result)  # the keys, in order
        assert our_result["corpus_id"] == their_result["corpus_id"]
        assert our_result.get("text") == their_result.get("text")
        assert type(our_result["score"]) is type(their_result["score"]) is float
        assert abs(our_result["score"] - their_result["score"]) <= SCORE_TOLERANCE


def test_properties_agree_with_sentence_transformers(both, both_with_three_labels):
    for ours, theirs in (both, both_with_three_labels):
        assert ours.num_labels == theirs.num_labels
        assert ours.max_length == theirs.max_seq_length
