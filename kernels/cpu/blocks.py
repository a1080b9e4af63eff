"""The CPU backend: the blocks of kernels/reference/blocks.py under the same names and signatures.

Start here: each block takes its scratch from the workspace, calls one to four kernels, and returns. Nothing is checked;
ids, offsets and shapes have been proven before (a wrong id would read outside its table). A block may overwrite `x`.

What is saved against the reference, all of it exact up to rounding:

- the biases of keys and values disappear (fusing.py);
- vectors of position and token type are added once, at load;
- in the last layer only the first token's query, output and feed-forward are computed.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy import float32, int32, int64
from numpy.typing import NDArray

from ..fusing import fuse_attention
from ..parameters import LayerNorm, Linear
from .attention import attend
from .elementwise import embed
from .isa import TILE_ROWS, TILE_WIDTH
from .linear import GELU, RELU, ROW_BLOCK, TANH, feed_forward, head, linear_residual_norm, linear_rows, project_heads
from .packing import (
    PackedLinear,
    PackedNorm,
    fill_up,
    pack_float32,
    pack_linear,
    pack_norm,
    round_up,
    take_panels,
)
from .workspace import Workspace, make_team

Floats = NDArray[float32]
__all__ = ["Workspace", "make_team"]  # the backend's, beside the blocks below
# A shard's activations must fit in the L2 cache beside the weights that pass by; but each shard reads all weights once,
# so that small ones wait for memory. On 100 pairs of 80 tokens, 256 to 1024 were within 4 %, 128 lost 16 %.
LARGEST_SHARD = 384
SHARES_SHARDS = True
MOST_WORKERS = None
HEAD_ACTIVATIONS = {"tanh": TANH, "gelu": GELU, "relu": RELU}

# ---- weights


class EmbeddingWeights(NamedTuple):
    """Tables for `embedding`."""

    word: Floats  # (vocabulary, C')
    place: Floats  # (token types * positions, C'): row type * positions + position
    positions: int
    norm: PackedNorm


class AttentionWeights(NamedTuple):
    """Packed weights of an attention block."""

    query_key_value: PackedLinear  # (3*H*D', C')
    output: PackedLinear  # (C', H*D')
    norm: PackedNorm
    num_heads: int
    scale: float  # 1 / sqrt(D)


class FeedForwardWeights(NamedTuple):
    """Packed weights of a feed-forward block."""

    up: PackedLinear  # (F', C')
    down: PackedLinear  # (C', F')
    norm: PackedNorm


class HeadWeights(NamedTuple):
    """Packed weights of the classification head."""

    dense: PackedLinear  # (C', C')
    activation: int
    output: PackedLinear  # (labels', C')
    num_labels: int


def pack_embedding(
    word: Floats, position: Floats, token_type: Floats, norm: LayerNorm, precision: str
) -> EmbeddingWeights:
    """Add up every token type with every position, and fill up the rows."""
    width = round_up(word.shape[1])
    place = (token_type[:, None] + position[None]).reshape(-1, word.shape[1])
    if word.shape[1] != width:  # else it stays where it is: the largest array of all
        word = fill_up(word, len(word), width)
    return EmbeddingWeights(word, fill_up(place, len(place), width), len(position), pack_norm(norm))


def pack_attention(
    query: Linear, key: Linear, value: Linear, output: Linear, norm: LayerNorm, num_heads: int, precision: str
) -> AttentionWeights:
    """Pack queries, keys and values as one matrix."""
    query, key, value, output = fuse_attention(query, key, value, output, num_heads, unit=TILE_WIDTH)
    together = Linear(*(np.concatenate(parts) for parts in zip(query, key, value, strict=True)))
    return AttentionWeights(
        pack_linear(together, precision),
        pack_linear(output, precision),
        pack_norm(norm),
        num_heads,
        1 / math.sqrt(output.weight.shape[0] / num_heads),
    )


def pack_feed_forward(up: Linear, down: Linear, norm: LayerNorm, precision: str) -> FeedForwardWeights:
    """Pack both layers."""
    return FeedForwardWeights(pack_linear(up, precision), pack_linear(down, precision), pack_norm(norm))


def pack_head(dense: Linear, activation: str, output: Linear, precision: str) -> HeadWeights:
    """Pack both layers; the head is a thousandth of the work and stays float32."""
    return HeadWeights(
        pack_float32(dense),
        HEAD_ACTIVATIONS[activation],
        pack_float32(output),
        len(output.bias),
    )


def pack_projection(layer: Linear, precision: str) -> PackedLinear:
    """Pack the layer from the embedding size to the hidden size; it belongs to the embedding and stays float32."""
    return pack_float32(layer)


def pack_relative_bias(bias: Floats, precision: str) -> Floats:
    """Add columns that whole vectors may read beyond the longest distance: (H, 2 positions - 1 + TILE_WIDTH)."""
    return fill_up(bias, bias.shape[0], bias.shape[1] + TILE_WIDTH)


# ---- blocks


def embedding(
    ids: NDArray[int32],
    type_ids: NDArray[int32],
    position_ids: NDArray[int32],
    weights: EmbeddingWeights,
    workspace: Workspace,
) -> Floats:
    """Look up and normalise the vector of each token: (T, C')."""
    rows = slice(*workspace.rows_of(len(ids)))
    places = type_ids[rows] * int32(weights.positions) + position_ids[rows]
    x = workspace.take("x", len(places), weights.word.shape[1])
    embed(ids[rows], places, weights.word, weights.place, weights.norm, x)
    return x


def projection(x: Floats, weights: PackedLinear, workspace: Workspace) -> Floats:
    """Bring embeddings to the hidden size: (T, C')."""
    projected = workspace.take("projected", len(x), len(weights.bias))
    linear_rows(x, 0, len(x), weights, workspace.operand(1), projected)
    return projected


def attention_block(
    x: Floats,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    relative_bias: Floats | None,
    workspace: Workspace,
) -> Floats:
    """Attend within each pair, add to x and normalise, in place: (T, C')."""
    heads, first = weights.num_heads, workspace.rows_of(int(offsets[-1]))[0]
    qkv = workspace.take_shared("query_key_value", 3 * heads, int(offsets[-1]) + TILE_WIDTH, _head_width(weights))
    project_heads(x, weights.query_key_value, workspace.operand(x.shape[1]), qkv, first)
    workspace.meet()
    query_offsets = np.clip(offsets, first, first + len(x))
    positions = np.maximum(first - offsets[:-1], 0)
    return _attend(x, qkv[:heads], query_offsets, positions, qkv[heads:], offsets, weights, relative_bias, workspace)


def first_token_attention_block(
    x: Floats,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    relative_bias: Floats | None,
    workspace: Workspace,
) -> Floats:
    """Compute the rows of `attention_block` that belong to first tokens: (B, C')."""
    heads, total, first = weights.num_heads, int(offsets[-1]), workspace.rows_of(int(offsets[-1]))[0]
    own = (offsets[:-1] >= first) & (offsets[:-1] < first + len(x))  # pairs whose first token is a row of x
    first_tokens = workspace.take("first", int(np.count_nonzero(own)), x.shape[1])
    np.take(x, offsets[:-1][own] - first, axis=0, out=first_tokens)
    panels = len(weights.query_key_value.panels)
    query = workspace.take("query", heads, len(first_tokens), _head_width(weights))
    key_value = workspace.take_shared("query_key_value", 2 * heads, total + TILE_WIDTH, _head_width(weights))
    operand = workspace.operand(x.shape[1])
    project_heads(first_tokens, take_panels(weights.query_key_value, 0, panels // 3), operand, query, 0)
    project_heads(x, take_panels(weights.query_key_value, panels // 3, panels), operand, key_value, first)
    workspace.meet()
    query_offsets = np.concatenate([[0], np.cumsum(own)])
    positions = np.zeros(len(own), int64)
    return _attend(first_tokens, query, query_offsets, positions, key_value, offsets, weights, relative_bias, workspace)


def _head_width(weights: AttentionWeights) -> int:
    return len(weights.query_key_value.bias) // (3 * weights.num_heads)


def _attend(
    x: Floats,
    query: Floats,
    query_offsets: NDArray[int64],
    query_positions: NDArray[int64],
    key_value: Floats,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    relative_bias: Floats | None,
    workspace: Workspace,
) -> Floats:
    """Replace the rows x, whose queries are given, by what they become when they attend to the keys of their pairs."""
    heads, _, width = query.shape
    longest = round_up(int(np.diff(offsets).max()))
    context = workspace.take("context", len(x), heads * width)
    attend(
        query,
        query_offsets,
        query_positions,
        key_value,
        offsets,
        weights.scale,
        relative_bias,
        workspace.take("key_panels", width * longest),
        workspace.take("scores", TILE_ROWS, longest),
        workspace.take("sums", TILE_ROWS),
        context,
    )
    product, operand = workspace.take("product", ROW_BLOCK, x.shape[1]), workspace.operand(context.shape[1])
    linear_residual_norm(context, weights.output, weights.norm, operand, product, x)
    return x


def feed_forward_block(x: Floats, weights: FeedForwardWeights, workspace: Workspace) -> Floats:
    """Widen, bend, narrow, add to x and normalise, in place: shape of x."""
    hidden = workspace.take("hidden", ROW_BLOCK, len(weights.up.bias))
    product = workspace.take("product", ROW_BLOCK, x.shape[1])
    operand = workspace.operand(hidden.shape[1])
    feed_forward(x, weights.up, weights.down, weights.norm, operand, hidden, product)
    return x


def classification_head(x: Floats, weights: HeadWeights, workspace: Workspace) -> Floats:
    """Turn the vector of each pair's first token into its logits: (B, labels)."""
    pooled = workspace.take("pooled", *x.shape)
    logits = workspace.take("logits", len(x), len(weights.output.bias))
    head(x, weights.dense, weights.activation, weights.output, workspace.operand(1), pooled, logits)
    return logits[:, : weights.num_labels].copy()
