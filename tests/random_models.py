"""Models of any size with random weights, and batches of random tokens."""

import math

import numpy as np
from numbert.engine.tokenization import TokenBatch
from numbert.loaders import bert, mpnet
from numbert.loaders.encoder_names import tensor_table
from numbert.loaders.spec import ModelSpec


def make_spec(hidden, heads, inner, layers, labels) -> ModelSpec:
    return ModelSpec("bert", 97, hidden, layers, heads, inner, 64, 2, 1e-12, labels, embedding_size=hidden)


def random_weights(rng, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Weights of a scale that keeps every activation near 1, so that errors show."""
    weights = {}
    for name, (_, shape) in tensor_table(spec, mpnet.NAMES if spec.relative_buckets else bert.NAMES).items():
        scale = 1 / math.sqrt(shape[-1]) if len(shape) == 2 and "embedding" not in name else 1.0
        weights[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
    return weights


def random_batch(rng, spec: ModelSpec, lengths: list[int]) -> TokenBatch:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids, types = rng.integers(0, spec.vocab_size, offsets[-1]), rng.integers(0, 2, offsets[-1])
    positions = np.concatenate([np.arange(length) for length in lengths])
    return TokenBatch(ids.astype(np.int32), types.astype(np.int32), positions.astype(np.int32), offsets)
