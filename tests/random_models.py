"""Models of any size with random weights, and batches of random tokens."""

import math
from typing import Any

import numpy as np
from numbert.engine.tokenization import TokenBatch
from numbert.loaders import deberta
from numbert.loaders.names import Names, tensor_table
from numbert.loaders.spec import (
    ATTENTION,
    FEED_FORWARD,
    NORMS,
    DistanceRows,
    LayerRule,
    LinearStep,
    ModelSpec,
    NormStep,
    two_layers,
)

NAMES: Names = {  # of whatever a spec can have; there is no file in which they would be
    **deberta.NAMES,
    "relative_bias": "relative_bias",
    "layers.{i}.feed_forward.gate": "gate.{i}",
    "head.norm": "head.norm",
    "head.shortcut": "head.shortcut",
}
LONGEST = 64
WITHOUT_BIAS = frozenset({*ATTENTION, *FEED_FORWARD, *NORMS})


def make_spec(hidden: int, heads: int, inner: int, layers: int, labels: int, **rules: Any) -> ModelSpec:
    """Return the sizes of a model of BERT's kind, but for the rules that are given."""
    settings = {
        "layers": (LayerRule(),) * layers,
        "head": two_layers(hidden, "tanh", labels),
        "embedding_size": hidden,
        **rules,
    }
    return ModelSpec("bert", 97, hidden, heads, inner, LONGEST, 2, 1e-12, labels, **settings)


def make_modern_spec(hidden: int, heads: int, inner: int, layers: int, labels: int, **rules: Any) -> ModelSpec:
    """Return the sizes of a model of ModernBERT's kind: of three layers, one sees all and two a window."""
    kinds = [LayerRule(160_000.0, None), LayerRule(10_000.0, (5, 5)), LayerRule(10_000.0, (5, 5))]
    settings = {
        "layers": tuple(kinds[i % 3] for i in range(layers)),
        "head": (
            LinearStep("head.dense", hidden, hidden, bias=False),
            "gelu",
            NormStep("head.norm", hidden, 1e-5, bias=False),
            LinearStep("head.output", hidden, labels, bias=True),
        ),
        "has_position_table": False,
        "pre_norm": True,
        "gated": True,
        "without_bias": WITHOUT_BIAS,
        **rules,
    }
    return ModelSpec("modernbert", 97, hidden, heads, inner, LONGEST, 0, 1e-5, labels, hidden, **settings)


def make_disentangled_spec(
    *kinds: str, shared: bool = True, width: int = 48, heads: int = 3, **rules: Any
) -> ModelSpec:
    """Return the sizes of a model of DeBERTa's kind, whose buckets hold several distances each from 4 on."""
    rows = DistanceRows(kinds, 8, 8, 40, normed=True, shared=shared)
    settings = {"distance_rows": rows, "score_terms": 1 + len(kinds), "has_position_table": False, **rules}
    return make_spec(width, heads, 97, 3, 2, **settings)


def random_weights(rng, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Weights of a scale that keeps every activation near 1, so that errors show."""
    weights = {}
    for name, source in tensor_table(spec, NAMES).items():
        shape = source.shape
        scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 and "embedding" not in name else 1.0
        weights[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
    return weights


def random_batch(rng, spec: ModelSpec, lengths: list[int]) -> TokenBatch:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    types = max(spec.num_token_types, 1)
    ids, types = rng.integers(0, spec.vocab_size, offsets[-1]), rng.integers(0, types, offsets[-1])
    positions = np.concatenate([np.arange(length) for length in lengths])
    return TokenBatch(ids.astype(np.int32), types.astype(np.int32), positions.astype(np.int32), offsets)
