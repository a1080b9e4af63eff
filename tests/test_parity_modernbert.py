"""Live comparison with transformers: ModernBERT, at the lengths where something can go wrong."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbert import CrossEncoder

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
record_goldens = importlib.import_module("record_goldens")
Shape = record_goldens.Shape

pytestmark = pytest.mark.parity

# Absolute, on logits of a spread of several units: what numbert promises for float32.
TOLERANCE = 1e-4  # worst seen: 7.9e-5, 22 layers of 768 at 400 tokens, of which torch is 5e-5 from float64
# Where sums are long, torch itself is further than that from the float64 result.
ERROR_RATIO = 4
WORDS = "rain river town the old bread market winter people water bridge letter".split()
WINDOW = (126, 127, 128, 129, 130, 131)  # around twice the reach of 64
SMALL = {"layers": 4, "intermediate": 90, "eps": 1e-5, "family": "modernbert"}
SHAPES = {
    "as published": Shape(heads=4, head_width=32, settings={}, **SMALL),
    "odd sizes": Shape(
        heads=3, head_width=22, settings={"local_attention": 128, "global_attn_every_n_layers": 2}, **SMALL
    ),
    "all switches": Shape(
        heads=2, head_width=16, labels=3, **{**SMALL, "layers": 3}, settings=record_goldens.ALL_SWITCHES
    ),
    "same theta, as mmBERT": Shape(
        heads=2, head_width=64, settings={"global_rope_theta": 160_000.0, "local_rope_theta": 160_000.0}, **SMALL
    ),
    "last layer with a window": Shape(
        heads=2, head_width=32, settings={"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2}, **SMALL
    ),
}


def write(folder: Path, shape: Any, positions: int = 512) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_goldens, "POSITIONS", positions)
        record_goldens.write_checkpoint(folder, shape, seed=shape.head_width)
    return folder


def pair_of(length: int) -> tuple[str, str]:
    """Make a pair that is cut to so many tokens, each word of which is one token at least."""
    words = np.random.default_rng(length).choice(WORDS, length)
    return (" ".join(words[:2]), " ".join(words[2:])) if length > 5 else ("", "")


def theirs(folder: Path, lengths: tuple[int, ...], dtype: Any) -> np.ndarray:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa"
    )
    tokenizer, logits = transformers.AutoTokenizer.from_pretrained(folder), []
    for length in lengths:
        query, passage = pair_of(length)
        tokens = tokenizer([query], [passage], truncation="longest_first", max_length=length, return_tensors="pt")
        assert tokens["input_ids"].shape[1] == length
        with torch.inference_mode():
            logits.append(model.eval()(**tokens).logits[0].double().numpy())
    return np.array(logits)


def ours(folder: Path, lengths: tuple[int, ...], **options: Any) -> np.ndarray:
    model = CrossEncoder(folder, activation_fn="identity", **options)
    logits = []
    for length in lengths:
        model.max_seq_length = max(length, 4)  # 3 are the special tokens alone
        logits.append(np.atleast_1d(model.predict(pair_of(length))))
    return np.array(logits)


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_those_of_transformers_at_all_lengths_round_the_window(name, tmp_path):
    folder, lengths = write(tmp_path, SHAPES[name]), (3, 7, 17, 33, 64, 65, *WINDOW, 200, 511, 512)
    expected = theirs(folder, lengths, torch.float32)
    assert expected.std(axis=0).min() > 0.5
    assert np.abs(ours(folder, lengths) - expected).max() <= TOLERANCE


@pytest.mark.long
def test_a_model_of_the_published_size_is_scored_as_by_transformers(tmp_path):
    folder = write(
        tmp_path, Shape(heads=12, head_width=64, layers=22, intermediate=1152, eps=1e-5, family="modernbert")
    )
    lengths = (3, 64, 129, 130, 512)
    expected = theirs(folder, lengths, torch.float32)
    assert expected.std() > 2
    assert np.abs(ours(folder, lengths) - expected).max() <= TOLERANCE


@pytest.mark.parametrize(("length", "layers"), [(2000, 6), (8192, 2)])
def test_long_pairs_are_about_as_near_to_float64_as_torch(length, layers, tmp_path):
    kinds = ["full_attention" if i % 3 == 0 else "sliding_attention" for i in range(layers)]
    shape = Shape(
        heads=4, head_width=64, layers=layers, intermediate=300, eps=1e-5, family="modernbert",
        settings={"layer_types": kinds},
    )  # fmt: skip
    folder = write(tmp_path, shape, positions=8192)
    exact, single = (theirs(folder, (length,), dtype) for dtype in (torch.float64, torch.float32))
    bound = max(TOLERANCE, ERROR_RATIO * np.abs(single - exact).max())
    assert np.abs(ours(folder, (length,)) - exact).max() <= bound


def test_swapped_halves_of_the_gate_would_show(tmp_path):
    folder, lengths = write(tmp_path, SHAPES["as published"]), (17, 64)
    expected = theirs(folder, lengths, torch.float32)
    names = importlib.import_module("numbert.loaders.modernbert").NAMES
    gate, up = "layers.{i}.feed_forward.gate", "layers.{i}.feed_forward.up"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(names, gate, names[up])
        patch.setitem(names, up, "model.layers.{i}.mlp.Wi[0/2]")
        assert np.abs(ours(folder, lengths) - expected).max() > 0.1


@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_both_spellings_of_theta_are_read(kind, tmp_path):
    folder, lengths = write(tmp_path, SHAPES["as published"]), (17, 150)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"][kind]["rope_theta"] = 77.0
    path.write_text(json.dumps(config))
    newer = ours(folder, lengths)
    assert np.abs(newer - theirs(folder, lengths, torch.float32)).max() <= TOLERANCE
    old = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
    thetas = {old[key]: rule["rope_theta"] for key, rule in config.pop("rope_parameters").items()}
    path.write_text(json.dumps({**config, **thetas}))
    assert (ours(folder, lengths) == newer).all()
    path.write_text(json.dumps(config))  # neither: what transformers takes then
    assert np.abs(ours(folder, lengths) - newer).max() > 1e-2
    assert np.abs(ours(folder, lengths) - theirs(folder, lengths, torch.float32)).max() <= TOLERANCE
