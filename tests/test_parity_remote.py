"""Live comparison with transformers: GTE, and models of transformers that were brought under the rules of others.

The second jina-reranker is XLM-RoBERTa under other names. The first is BERT with a bias by distance and a gated block
in the place of a plain one; GTE's rates of the NTK kind are put into transformers' own GTE by hand.
"""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbert import CrossEncoder

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
safetensors_numpy = importlib.import_module("safetensors.numpy")
record_goldens = importlib.import_module("record_goldens")
Shape = record_goldens.Shape

pytestmark = pytest.mark.parity

# Absolute, on logits of a spread of several units: what numbert promises for float32.
TOLERANCE = 1e-4  # worst seen: 7.6e-5, GTE of the published size, where torch is 9.4e-5 from float64
# Where torch itself is further than that from the float64 result: as far as it, but for the order of sums.
ERROR_RATIO = 4
WORDS = "rain river town the old bread market winter people water bridge letter".split()
LENGTHS = (4, 5, 7, 17, 33, 64, 65, 129, 200, 511, 512)  # 4 are the special tokens alone
SLOW_RATES = {"rope_parameters": {"rope_type": "default", "rope_theta": 160_000.0}}
FAST_RATES = {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
PUBLISHED = {"heads": 12, "head_width": 64, "intermediate": 3072}  # all three are of this size, with 12 layers


@contextmanager
def in_float64() -> Iterator[None]:
    """Keep transformers from computing angles in float32, whatever the dtype of the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def write(folder: Path, shape: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_goldens, "POSITIONS", 512)
        record_goldens.write_checkpoint(folder, shape, seed=shape.head_width)
    return folder


def pair_of(length: int) -> tuple[str, str]:
    """Make a pair that is cut to so many tokens, each word of which is one token at least."""
    words = np.random.default_rng(length).choice(WORDS, length)
    return (" ".join(words[:2]), " ".join(words[2:])) if length > 6 else ("", "the"[: length - 4])


def tokens_of(folder: Path, length: int) -> Any:
    query, passage = pair_of(length)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer([query], [passage], truncation="longest_first", max_length=length, return_tensors="pt")
    assert tokens["input_ids"].shape[1] <= length
    return tokens


def single_and_exact(model: Any, folder: Path, compute: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits that torch computes in float32 and in float64."""
    compute = compute or (lambda tokens: model(**tokens).logits)
    results = []
    for dtype in (torch.float32, torch.float64):
        model.to(dtype).eval()
        rows = []
        with torch.inference_mode():
            for length in LENGTHS:
                tokens = tokens_of(folder, length)
                if dtype is torch.float64:
                    with in_float64():
                        rows.append(compute(tokens)[0].numpy())
                else:
                    rows.append(compute(tokens)[0].numpy())
        results.append(np.array(rows, np.float64))
    return results[0], results[1]


def ours(folder: Path) -> np.ndarray:
    model = CrossEncoder(folder, activation_fn="identity")
    logits = []
    for length in LENGTHS:
        model.max_seq_length = max(length, 5)  # of 4, none would be left for text
        logits.append(np.atleast_1d(model.predict(pair_of(length))))
    return np.array(logits)


def assert_close(folder: Path, single: np.ndarray, exact: np.ndarray) -> None:
    assert exact.std(axis=0).min() > 0.3
    bound = max(TOLERANCE, ERROR_RATIO * np.abs(single - exact).max())
    assert np.abs(ours(folder) - exact).max() <= bound


def load(folder: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


# ---- GTE

GTES = {
    "as published": Shape(heads=4, head_width=64, layers=4, intermediate=512, family="gte", settings=SLOW_RATES),
    "odd sizes": Shape(heads=3, head_width=22, layers=4, intermediate=91, labels=3, family="gte", settings=FAST_RATES),
}


@pytest.mark.parametrize("name", GTES)
def test_gte_is_scored_as_by_transformers(name, tmp_path):
    folder = write(tmp_path, GTES[name])
    assert_close(folder, *single_and_exact(load(folder), folder))


@pytest.mark.long
def test_gte_of_the_published_size_is_scored_as_by_transformers(tmp_path):
    folder = write(tmp_path, Shape(**PUBLISHED, layers=12, family="gte", settings=SLOW_RATES))
    assert_close(folder, *single_and_exact(load(folder), folder))


@pytest.mark.parametrize("factor", [2.0, 8.0])
def test_rates_of_the_ntk_kind_are_those_of_the_rule_at_all_lengths(factor, tmp_path):
    width, theta = 32, 20_000.0
    folder = write(tmp_path, Shape(heads=4, head_width=width, layers=4, intermediate=90, family="gte"))
    model = load(folder)
    exponent = torch.arange(0, width, 2) / width
    model.gte.rotary_emb.inv_freq = (theta * factor) ** -exponent / factor ** (2 / width)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    rule = {"rope_theta": theta, "rope_scaling": {"type": "ntk", "factor": factor}}
    path.write_text(json.dumps({**config, **rule}))
    expected = single_and_exact(model, folder)
    assert_close(folder, *expected)
    path.write_text(json.dumps({**config, "rope_theta": theta * factor}))
    assert np.abs(ours(folder) - expected[1]).max() > 1e-2  # rates that are not divided show


# ---- jina-reranker v2


def rename_as_flash_attention_does(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bring XLM-RoBERTa's tensors under the names of the second jina-reranker."""
    parts = {
        "attention.output.dense": "mixer.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "output.LayerNorm": "norm2",
    }
    renamed = {}
    for name, array in tensors.items():
        *first, kind = name.split(".")
        if name.startswith("roberta.embeddings.LayerNorm."):
            renamed[f"roberta.emb_ln.{kind}"] = array
        elif not name.startswith("roberta.encoder.layer."):
            renamed[name] = array
        else:
            layer, part = f"roberta.encoder.layers.{first[3]}", ".".join(first[4:])
            if part == "attention.self.query":
                fused = [tensors[name.replace("query", other)] for other in ("query", "key", "value")]
                renamed[f"{layer}.mixer.Wqkv.{kind}"] = np.concatenate(fused)
            elif part in parts:
                renamed[f"{layer}.{parts[part]}.{kind}"] = array
    return renamed


JINA_2S = {
    "even sizes": Shape(heads=3, head_width=40, layers=4, intermediate=300, eps=1e-5, family="xlm-roberta"),
    "odd sizes": Shape(heads=5, head_width=13, layers=3, intermediate=97, labels=2, eps=1e-5, family="xlm-roberta"),
}


def check_jina_2(folder: Path, shape: Any) -> None:
    path = write(folder, shape) / "model.safetensors"
    tensors = safetensors_numpy.load_file(path)
    tensors["classifier.out_proj.weight"] *= 4  # lets logits spread by units
    safetensors_numpy.save_file(tensors, path, {"format": "pt"})
    model = load(folder)
    safetensors_numpy.save_file(rename_as_flash_attention_does(tensors), path)
    assert_close(folder, *single_and_exact(model, folder))


@pytest.mark.parametrize("name", JINA_2S)
def test_the_second_jina_reranker_is_xlm_roberta_under_other_names(name, tmp_path):
    check_jina_2(tmp_path, JINA_2S[name])


@pytest.mark.long
def test_the_second_jina_reranker_of_the_published_size(tmp_path):
    check_jina_2(tmp_path, Shape(**PUBLISHED, layers=12, eps=1e-5, family="xlm-roberta"))


# ---- jina-reranker v1


class Gated(torch.nn.Module):
    """The feed-forward block of JinaBERT."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gated_layers = torch.nn.Linear(hidden, 2 * inner, bias=False)
        self.wo = torch.nn.Linear(inner, hidden)

    def forward(self, x: Any) -> Any:
        activated, other = self.gated_layers(x).chunk(2, dim=-1)
        return self.wo(torch.nn.functional.gelu(activated) * other)


def slopes_of(heads: int) -> list[float]:
    """Return ALiBi's slopes; where the number of heads is no power of two, by two series that are such."""
    power = 2 ** int(np.log2(heads))
    series = [[2 ** (-8 * i / count) for i in range(1, count + 1)] for count in (power, 2 * power)]
    return series[0] + series[1][::2][: heads - power]


def check_jina_1(folder: Path, shape: Any) -> None:
    """Save BERT with what JinaBERT has, under JinaBERT's names, and compare."""
    hidden = shape.heads * shape.head_width
    sizes = {
        "vocab_size": shape.vocabulary, "hidden_size": hidden, "num_hidden_layers": shape.layers, "num_labels": 1,
        "num_attention_heads": shape.heads, "intermediate_size": shape.intermediate, "max_position_embeddings": 512,
    }  # fmt: skip
    config = transformers.BertConfig(**sizes, attn_implementation="eager")
    model = transformers.BertForSequenceClassification(config)
    for layer in model.bert.encoder.layer:
        layer.intermediate, layer.output.dense = torch.nn.Identity(), Gated(hidden, shape.intermediate)
    record_goldens.randomise(model, np.random.default_rng(shape.head_width))
    model.bert.embeddings.position_embeddings.weight.data.zero_()

    def compute(tokens: Any) -> Any:
        place = torch.arange(tokens["input_ids"].shape[1])
        slopes = torch.tensor(slopes_of(shape.heads), dtype=model.dtype)
        bias = -slopes[None, :, None, None] * (place[:, None] - place).abs()
        return model(tokens["input_ids"], attention_mask=bias).logits

    tensors = {
        name.replace(".output.LayerNorm", ".mlp.layernorm")
        .replace(".attention.mlp.layernorm", ".attention.output.LayerNorm")
        .replace(".output.dense.gated_layers", ".mlp.gated_layers")
        .replace(".output.dense.wo", ".mlp.wo"): parameter.detach().numpy().copy()
        for name, parameter in model.named_parameters()
        if "position_embeddings" not in name
    }
    safetensors_numpy.save_file(tensors, folder / "model.safetensors")
    rules = {"model_type": "bert", "position_embedding_type": "alibi", "feed_forward_type": "geglu"}
    (folder / "config.json").write_text(json.dumps({**sizes, **rules}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_goldens, "POSITIONS", 512)
        record_goldens.make_tokenizer(shape._replace(family="roberta", max_length=512)).save_pretrained(folder)
    assert_close(folder, *single_and_exact(model, folder, compute))


JINA_1S = {
    "a power of two heads": Shape(heads=4, head_width=16, layers=4, intermediate=200),
    "as turbo, of 6 layers": Shape(heads=12, head_width=32, layers=6, intermediate=1536),
    "as tiny, of 4 layers": Shape(heads=12, head_width=32, layers=4, intermediate=1536),
}


@pytest.mark.parametrize("name", JINA_1S)
def test_the_first_jina_reranker_is_bert_with_a_bias_by_distance_and_gates(name, tmp_path):
    check_jina_1(tmp_path, JINA_1S[name])
