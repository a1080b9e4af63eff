"""The CUDA backend: the blocks of kernels/reference/blocks.py under the same names and signatures.

Start here: each block takes its buffers from the workspace, starts one to three kernels on its stream, and returns at
once; only the head waits. Seven kernels make a layer. Nothing is checked; ids, offsets and shapes have been proven
before (a wrong id would read foreign memory). A block may overwrite `x`.

What is saved against the reference, exact up to rounding: the biases of keys and values disappear (fusing.py), vectors
of position and token type are added at load, and in the last layer only the first token's query, output and
feed-forward are computed.
"""

import math
import os
from typing import NamedTuple

import numpy as np
from numba import config
from numpy import float32, int32, int64
from numpy.typing import NDArray

from ..fusing import fuse_attention
from ..parameters import LayerNorm, Linear
from .attention import QUERIES, make_attention
from .elementwise import ROWS, THREADS, embed, gather, normalize
from .fragments import WARP_COLUMNS, WARP_ROWS
from .linear import (
    ADD,
    GELU,
    NONE,
    PER_THREAD,
    RELU,
    TANH,
    THREADS_ACROSS,
    THREADS_DOWN,
    WARPS_ACROSS,
    WARPS_DOWN,
    make_linear,
    make_tensor_core_linear,
)
from .packing import (
    DeviceArray,
    PackedLinear,
    PackedNorm,
    fill_up,
    pack_linear,
    pack_norm,
    round_up,
    upload,
)
from .workspace import Rows, Workspace, make_team

__all__ = ["Workspace", "make_team"]  # the backend's, beside the blocks below
Floats = NDArray[float32]
LARGEST_SHARD = 16384  # tokens: enough blocks for every GPU of today, 450 MB of activations for a model of 768
SHARES_SHARDS = False
MOST_WORKERS = 2  # one prepares a shard and launches its kernels while those of the other run
HEAD_ACTIVATIONS = {"tanh": TANH, "gelu": GELU, "relu": RELU}
HEAD_UNIT = 4  # heads are filled up to multiples: vectors of 128 bits
GATHER_THREADS = 128
if "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS" not in os.environ:
    # A small request is a small grid. Numba would warn of it at every launch, and nobody could do anything about it.
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

# ---- weights


class EmbeddingWeights(NamedTuple):
    """Tables for `embedding`."""

    word: DeviceArray  # (vocabulary, C')
    place: DeviceArray  # (token types * positions, C'): row type * positions + position
    positions: int
    norm: PackedNorm
    process: int  # that has the tables: a forked child has not


class AttentionWeights(NamedTuple):
    """Packed weights of an attention block."""

    query_key_value: PackedLinear  # (3*H*D'', C'): each of the three filled up to whole blocks of columns
    output: PackedLinear  # (C', H*D'')
    norm: PackedNorm
    num_heads: int
    head_width: int  # D'
    scale: float  # 1 / sqrt(D)


class FeedForwardWeights(NamedTuple):
    """Packed weights of a feed-forward block."""

    up: PackedLinear  # (F', C')
    down: PackedLinear  # (C', F')
    norm: PackedNorm


class HeadWeights(NamedTuple):
    """Packed weights of the classification head."""

    dense: PackedLinear  # (C', C')
    activation: str
    output: PackedLinear  # (labels', C')
    num_labels: int


class RelativeBias(NamedTuple):
    """What attention adds to scores for the distance from query to key."""

    table: DeviceArray  # (H, 2 positions - 1)
    positions: int


def pack_embedding(
    word: Floats, position: Floats, token_type: Floats, norm: LayerNorm, precision: str
) -> EmbeddingWeights:
    """Add up every token type with every position, fill up the rows, and upload."""
    width = round_up(word.shape[1])
    place = (token_type[:, None] + position[None]).reshape(-1, word.shape[1])
    return EmbeddingWeights(
        upload(fill_up(word, len(word), width)),
        upload(fill_up(place, len(place), width)),
        len(position),
        pack_norm(norm),
        os.getpid(),
    )


def pack_attention(
    query: Linear, key: Linear, value: Linear, output: Linear, norm: LayerNorm, num_heads: int, precision: str
) -> AttentionWeights:
    """Pack queries, keys and values as one matrix."""
    scale = 1 / math.sqrt(len(query.bias) / num_heads)
    query, key, value, output = fuse_attention(query, key, value, output, num_heads, unit=HEAD_UNIT)
    rows = round_up(len(query.bias))
    parts = (query, key, value)
    weights = [fill_up(part.weight, rows, part.weight.shape[1]) for part in parts]
    together = Linear(np.concatenate(weights), np.concatenate([fill_up(part.bias, rows) for part in parts]))
    return AttentionWeights(
        pack_linear(together, precision),
        pack_linear(output, precision),
        pack_norm(norm),
        num_heads,
        len(query.bias) // num_heads,
        scale,
    )


def pack_feed_forward(up: Linear, down: Linear, norm: LayerNorm, precision: str) -> FeedForwardWeights:
    """Pack both layers."""
    return FeedForwardWeights(pack_linear(up, precision), pack_linear(down, precision), pack_norm(norm))


def pack_head(dense: Linear, activation: str, output: Linear, precision: str) -> HeadWeights:
    """Pack both layers; the head is a thousandth of the work and stays float32."""
    return HeadWeights(
        pack_linear(dense, "float32"),
        HEAD_ACTIVATIONS[activation],
        pack_linear(output, "float32"),
        len(output.bias),
    )


def pack_projection(layer: Linear, precision: str) -> PackedLinear:
    """Pack the layer from the embedding size to the hidden size; it belongs to the embedding and stays float32."""
    return pack_linear(layer, "float32")


def pack_relative_bias(bias: Floats, precision: str) -> RelativeBias:
    """Upload the bias of each head for each distance, (H, 2 positions - 1)."""
    return RelativeBias(upload(bias), (bias.shape[1] + 1) // 2)


# ---- blocks


def embedding(
    ids: NDArray[int32],
    type_ids: NDArray[int32],
    position_ids: NDArray[int32],
    weights: EmbeddingWeights,
    workspace: Workspace,
) -> Rows:
    """Look up and normalise the vector of each token: (T, C').

    Raises
    ------
    RuntimeError
        In a process forked after the model was loaded: CUDA does not work there.
    """
    if os.getpid() != weights.process:
        raise RuntimeError(
            f"device cuda: found process {os.getpid()}, the model was loaded in {weights.process}, and a GPU cannot be"
            " used after a fork; load the model in the child, or start it with multiprocessing's 'spawn'"
        )
    norm, tokens = weights.norm, workspace.send("tokens", ids, type_ids, position_ids)
    x = workspace.take("x", len(ids), norm.stride)
    embed[_row_blocks(x), THREADS, workspace.stream](
        tokens, len(ids), weights.word, weights.place, weights.positions,
        norm.gain, norm.bias, norm.eps, norm.width, norm.stride, x.data,
    )  # fmt: skip
    return x


def projection(x: Rows, weights: PackedLinear, workspace: Workspace) -> Rows:
    """Bring embeddings to the hidden size: (T, C')."""
    projected = workspace.take("projected", x.length, weights.outputs)
    _linear(x, weights, NONE, projected, workspace)
    return projected


def attention_block(
    x: Rows,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    relative_bias: RelativeBias | None,
    workspace: Workspace,
) -> Rows:
    """Attend within each pair, add to x and normalise, in place: (T, C')."""
    qkv = workspace.take("query_key_value", x.length, weights.query_key_value.outputs)
    _linear(x, weights.query_key_value, NONE, qkv, workspace)
    return _attend(x, qkv, offsets, qkv, qkv.stride // 3, offsets, weights, relative_bias, workspace)


def first_token_attention_block(
    x: Rows,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    relative_bias: RelativeBias | None,
    workspace: Workspace,
) -> Rows:
    """Compute the rows of `attention_block` that belong to first tokens: (B, C')."""
    pairs, part = len(offsets) - 1, weights.query_key_value.outputs // 3
    first = workspace.take("first", pairs, x.stride)
    places = workspace.send_once("offsets", offsets)
    gather[pairs, GATHER_THREADS, workspace.stream](x.data, places, x.stride, first.data)
    query = workspace.take("query", pairs, part)
    _linear(first, weights.query_key_value, NONE, query, workspace)
    key_value = workspace.take("query_key_value", x.length, 2 * part)
    _linear(x, weights.query_key_value, NONE, key_value, workspace, first_column=part)
    each_alone = np.arange(pairs + 1)
    return _attend(first, query, each_alone, key_value, 0, offsets, weights, relative_bias, workspace)


def _attend(
    x: Rows,
    query: Rows,
    query_offsets: NDArray[int64],
    key_value: Rows,
    key_column: int,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    relative_bias: RelativeBias | None,
    workspace: Workspace,
) -> Rows:
    """Replace the rows x, whose queries are given, by what they become when they attend to the keys of their pairs."""
    context = workspace.take("context", x.length, weights.output.inputs)
    key_offsets = workspace.send_once("offsets", offsets)
    own_offsets = key_offsets if query_offsets is offsets else workspace.send("query_offsets", query_offsets)
    blocks = -(-int(np.diff(query_offsets).max()) // QUERIES)
    table, positions = relative_bias or (weights.norm.bias, 1)  # without a bias, any array stands in its place
    attend = make_attention(weights.head_width, relative_bias is not None)
    attend[(blocks, weights.num_heads, len(offsets) - 1), QUERIES, workspace.stream](
        query.data, 0, query.stride,
        key_value.data, key_column, key_column + weights.query_key_value.outputs // 3, key_value.stride,
        own_offsets, key_offsets, weights.scale, table, positions, context.data, context.stride,
    )  # fmt: skip
    _linear(context, weights.output, ADD, x, workspace)
    _normalize(x, weights.norm, workspace)
    return x


def feed_forward_block(x: Rows, weights: FeedForwardWeights, workspace: Workspace) -> Rows:
    """Widen, bend, narrow, add to x and normalise, in place: shape of x."""
    hidden = workspace.take("hidden", x.length, weights.up.outputs)
    _linear(x, weights.up, GELU, hidden, workspace)
    _linear(hidden, weights.down, ADD, x, workspace)
    _normalize(x, weights.norm, workspace)
    return x


def classification_head(x: Rows, weights: HeadWeights, workspace: Workspace) -> Floats:
    """Turn the vector of each pair's first token into its logits: (B, labels)."""
    pooled = workspace.take("pooled", x.length, weights.dense.outputs)
    _linear(x, weights.dense, weights.activation, pooled, workspace)
    logits = workspace.take("logits", x.length, weights.output.outputs)
    _linear(pooled, weights.output, NONE, logits, workspace)
    return workspace.fetch(logits)[:, : weights.num_labels].copy()


# ---- how kernels are started


def _linear(a: Rows, layer: PackedLinear, finish: str, out: Rows, workspace: Workspace, first_column: int = 0) -> None:
    """Write finish(a @ weight + bias), as many columns as `out` has, from `first_column` of the layer on."""
    if layer.precision == "bfloat16":
        kernel, rows, columns = make_tensor_core_linear(finish), WARP_ROWS * WARPS_DOWN, WARP_COLUMNS * WARPS_ACROSS
        threads = 32 * WARPS_DOWN * WARPS_ACROSS
    else:
        kernel, rows, columns = make_linear(finish), PER_THREAD * THREADS_DOWN, PER_THREAD * THREADS_ACROSS
        threads = THREADS_DOWN * THREADS_ACROSS
    grid = (out.stride // columns, -(-a.length // rows))
    kernel[grid, threads, workspace.stream](
        a.data, layer.weight, first_column, layer.outputs, layer.bias, out.data, out.stride, layer.inputs
    )


def _normalize(x: Rows, norm: PackedNorm, workspace: Workspace) -> None:
    normalize[_row_blocks(x), THREADS, workspace.stream](
        x.data, norm.gain, norm.bias, norm.eps, norm.width, norm.stride
    )


def _row_blocks(x: Rows) -> int:
    return -(-x.length // ROWS)
