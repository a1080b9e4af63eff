"""Live comparison with transformers: DeBERTa of all versions, ALBERT and NomicBERT, at 3 to 512 tokens."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import GOLDENS
from numbert.engine.tools import verify as verify_module

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
record_goldens = importlib.import_module("record_goldens")
parity = importlib.import_module("test_parity_modernbert")
Shape = record_goldens.Shape

pytestmark = pytest.mark.parity

# Around half of the published 256 buckets, from where they hold several distances, and around the longest pair
LENGTHS = (3, 17, 64, 128, 129, 130, 511, 512)
# Between two float64 results. Neither rounds its sums; but tables of distances, rates and transformers' scales are
# rounded to float32. Worst seen: 1e-6.
CLOSE = 1e-5
V2 = {"heads": 3, "head_width": 16, "layers": 3, "intermediate": 90, "eps": 1e-7, "family": "deberta-v2"}
V1 = {**V2, "family": "deberta"}
ALBERT = {"heads": 3, "head_width": 32, "layers": 4, "intermediate": 90, "embedding": 20, "family": "albert"}
NOMIC = {"heads": 3, "head_width": 16, "layers": 3, "intermediate": 90, "family": "nomic_bert"}
V3_RULES = {**record_goldens.DEBERTA_V3, "position_buckets": 256}
V1_RULES = {**record_goldens.DEBERTA_V1, "max_relative_positions": -1}
GROUPS = {"num_hidden_groups": 3, "inner_group_num": 2}
SHAPES = {
    "v3": Shape(**V2, settings=V3_RULES),
    "v3, 32 buckets up to 128": Shape(
        **V2, settings={**V3_RULES, "position_buckets": 32, "max_relative_positions": 128}
    ),
    "v3, c2p only": Shape(**V2, settings={**V3_RULES, "pos_att_type": ["c2p"]}),
    "v3, p2c only": Shape(**V2, settings={**V3_RULES, "pos_att_type": "p2c"}),
    "v3, no kinds": Shape(**V2, settings={**V3_RULES, "pos_att_type": None}),
    "v3, layers of their own": Shape(**V2, settings={**V3_RULES, "share_att_key": False}),
    "v3, no norm and no buckets": Shape(**V2, settings={**V3_RULES, "norm_rel_ebd": "none", "position_buckets": -1}),
    "v3, no distances": Shape(**V2, settings={**V3_RULES, "norm_rel_ebd": "none", "relative_attention": False}),
    "v3, positions, types, narrow": Shape(
        **V2, embedding=20, settings={**V3_RULES, "position_biased_input": True, "type_vocab_size": 2}
    ),
    "v2, convolution in groups": Shape(
        **V2, labels=3, settings={**V3_RULES, "conv_kernel_size": 5, "conv_groups": 4, "conv_act": "tanh"}
    ),
    "v2, as recorded": Shape(**V2, embedding=20, settings=record_goldens.DEBERTA_V2),
    "v1": Shape(**V1, settings=V1_RULES),
    "v1, 100 distances": Shape(**V1, settings={**V1_RULES, "max_relative_positions": 100}),
    "v1, c2p only": Shape(**V1, settings={**V1_RULES, "pos_att_type": "c2p"}),
    "v1, p2c only": Shape(**V1, settings={**V1_RULES, "pos_att_type": "p2c", "position_biased_input": True}),
    "v1, no distances": Shape(**V1, settings={**V1_RULES, "relative_attention": False}),
    "ALBERT": Shape(**ALBERT),
    "ALBERT, 3 groups of 2": Shape(**ALBERT, labels=2, settings=GROUPS),
    "ALBERT, embeddings of the same size": Shape(**{**ALBERT, "embedding": 96}),
    "NomicBERT": Shape(**NOMIC),
    "NomicBERT, another theta and activation": Shape(
        **NOMIC,
        labels=3,
        settings={"hidden_act": "gelu", "rope_parameters": {"rope_type": "default", "rope_theta": 70.0}},
    ),
}


def write(folder: Path, shape: Any) -> Path:
    return Path(parity.write(folder, shape))


def theirs(folder: Path, lengths: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Compute each pair by itself. (DeBERTa has no other attention than "eager".)"""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    )
    tokenizer, logits = transformers.AutoTokenizer.from_pretrained(folder), []
    for length in lengths:
        query, passage = parity.pair_of(length)
        tokens = tokenizer([query], [passage], truncation="longest_first", max_length=length, return_tensors="pt")
        with torch.inference_mode():
            logits.append(model.eval()(**tokens).logits[0].double().numpy())
    return np.array(logits)


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_those_of_transformers_at_all_lengths(name, tmp_path):
    folder = write(tmp_path, SHAPES[name])
    lengths = LENGTHS[1:] if SHAPES[name].family == "deberta" else LENGTHS  # with version 1's 4 special tokens
    single, exact = (theirs(folder, lengths, dtype) for dtype in (torch.float32, torch.float64))
    assert exact.std(axis=0).min() > 0.1  # a thousand times what may differ
    assert np.abs(parity.ours(folder, lengths) - single).max() <= parity.TOLERANCE
    reference = parity.ours(folder, lengths, backend="reference", dtype="float64")
    assert np.abs(reference - exact).max() <= CLOSE


@pytest.mark.parametrize("name", ["deberta-v3", "deberta-v1", "albert", "nomic-bert"])
def test_verify_compares_them(name, monkeypatch):
    monkeypatch.setattr(verify_module, "TOKEN_PAIRS", 120)
    checks = verify_module.verify(str(GOLDENS / name))
    assert len(checks) > 2
    assert [check.passed for check in checks] == [True] * len(checks), checks
