"""The CUDA backend: the blocks of kernels/reference/blocks.py under the same names and signatures.

Start here: each block takes its buffers from the workspace, starts one to three kernels on its stream, and returns at
once; only the head waits. Seven kernels make a layer. Nothing is checked; ids, offsets and shapes have been proven
before (a wrong id would read foreign memory). A block may overwrite `x`.

What is saved against the reference, exact up to rounding: the biases of keys and values disappear (fusing.py), vectors
of position and token type are added at load, and in the last layer only the first token's query, output and
feed-forward are computed.
"""

import os
from typing import Any, NamedTuple

import numpy as np
from numba import config
from numpy import float32, int32, int64
from numpy.typing import NDArray

from ..fusing import drop_key_bias, fill_up_heads, fold_value_bias
from ..parameters import Attention, Convolution, DistanceBias, Embedding, FeedForward, Head, Linear, Positions, Stream
from ..tables import widen
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
DTYPES = ("float32", "bfloat16")
LOWERS_FLOAT32 = False
PICKLES = False
PEAK = None
HEAD_ACTIVATIONS = {"tanh": TANH, "gelu": GELU, "relu": RELU}
HEAD_UNIT = 4  # heads are filled up to multiples: vectors of 128 bits
GATHER_THREADS = 128
if "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS" not in os.environ:
    # A small request is a small grid. Numba would warn of it at every launch, and nobody could do anything about it.
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


def describe() -> dict[str, str]:
    """Return what is computed with, and where machine code is kept."""
    return {"instruction_set": "CUDA", "kernel_cache": "in memory only"}


# ---- weights


class EmbeddingWeights(NamedTuple):
    """Tables for `embedding`."""

    word: DeviceArray  # (vocabulary, E')
    place: DeviceArray  # (token types * positions, E'): row type * positions + position
    positions: int
    norm: PackedNorm
    projection: PackedLinear | None
    process: int  # that has the tables: a forked child has not


class AttentionWeights(NamedTuple):
    """Packed weights of an attention block."""

    query_key_value: PackedLinear  # (3*H*D'', C'): each of the three filled up to whole blocks of columns
    output: PackedLinear  # (C', H*D'')
    norm: PackedNorm
    heads: int
    head_width: int  # D'
    scale: float  # 1 / sqrt(D)
    positions: Any  # a PackedBias, or None


class FeedForwardWeights(NamedTuple):
    """Packed weights of a feed-forward block."""

    up: PackedLinear  # (F', C')
    down: PackedLinear  # (C', F')
    norm: PackedNorm


class HeadWeights(NamedTuple):
    """Packed weights of the head: its layers, each with what is done to its result."""

    steps: tuple[tuple[PackedLinear, str], ...]
    num_labels: int


class PackedBias(NamedTuple):
    """What attention adds to scores for the distance from query to key."""

    table: DeviceArray  # (H, 2P - 1)
    positions: int


def pack_positions(rule: Positions, precision: str) -> PackedBias | None:
    """Upload the bias of each head for each distance, (H, 2P - 1).

    Raises
    ------
    NotImplementedError
        When the rule is another.
    """
    if rule is None:
        return None
    if not isinstance(rule, DistanceBias):
        raise NotImplementedError(f"positions of the kind {type(rule).__name__}")
    return PackedBias(upload(rule.table), (rule.table.shape[1] + 1) // 2)


def pack_embedding(embedding: Embedding, precision: str) -> EmbeddingWeights:
    """Add up every token type with every position, fill up the rows, and upload; embeddings stay float32."""
    word = widen(embedding.word)
    width = round_up(word.shape[1])
    if embedding.position is None:
        raise NotImplementedError("embeddings without positions")
    if embedding.projects_first:
        raise NotImplementedError("embeddings that are projected before they are normalised")
    types = np.zeros((1, word.shape[1]), float32) if embedding.token_type is None else embedding.token_type
    place = (types[:, None] + embedding.position[None]).reshape(-1, word.shape[1])
    return EmbeddingWeights(
        upload(fill_up(word, len(word), width)),
        upload(fill_up(place, len(place), width)),
        len(embedding.position),
        pack_norm(embedding.norm),
        None if embedding.projection is None else pack_linear(embedding.projection, "float32"),
        os.getpid(),
    )


def pack_attention(attention: Attention, precision: str) -> AttentionWeights:
    """Pack queries, keys and values as one matrix.

    Raises
    ------
    NotImplementedError
        When the block has a window, or keeps its sum.
    """
    if attention.reach is not None:
        raise NotImplementedError(f"attention within a window of {attention.reach}")
    if attention.keeps_sum:
        raise NotImplementedError("norms before the blocks")
    fused = fold_value_bias(fill_up_heads(drop_key_bias(attention), unit=HEAD_UNIT))
    rows, full = len(fused.query.weight), round_up(len(fused.query.weight))
    parts = (fused.query, fused.key, fused.value)
    together = Linear(
        np.concatenate([fill_up(part.weight, full, part.weight.shape[1]) for part in parts]),
        np.concatenate([fill_up(part.bias, full) for part in parts]),
    )
    return AttentionWeights(
        pack_linear(together, precision),
        pack_linear(fused.output, precision),
        pack_norm(fused.norm),
        fused.heads,
        rows // fused.heads,
        fused.scale,
        fused.positions,
    )


def pack_feed_forward(feed_forward: FeedForward, precision: str) -> FeedForwardWeights:
    """Pack both layers.

    Raises
    ------
    NotImplementedError
        When the block has a gate, or another activation than "gelu".
    """
    if feed_forward.gate is not None or feed_forward.activation != "gelu":
        raise NotImplementedError("feed-forward blocks with a gate or without GELU")
    return FeedForwardWeights(
        pack_linear(feed_forward.up, precision), pack_linear(feed_forward.down, precision), pack_norm(feed_forward.norm)
    )


def pack_convolution(convolution: Convolution, precision: str) -> None:
    """Refuse a convolution.

    Raises
    ------
    NotImplementedError
        Always; so that no block follows to compute one.
    """
    raise NotImplementedError("a convolution behind the first layer")


def pack_head(head: Head, precision: str) -> HeadWeights:
    """Pack the layers, each with the activation that follows it; they are a thousandth of the work and stay float32.

    Raises
    ------
    NotImplementedError
        When rows are pooled otherwise than by their first, or a step is another than a layer or an activation.
    """
    if head.pooling != "first":
        raise NotImplementedError(f"pooling {head.pooling!r}")
    steps: list[tuple[PackedLinear, str]] = []
    num_labels = 0
    for step in head.steps:
        if isinstance(step, Linear):
            steps.append((pack_linear(step, "float32"), NONE))
            num_labels = len(step.weight)
        elif isinstance(step, str) and step in HEAD_ACTIVATIONS and steps and steps[-1][1] == NONE:
            steps[-1] = (steps[-1][0], HEAD_ACTIVATIONS[step])
        else:
            raise NotImplementedError(f"a head with {step if isinstance(step, str) else type(step).__name__}")
    return HeadWeights(tuple(steps), num_labels)


# ---- blocks


def embedding(
    ids: NDArray[int32],
    type_ids: NDArray[int32],
    position_ids: NDArray[int32],
    weights: EmbeddingWeights,
    workspace: Workspace,
) -> Stream:
    """Look up, normalise and project the vector of each token: (T, C').

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
    if weights.projection is not None:
        looked_up, x = x, workspace.take("projected", x.length, weights.projection.outputs)
        _linear(looked_up, weights.projection, NONE, x, workspace)
    return Stream(x, x)


def attention_block(
    stream: Stream,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    rows: NDArray[int64] | None,
    workspace: Workspace,
) -> Stream:
    """Attend within each pair, add to x and normalise, in place: (T, C'), or (B, C') for the rows of first tokens."""
    x: Rows = stream.normed
    if rows is None:
        qkv = workspace.take("query_key_value", x.length, weights.query_key_value.outputs)
        _linear(x, weights.query_key_value, NONE, qkv, workspace)
        x = _attend(x, qkv, offsets, qkv, qkv.stride // 3, offsets, weights, workspace)
        return Stream(x, x)
    pairs, part = len(offsets) - 1, weights.query_key_value.outputs // 3
    first = workspace.take("first", pairs, x.stride)
    places = workspace.send_once("offsets", offsets)
    gather[pairs, GATHER_THREADS, workspace.stream](x.data, places, x.stride, first.data)
    query = workspace.take("query", pairs, part)
    _linear(first, weights.query_key_value, NONE, query, workspace)
    key_value = workspace.take("query_key_value", x.length, 2 * part)
    _linear(x, weights.query_key_value, NONE, key_value, workspace, first_column=part)
    first = _attend(first, query, np.arange(pairs + 1), key_value, 0, offsets, weights, workspace)
    return Stream(first, first)


def _attend(
    x: Rows,
    query: Rows,
    query_offsets: NDArray[int64],
    key_value: Rows,
    key_column: int,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    workspace: Workspace,
) -> Rows:
    """Replace the rows x, whose queries are given, by what they become when they attend to the keys of their pairs."""
    context = workspace.take("context", x.length, weights.output.inputs)
    key_offsets = workspace.send_once("offsets", offsets)
    own_offsets = key_offsets if query_offsets is offsets else workspace.send("query_offsets", query_offsets)
    blocks = -(-int(np.diff(query_offsets).max()) // QUERIES)
    table, positions = weights.positions or (weights.norm.bias, 1)  # without a bias, any array stands in its place
    attend = make_attention(weights.head_width, weights.positions is not None)
    attend[(blocks, weights.heads, len(offsets) - 1), QUERIES, workspace.stream](
        query.data, 0, query.stride,
        key_value.data, key_column, key_column + weights.query_key_value.outputs // 3, key_value.stride,
        own_offsets, key_offsets, weights.scale, table, positions, context.data, context.stride,
    )  # fmt: skip
    _linear(context, weights.output, ADD, x, workspace)
    _normalize(x, weights.norm, workspace)
    return x


def feed_forward_block(stream: Stream, weights: FeedForwardWeights, workspace: Workspace) -> Stream:
    """Widen, bend, narrow, add to x and normalise, in place: shape of x."""
    x: Rows = stream.normed
    hidden = workspace.take("hidden", x.length, weights.up.outputs)
    _linear(x, weights.up, GELU, hidden, workspace)
    _linear(hidden, weights.down, ADD, x, workspace)
    _normalize(x, weights.norm, workspace)
    return stream


def head(stream: Stream, offsets: NDArray[int64], weights: HeadWeights, workspace: Workspace) -> Floats:
    """Turn the vector of each pair's first token into its logits: (B, labels)."""
    x: Rows = stream.normed
    for number, (layer, finish) in enumerate(weights.steps):
        result = workspace.take(f"head {number}", x.length, layer.outputs)
        _linear(x, layer, finish, result, workspace)
        x = result
    return workspace.fetch(x)[:, : weights.num_labels].copy()


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
