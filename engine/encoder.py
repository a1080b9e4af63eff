"""The forward pass, on one page.

``ops`` is a backend (backend.py): the same few blocks whether they are computed by NumPy, Numba or a GPU.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy import int64
from numpy.typing import NDArray

from .backend import Blocks
from .tokenization import TokenBatch

# The rows that the head needs of the last layer, by its pooling; of any other, all.
POOLED_ROWS: dict[str, Callable[[NDArray[int64]], NDArray[int64]]] = {
    "first": lambda offsets: offsets[:-1],
    "last": lambda offsets: offsets[1:] - 1,
}


class Layer(NamedTuple):
    """The weights of one layer, as the backend packed them."""

    attention: Any
    feed_forward: Any


class Encoder(NamedTuple):
    """The weights of a model, as the backend packed them."""

    embedding: Any
    layers: tuple[Layer, ...]
    convolution: Any  # None: there is none
    head: Any
    pooling: str


@np.errstate(all="ignore")
def forward(encoder: Encoder, tokens: TokenBatch, ops: Blocks, workspace: Any) -> NDArray[np.floating[Any]]:
    """Compute the logits of each pair: (B, labels).

    Numbers beyond the dtype become infinite or NaN and reach the logits, where the caller looks for them.
    """
    stream = ops.embedding(tokens.ids, tokens.type_ids, tokens.position_ids, encoder.embedding, workspace)  # (T, C)
    convolution, mixed = encoder.convolution, None
    if convolution is not None:
        mixed = ops.convolve(stream, tokens.offsets, convolution, workspace)
    for layer in encoder.layers[:-1]:
        stream = ops.attention_block(stream, tokens.offsets, layer.attention, None, workspace)  # (T, C)
        stream = ops.feed_forward_block(stream, layer.feed_forward, workspace)  # (T, C)
        if mixed is not None:  # behind the first layer
            stream, mixed = ops.add_convolved(stream, mixed, convolution, workspace), None
    last, pick = encoder.layers[-1], POOLED_ROWS.get(encoder.pooling)
    rows = pick(tokens.offsets) if pick else None
    stream = ops.attention_block(stream, tokens.offsets, last.attention, rows, workspace)  # (B, C), or (T, C)
    stream = ops.feed_forward_block(stream, last.feed_forward, workspace)
    return ops.head(stream, tokens.offsets, encoder.head, workspace)  # (B, labels)
