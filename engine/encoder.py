"""The forward pass, on one page.

``ops`` is a backend (backend.py): the same few blocks whether they are computed by NumPy, Numba or a GPU.
"""

from collections.abc import Mapping
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
    layers: tuple[Layer, ...]
    head: Any


def forward(encoder: Encoder, tokens: TokenBatch, ops: Backend, workspace: Any) -> NDArray[np.floating[Any]]:
    """Compute the logits of each pair: (B, labels)."""
    x = ops.embedding(tokens.ids, tokens.type_ids, tokens.position_ids, encoder.embedding, workspace)  # (T, C)
    for layer in encoder.layers[:-1]:
        x = ops.attention_block(x, tokens.offsets, layer.attention, workspace)  # (T, C)
        x = ops.feed_forward_block(x, layer.feed_forward, workspace)  # (T, C)
    last = encoder.layers[-1]  # of its results, only the first token's reach the head
    x = ops.first_token_attention_block(x, tokens.offsets, last.attention, workspace)  # (B, C)
    x = ops.feed_forward_block(x, last.feed_forward, workspace)  # (B, C)
    return ops.classification_head(x, encoder.head, workspace)  # (B, labels)


def pack(spec: ModelSpec, weights: Mapping[str, NDArray[np.float32]], ops: Backend, dtype: str) -> Encoder:
    """Hand the checkpoint's arrays to the backend, which brings them into the form that it computes with."""
    numpy_dtype: np.dtype[Any] = np.dtype(dtype)

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
            numpy_dtype,
        )
        up, down = linear(f"{name}.feed_forward.up"), linear(f"{name}.feed_forward.down")
        return Layer(attention, ops.pack_feed_forward(up, down, norm(f"{name}.feed_forward.norm"), numpy_dtype))

    embedding = ops.pack_embedding(
        weights["embedding.word"],
        weights["embedding.position"],
        weights["embedding.token_type"],
        norm("embedding.norm"),
        numpy_dtype,
    )
    layers = tuple(layer(f"layers.{i}") for i in range(spec.num_layers))
    return Encoder(embedding, layers, ops.pack_head(linear("head.dense"), linear("head.output"), numpy_dtype))
