"""The forward pass, on one page.

``ops`` is a backend (backend.py): the same few blocks whether they are computed by NumPy, Numba or a GPU.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.parameters import LayerNorm, Linear
from ..loaders.spec import ModelSpec
from .backend import Backend
from .tokenization import TokenBatch


class Layer(NamedTuple):
    """The weights of one layer, as the backend packed them."""

    attention: Any
    feed_forward: Any


class Encoder(NamedTuple):
    """The weights of a model, as the backend packed them."""

    embedding: Any
    projection: Any  # None where embeddings have the hidden size
    relative_bias: Any  # None where attention has none
    layers: tuple[Layer, ...]
    head: Any


@np.errstate(all="ignore")
def forward(encoder: Encoder, tokens: TokenBatch, ops: Backend, workspace: Any) -> NDArray[np.floating[Any]]:
    """Compute the logits of each pair: (B, labels).

    Numbers beyond the dtype become infinite or NaN and reach the logits, where the caller looks for them.
    """
    x = ops.embedding(tokens.ids, tokens.type_ids, tokens.position_ids, encoder.embedding, workspace)  # (T, C)
    if encoder.projection is not None:
        x = ops.projection(x, encoder.projection, workspace)  # (T, C)
    for layer in encoder.layers[:-1]:
        x = ops.attention_block(x, tokens.offsets, layer.attention, encoder.relative_bias, workspace)  # (T, C)
        x = ops.feed_forward_block(x, layer.feed_forward, workspace)  # (T, C)
    last = encoder.layers[-1]  # of its results, only the first token's reach the head
    x = ops.first_token_attention_block(x, tokens.offsets, last.attention, encoder.relative_bias, workspace)  # (B, C)
    x = ops.feed_forward_block(x, last.feed_forward, workspace)  # (B, C)
    return ops.classification_head(x, encoder.head, workspace)  # (B, labels)


def pack(
    spec: ModelSpec,
    weights: Mapping[str, NDArray[np.float32]],
    ops: Backend,
    precision: str,
    do_all: Callable[[Callable[[int], Layer], Sequence[int]], Iterable[Layer]] = map,
) -> Encoder:
    """Hand the checkpoint's arrays to the backend, which brings them into the form that it computes with.

    `do_all` applies a function to each number of a layer; with that of a thread pool, layers are read side by side.
    """

    def linear(name: str) -> Linear:
        return Linear(weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str) -> LayerNorm:
        return LayerNorm(weights[f"{name}.gain"], weights[f"{name}.bias"], spec.norm_eps)

    def layer(name: str) -> Layer:
        attention = ops.pack_attention(
            linear(f"{name}.attention.query"),
            linear(f"{name}.attention.key"),
            linear(f"{name}.attention.value"),
            linear(f"{name}.attention.output"),
            norm(f"{name}.attention.norm"),
            spec.num_heads,
            precision,
        )
        up, down = linear(f"{name}.feed_forward.up"), linear(f"{name}.feed_forward.down")
        return Layer(attention, ops.pack_feed_forward(up, down, norm(f"{name}.feed_forward.norm"), precision))

    no_types = np.zeros((1, spec.embedding_size), np.float32)
    embedding = ops.pack_embedding(
        weights["embedding.word"],
        weights["embedding.position"],
        weights["embedding.token_type"] if spec.num_token_types else no_types,
        norm("embedding.norm"),
        precision,
    )
    layers = tuple(do_all(lambda i: layer(f"layers.{i}"), range(spec.num_layers)))
    projection = relative_bias = None
    if spec.embedding_size != spec.hidden_size:
        projection = ops.pack_projection(linear("projection"), precision)
    if spec.relative_buckets:
        buckets = bucket_of_distance(spec.usable_length, spec.relative_buckets)  # (2 positions - 1,)
        relative_bias = ops.pack_relative_bias(weights["relative_bias"][buckets].T, precision)
    head = ops.pack_head(linear("head.dense"), spec.head_activation, linear("head.output"), precision)
    return Encoder(embedding, projection, relative_bias, layers, head)


def bucket_of_distance(positions: int, buckets: int) -> NDArray[np.int64]:
    """Return the bucket of each distance from a query to a key, from -(positions - 1) to positions - 1.

    Half of the buckets are for keys behind the query; of each half, one half holds the nearest distances singly, the
    rest grow logarithmically up to 128. Source: C. Raffel et al., "Exploring the Limits of Transfer Learning with a
    Unified Text-to-Text Transformer" (2020), section 2.1; float32 as in transformers, where borders are rounded.
    """
    distance = np.arange(-(positions - 1), positions)
    half, exact = buckets // 2, buckets // 4
    size = np.abs(distance)
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(128 / exact))
    far = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(size < exact, size, far)
