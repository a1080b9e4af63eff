"""Live comparison with sentence-transformers on cross-encoders of several modules, where it is installed."""

import importlib
import json

import numpy as np
import pytest
from checkpoints import GOLDENS, edit_json, logits_of
from hostile_pairs import PAIRS
from numbert import CrossEncoder
from numbert.engine.tools import verify as verify_module

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
modular_models = importlib.import_module("modular_models")
nn, C = torch.nn, modular_models.HIDDEN

pytestmark = pytest.mark.parity

# Relative to largest minus smallest score: both round in float32, in another order of sums.
TOLERANCE = 1e-5
SOME = PAIRS[::9]
SCORES = ("Dense", {"in_features": 40, "out_features": 1, "activation_function": None, "module_output_name": "scores"})


def dense(outputs, **settings):
    return ("Dense", {"in_features": C, "out_features": outputs, **settings})


def scores(inputs, outputs=1, **settings):
    return ("Dense", {"in_features": inputs, "out_features": outputs, "module_output_name": "scores", **settings})


HEADS = {
    "gelu": [dense(40, activation_function=nn.GELU()), ("LayerNorm", {"dimension": 40}), SCORES],
    "a default": [dense(40), ("LayerNorm", {"dimension": 40}), SCORES],
    "residual": [
        dense(C, use_residual=True, activation_function=nn.SiLU()), ("LayerNorm", {"dimension": C}),
        scores(C, activation_function=None),
    ],
    "residual of another width": [
        dense(40, use_residual=True, activation_function=nn.ReLU()), ("LayerNorm", {"dimension": 40}), SCORES,
    ],
    "no bias": [
        dense(40, bias=False, activation_function=nn.Sigmoid()), ("LayerNorm", {"dimension": 40}),
        scores(40, bias=False, activation_function=None),
    ],
    "no activation": [dense(40, activation_function=None), ("LayerNorm", {"dimension": 40}), SCORES],
    "length 1": [("Normalize", {}), dense(40), ("Normalize", {}), SCORES],
    "norm first": [("LayerNorm", {"dimension": C}), scores(C, activation_function=None)],
    "three labels, all bent": [dense(40), scores(40, 3)],
    "residual of scores": [scores(C, 2, use_residual=True)],
}  # fmt: skip


def compare(folder, backend="cpu"):
    theirs = np.array([row.logits for row in modular_models.compute(folder, SOME)])
    ours = logits_of(CrossEncoder(folder, backend=backend), SOME)
    spread = np.ptp(theirs, axis=0)
    assert spread.min() > 0.1  # else no difference would show
    worst = (np.abs(ours - theirs) / spread).max()
    assert worst <= TOLERANCE, worst


@pytest.mark.parametrize("modules", HEADS.values(), ids=HEADS)
def test_heads_of_modules_score_as_in_sentence_transformers(tmp_path, modules):
    modular_models.write_modular(tmp_path, modules, seed=len(modules))
    compare(tmp_path)
    compare(tmp_path, "reference")


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_poolings_score_as_in_sentence_transformers(tmp_path, pooling):
    modular_models.write_modular(tmp_path, HEADS["gelu"], pooling=pooling, seed=7)
    compare(tmp_path)


@pytest.mark.parametrize("family", sorted(set(modular_models.FAMILIES) - {"modernbert"}))
def test_encoders_of_all_families_score_as_in_sentence_transformers(tmp_path, family):
    modular_models.write_modular(tmp_path, HEADS["residual"], family=family, seed=8)
    compare(tmp_path)


def test_a_dense_without_activation_is_bent_by_tanh(tmp_path):
    modular_models.write_modular(tmp_path, HEADS["gelu"], seed=9)
    edit_json(tmp_path / "2_Dense" / "config.json", lambda config: config.pop("activation_function"))
    compare(tmp_path)


def test_old_flags_of_a_pooling_are_read_as_by_sentence_transformers(tmp_path):
    modular_models.write_modular(tmp_path, HEADS["gelu"], pooling="cls", seed=10)
    old = {"word_embedding_dimension": C, "pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(old))
    compare(tmp_path)


def test_sentence_transformers_loads_the_modules_that_numbert_saves(tmp_path):
    modular_models.write_modular(tmp_path / "theirs", HEADS["residual of another width"], seed=11)
    ours = CrossEncoder(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    compare(tmp_path / "ours")
    np.testing.assert_array_equal(logits_of(CrossEncoder(tmp_path / "ours"), SOME), logits_of(ours, SOME))


def test_the_report_on_a_model_of_modules_is_made_with_sentence_transformers(monkeypatch):
    monkeypatch.setattr(verify_module, "TOKEN_PAIRS", 120)
    checks = verify_module.verify(str(GOLDENS / "modular"))
    assert all(check.passed for check in checks)
    assert "largest difference of a logit to sentence-transformers, 60 pairs" in checks[-2].what
