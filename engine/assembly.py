"""From what a checkpoint holds to what a backend computes with: a spec and weights become records, and are packed."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..kernels.parameters import (
    Attention,
    DistanceBias,
    Embedding,
    FeedForward,
    Head,
    Linear,
    Norm,
    Positions,
    Residual,
    Step,
)
from ..kernels.positions import bucket_of_distance, rotary_tables
from ..loaders.spec import HeadStep, LayerRule, LinearStep, ModelSpec, NormStep, ResidualStep
from .backend import Backend
from .encoder import Encoder, Layer

Weights = Mapping[str, NDArray[np.float32]]


def assemble(
    spec: ModelSpec,
    weights: Weights,
    ops: Backend,
    precision: str,
    do_all: Callable[[Callable[[int], Layer], Sequence[int]], Iterable[Layer]] = map,
) -> Encoder:
    """Hand the checkpoint's arrays to the backend, which brings them into the form that it computes with.

    `do_all` applies a function to each number of a layer; with that of a thread pool, layers are read side by side.
    """
    embedding = ops.pack_embedding(_embedding(spec, weights), precision)
    rules = {  # one table for all layers with the same rule
        rule: ops.pack_positions(_positions(spec, rule, weights), precision) for rule in dict.fromkeys(spec.layers)
    }

    def layer(i: int) -> Layer:
        rule = spec.layers[i]
        attention = _attention(spec, f"layers.{i}.attention", rule, weights, rules[rule])
        feed_forward = _feed_forward(spec, f"layers.{i}.feed_forward", weights)
        return Layer(ops.pack_attention(attention, precision), ops.pack_feed_forward(feed_forward, precision))

    layers = tuple(do_all(layer, range(spec.num_layers)))
    head = ops.pack_head(Head(spec.pooling, tuple(_step(step, weights) for step in spec.head)), precision)
    return Encoder(embedding, layers, head, spec.pooling)


def _linear(name: str, weights: Weights) -> Linear:
    return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _norm(name: str, eps: float, weights: Weights) -> Norm:
    return Norm(weights[f"{name}.gain"], weights.get(f"{name}.bias"), eps)


def _embedding(spec: ModelSpec, weights: Weights) -> Embedding:
    return Embedding(
        weights["embedding.word"],
        weights.get("embedding.position"),
        weights.get("embedding.token_type"),
        _norm("embedding.norm", spec.norm_eps, weights),
        _linear("projection", weights) if spec.embedding_size != spec.hidden_size else None,
    )


def _positions(spec: ModelSpec, rule: LayerRule, weights: Weights) -> Positions:
    if rule.theta is not None:
        return rotary_tables(spec.usable_length, spec.hidden_size // spec.num_heads, rule.theta)
    if spec.relative_buckets:
        buckets = bucket_of_distance(spec.usable_length, spec.relative_buckets)  # (2P-1,)
        return DistanceBias(weights["relative_bias"][buckets].T)
    return None


def _attention(spec: ModelSpec, name: str, rule: LayerRule, weights: Weights, positions: Positions) -> Attention:
    query, key, value, output = (_linear(f"{name}.{part}", weights) for part in ("query", "key", "value", "output"))
    scale = 1 / math.sqrt(spec.hidden_size / spec.num_heads)
    norm = _norm(f"{name}.norm", spec.norm_eps, weights)
    return Attention(
        query, key, value, output, norm, spec.num_heads, scale, positions, rule.reach, keeps_sum=spec.pre_norm
    )


def _feed_forward(spec: ModelSpec, name: str, weights: Weights) -> FeedForward:
    return FeedForward(
        _linear(f"{name}.up", weights),
        _linear(f"{name}.gate", weights) if spec.gated else None,
        _linear(f"{name}.down", weights),
        "gelu",
        _norm(f"{name}.norm", spec.norm_eps, weights),
        keeps_sum=spec.pre_norm,
    )


def _step(step: HeadStep, weights: Weights) -> Step:
    if isinstance(step, LinearStep):
        return _linear(step.name, weights)
    if isinstance(step, NormStep):
        return _norm(step.name, step.eps, weights)
    if isinstance(step, ResidualStep):
        shortcut = None if step.shortcut is None else _linear(step.shortcut.name, weights)
        return Residual(tuple(_step(inner, weights) for inner in step.steps), shortcut)
    return step
