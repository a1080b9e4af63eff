"""From what a checkpoint holds to what a backend computes with: a spec and weights become records, and are packed."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.parameters import (
    Attention,
    Bfloat16Table,
    Convolution,
    Disentangled,
    DistanceBias,
    Embedding,
    FeedForward,
    Float16Table,
    Head,
    Linear,
    Norm,
    Positions,
    Residual,
    Step,
    WordTable,
)
from ..kernels.positions import alibi_table, bucket_of_distance, rotary_tables, row_of_distance
from ..loaders.spec import (
    ConvolutionRule,
    DistanceRows,
    HeadStep,
    LayerRule,
    LinearStep,
    ModelSpec,
    NormStep,
    ResidualStep,
)
from ..loaders.tensors import Weights as StoredWeights
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

    distances = None if spec.distance_rows is None else _distances(spec, spec.distance_rows, weights)

    def layer(i: int) -> Layer:
        rule, name = spec.layers[i], f"layers.{i}.attention"
        positions = rules[rule]
        if distances is not None:
            positions = ops.pack_positions(_disentangled(spec, distances, name, weights), precision)
        attention = _attention(spec, name, rule, weights, positions)
        feed_forward = _feed_forward(spec, f"layers.{i}.feed_forward", weights)
        return Layer(ops.pack_attention(attention, precision), ops.pack_feed_forward(feed_forward, precision))

    layers = tuple(do_all(layer, range(spec.layers_with_weights or spec.num_layers)))
    every = tuple(layers[spec.weights_of_layer(i)] for i in range(spec.num_layers))
    convolution = None
    if spec.convolution is not None:
        convolution = ops.pack_convolution(_convolution(spec, spec.convolution, weights), precision)
    head = ops.pack_head(Head(spec.pooling, tuple(_step(step, weights) for step in spec.head)), precision)
    return Encoder(embedding, every, convolution, head, spec.pooling)


def _linear(name: str, weights: Weights) -> Linear:
    return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _norm(name: str, eps: float, weights: Weights) -> Norm:
    return Norm(weights[f"{name}.gain"], weights.get(f"{name}.bias"), eps)


def _embedding(spec: ModelSpec, weights: Weights) -> Embedding:
    return Embedding(
        _words(weights),
        weights.get("embedding.position"),
        weights.get("embedding.token_type"),
        _norm("embedding.norm", spec.norm_eps, weights),
        _linear("projection", weights) if spec.projection is not None else None,
        projects_first=spec.projection == "before",
    )


def _words(weights: Weights) -> WordTable:
    """Return the table of words in the dtype of the file: widened, it is larger than all layers of many models."""
    if not isinstance(weights, StoredWeights):
        return weights["embedding.word"]
    dtype, rows = weights.as_stored("embedding.word")
    tables: dict[str, Callable[[NDArray[Any]], WordTable]] = {"F16": Float16Table, "BF16": Bfloat16Table}
    return tables[dtype](rows.view(np.uint16)) if dtype in tables else rows


def _positions(spec: ModelSpec, rule: LayerRule, weights: Weights) -> Positions:
    if rule.theta is not None:
        return rotary_tables(spec.usable_length, spec.hidden_size // spec.num_heads, rule.theta, rule.slower)
    if spec.alibi:
        return alibi_table(spec.usable_length, spec.num_heads)
    if spec.relative_buckets:
        buckets = bucket_of_distance(spec.usable_length, spec.relative_buckets)  # (2P-1,)
        return DistanceBias(weights["relative_bias"][buckets].T)
    return None


def _distances(spec: ModelSpec, rule: DistanceRows, weights: Weights) -> NDArray[np.float64]:
    """Return the vector of each row of distances, which the tables of all layers are made of: (R, C)."""
    rows: NDArray[np.float64] = weights["distances"].astype(np.float64)
    if not rule.normed:
        return rows
    norm = _norm("distances.norm", spec.norm_eps, weights)
    centred = rows - rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + norm.eps)
    normed: NDArray[np.float64] = centred / deviation * norm.gain
    return normed if norm.bias is None else normed + norm.bias


def _disentangled(spec: ModelSpec, distances: NDArray[np.float64], name: str, weights: Weights) -> Positions:
    """Make the tables of a layer in float64; a backend rounds them once, to the dtype that it computes in.

    The bias of what queries meet is left out: it adds the same number to all scores of a query, and cancels.
    """
    rule = spec.distance_rows
    if rule is None or not rule.kinds:
        return None
    key, query = ("key", "query") if rule.shared else ("distance_key", "distance_query")

    def table(layer: Linear, bias: NDArray[np.float32] | None) -> NDArray[np.float64]:
        rows = distances @ layer.weight.T.astype(np.float64) + (0 if bias is None else bias)  # (R, H*D)
        return np.ascontiguousarray(rows.reshape(len(rows), spec.num_heads, -1).transpose(1, 0, 2))

    for_key = _linear(f"{name}.{key}", weights) if "c2p" in rule.kinds else None
    for_query = _linear(f"{name}.{query}", weights) if "p2c" in rule.kinds else None
    return Disentangled(
        None if for_key is None else table(for_key, None),
        None if for_query is None else table(for_query, for_query.bias),
        row_of_distance(spec.usable_length, rule.span, rule.buckets, rule.farthest),
    )


def _convolution(spec: ModelSpec, rule: ConvolutionRule, weights: Weights) -> Convolution:
    """Lay the weights of a convolution's taps side by side, and those of groups in a matrix of zeros: (C, W*C)."""
    c, groups, width = spec.hidden_size, rule.groups, rule.width
    part = c // groups
    weight = np.zeros((groups, part, width, groups, part), np.float32)
    stored = weights["convolution.weight"].reshape(groups, part, part, width)  # group, output, input, tap
    for group in range(groups):
        weight[group, :, :, group] = stored[group].transpose(0, 2, 1)
    layer = Linear(weight.reshape(c, width * c), weights["convolution.bias"])
    norm = _norm("convolution.norm", spec.norm_eps, weights)
    return Convolution(layer, rule.activation, norm, keeps_sum=spec.pre_norm)


def _attention(spec: ModelSpec, name: str, rule: LayerRule, weights: Weights, positions: Positions) -> Attention:
    query, key, value, output = (_linear(f"{name}.{part}", weights) for part in ("query", "key", "value", "output"))
    scale = 1 / math.sqrt(spec.hidden_size / spec.num_heads * spec.score_terms)
    norm = _norm(f"{name}.norm", spec.norm_eps, weights)
    return Attention(
        query, key, value, output, norm, spec.num_heads, scale, positions, rule.reach, keeps_sum=spec.pre_norm
    )


def _feed_forward(spec: ModelSpec, name: str, weights: Weights) -> FeedForward:
    return FeedForward(
        _linear(f"{name}.up", weights),
        _linear(f"{name}.gate", weights) if spec.gated else None,
        _linear(f"{name}.down", weights),
        spec.activation,
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
