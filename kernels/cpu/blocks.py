"""The CPU backend: the blocks of kernels/reference/blocks.py under the same names and signatures.

Each block takes its scratch from the workspace, calls one to four kernels, and returns. Nothing is checked; ids,
offsets and shapes have been proven before (a wrong id would read outside its table). A block may overwrite the stream
that it is given.

A thread may be one of a team that computes a shard together (workspace.py): its stream then has its own rows of the T,
from `first` on. On a first reading, take `first` for 0, the rows for all, and `meet` for nothing.

What is saved against the reference, equal but for rounding:

- biases of values disappear, and those of keys unless keys are turned (fusing.py);
- vectors of position and token type are added once, at load;
- in the last layer only the rows that are pooled have queries, output and feed-forward.
"""

from typing import NamedTuple

import numpy as np
from numpy import float32, int32, int64
from numpy.typing import NDArray

from ..fusing import drop_key_bias, fill_up_heads, fill_up_parts, fold_value_bias
from ..parameters import Attention, Convolution, Embedding, FeedForward, Head, Linear, Positions, Rotary, Stream
from . import cache, peak, positions
from .attention import attend, scratch_size
from .elementwise import embed, normalize_rows
from .head import PackedStep, output_width, pack_steps, pool, take_steps
from .isa import ISA, TILE_WIDTH
from .linear import (
    ROW_BLOCK,
    add_rows,
    convolve_rows,
    feed_forward,
    linear_residual_norm,
    linear_rows,
    project_heads,
)
from .packing import (
    PackedConvolution,
    PackedFeedForward,
    PackedLinear,
    PackedNorm,
    fill_up,
    pack_float32,
    pack_linear,
    pack_norm,
    round_up,
    take_panels,
)
from .positions import ScoreRule
from .vector_math import ACTIVATIONS
from .workspace import Workspace, make_team

Floats = NDArray[float32]
__all__ = ["Workspace", "make_team"]  # the backend's, beside the blocks below
# A shard's activations must fit in the L2 cache beside the weights that pass by; but each shard reads all weights once,
# so that small ones wait for memory. On 100 pairs of 80 tokens, 256 to 1024 were within 4 %, 128 lost 16 %.
LARGEST_SHARD = 384
SHARES_SHARDS = True
MOST_WORKERS = None
DTYPES = ("float32", "bfloat16", "int8")
LOWERS_FLOAT32 = True
PICKLES = True
PEAK = peak
NO_PLACES = np.zeros(0, int64)  # where nothing is turned by its place


def describe() -> dict[str, str]:
    """Return what is computed with, and where machine code is kept."""
    return {"instruction_set": ISA.name, "kernel_cache": str(cache.DIRECTORY or "in memory only")}


# ---- weights


class EmbeddingWeights(NamedTuple):
    """Tables for `embedding`."""

    word: Floats  # (vocabulary, E')
    place: Floats  # (token types * positions, E'): row type * positions + position
    positions: int  # 0: none, and `place` has a row for each token type
    norm: PackedNorm
    projection: PackedLinear | None
    projects_first: bool


class AttentionWeights(NamedTuple):
    """Packed weights of an attention block."""

    query_key_value: PackedLinear  # (3*H*D', C')
    output: PackedLinear  # (C', H*D')
    norm: PackedNorm
    heads: int
    rule: ScoreRule
    keeps_sum: bool


class HeadWeights(NamedTuple):
    """Packed weights of the head."""

    pooling: str
    steps: tuple[PackedStep, ...]
    num_labels: int


def pack_positions(rule: Positions, precision: str) -> Positions:
    """Fill up the tables of a rule; the layers with the same rule share them."""
    return positions.pack_positions(rule)


def pack_embedding(embedding: Embedding, precision: str) -> EmbeddingWeights:
    """Add up every token type with every position, and fill up the rows; embeddings stay float32."""
    word, width = embedding.word, round_up(embedding.word.shape[1])
    nothing = np.zeros((1, word.shape[1]), float32)
    types = nothing if embedding.token_type is None else embedding.token_type
    rows = nothing if embedding.position is None else embedding.position
    place = (types[:, None] + rows[None]).reshape(-1, word.shape[1])
    if word.shape[1] != width:  # else it stays where it is: the largest array of all
        word = fill_up(word, len(word), width)
    return EmbeddingWeights(
        word,
        fill_up(place, len(place), width),
        0 if embedding.position is None else len(embedding.position),
        pack_norm(embedding.norm),
        None if embedding.projection is None else pack_float32(embedding.projection),
        embedding.projects_first,
    )


def pack_attention(attention: Attention, precision: str) -> AttentionWeights:
    """Pack queries, keys and values as one matrix."""
    fused = fold_value_bias(fill_up_heads(drop_key_bias(attention), unit=TILE_WIDTH))
    parts = (fused.query, fused.key, fused.value)
    together = Linear(
        np.concatenate([part.weight for part in parts]),
        np.concatenate([fill_up(part.bias, len(part.weight)) for part in parts]),
    )
    return AttentionWeights(
        pack_linear(together, precision),
        pack_linear(fused.output, precision),
        pack_norm(fused.norm),
        fused.heads,
        ScoreRule(fused.scale, fused.positions, fused.reach),
        fused.keeps_sum,
    )


def pack_feed_forward(feed_forward: FeedForward, precision: str) -> PackedFeedForward:
    """Pack the layers."""
    return PackedFeedForward(
        pack_linear(feed_forward.up, precision),
        None if feed_forward.gate is None else pack_linear(feed_forward.gate, precision),
        pack_linear(feed_forward.down, precision),
        ACTIVATIONS.index(feed_forward.activation),
        pack_norm(feed_forward.norm),
    )


def pack_convolution(convolution: Convolution, precision: str) -> PackedConvolution:
    """Pack the layer; the rows that it reads are filled up each for itself."""
    weight, bias = convolution.layer
    width = weight.shape[1] // len(weight)
    filled = fill_up_parts(weight.T, width, round_up(len(weight))).T
    layer = pack_linear(Linear(np.ascontiguousarray(filled), bias), precision)
    return PackedConvolution(layer, width, ACTIVATIONS.index(convolution.activation), pack_norm(convolution.norm))


def pack_head(head: Head, precision: str) -> HeadWeights:
    """Pack the layers of the head, which stay float32."""
    return HeadWeights(head.pooling, pack_steps(head.steps), output_width(head.steps))


# ---- blocks


def embedding(
    ids: NDArray[int32],
    type_ids: NDArray[int32],
    position_ids: NDArray[int32],
    weights: EmbeddingWeights,
    workspace: Workspace,
) -> Stream:
    """Look up, normalise and project the vector of each token: (T, C')."""
    rows = slice(*workspace.rows_of(len(ids)))
    places = type_ids[rows] * int32(weights.positions) + position_ids[rows] if weights.positions else type_ids[rows]
    x = workspace.take("x", len(places), weights.word.shape[1])
    norm = None if weights.projects_first else weights.norm
    embed(ids[rows], places, weights.word, weights.place, norm, x)
    if weights.projection is not None:
        looked_up, x = x, workspace.take("projected", len(x), len(weights.projection.bias))
        linear_rows(looked_up, 0, len(x), weights.projection, workspace.operand(1), x)
    if weights.projects_first:
        normalize_rows(x, weights.norm, x)
    return Stream(x, x)


def convolve(stream: Stream, offsets: NDArray[int64], weights: PackedConvolution, workspace: Workspace) -> Floats:
    """Mix the embeddings of neighbours, which other members of the team may have: (T, C')."""
    total, width = int(offsets[-1]), weights.width * stream.normed.shape[1]
    first = workspace.rows_of(total)[0]
    own = slice(first, first + len(stream.normed))
    starts, stops = (np.repeat(ends, np.diff(offsets))[own] for ends in (offsets[:-1], offsets[1:]))
    rows = workspace.share_rows(stream.normed, total)
    beside, operand = workspace.take("beside", ROW_BLOCK, width), workspace.operand(width)
    mixed = workspace.take("mixed", *stream.normed.shape)
    convolve_rows(rows, starts, stops, first, weights, operand, beside, mixed)
    return mixed


def add_convolved(stream: Stream, change: Floats, weights: PackedConvolution, workspace: Workspace) -> Stream:
    """Add what `convolve` returned to the sum and normalise, in place."""
    add_rows(change, weights.norm, stream)
    return stream


def attention_block(
    stream: Stream,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    rows: NDArray[int64] | None,
    workspace: Workspace,
) -> Stream:
    """Attend within each pair, add to the sum and normalise, in place: (T, C'), or (rows, C')."""
    total, first = int(offsets[-1]), workspace.rows_of(int(offsets[-1]))[0]
    x, layer, heads, rule = stream.normed, weights.query_key_value, weights.heads, weights.rule
    width, operand = len(layer.bias) // (3 * heads), workspace.operand(x.shape[1])
    turn = rule.positions
    places = places_of(offsets, first, len(x)) if isinstance(turn, Rotary) else NO_PLACES
    if rows is None:
        qkv = workspace.take_shared("query_key_value", 3 * heads, total + TILE_WIDTH, width)
        project_heads(x, places, layer, turn, 2 * heads, operand, qkv, first)
        query, key_value = qkv[:heads], qkv[heads:]
        query_offsets, query_places = np.clip(offsets, first, first + len(x)), np.maximum(first - offsets[:-1], 0)
    else:
        own = (rows >= first) & (rows < first + len(x))
        query_offsets, query_places = np.concatenate([[0], np.cumsum(own)]), rows - offsets[:-1]
        key_value = workspace.take_shared("query_key_value", 2 * heads, total + TILE_WIDTH, width)
        part = len(layer.panels) // 3
        project_heads(x, places, take_panels(layer, part, 3 * part), turn, heads, operand, key_value, first)
        stream = _take_rows(stream, rows[own] - first, weights.keeps_sum, workspace)
        query, places = workspace.take("query", heads, len(stream.normed), width), query_places[own]
        project_heads(stream.normed, places, take_panels(layer, 0, part), turn, heads, operand, query, 0)
    workspace.meet()
    context = workspace.take("context", len(stream.normed), heads * width)
    scratch = workspace.take("scratch", scratch_size(int(np.diff(offsets).max()), width, rule.positions))
    attend(query, query_offsets, query_places, key_value, offsets, rule, scratch, context)
    # Behind the embedding, sum and normed are one array. From here on they are two, or writing the one would destroy
    # the other.
    if weights.keeps_sum and stream.normed is stream.sum:
        stream = Stream(stream.sum, workspace.take("normed", *stream.sum.shape))
    product = workspace.take("product", ROW_BLOCK, stream.sum.shape[1])
    operand = workspace.operand(context.shape[1])
    linear_residual_norm(context, weights.output, weights.norm, operand, product, stream)
    return stream


def places_of(offsets: NDArray[int64], first: int, count: int) -> NDArray[int64]:
    """Return the place in its pair of each of `count` rows from `first` on."""
    starts = np.repeat(offsets[:-1], np.diff(offsets))[first : first + count]
    return np.arange(first, first + count) - starts


def _take_rows(stream: Stream, rows: NDArray[int64], keeps_sum: bool, workspace: Workspace) -> Stream:
    """Return copies of some rows."""
    normed = workspace.take("picked", len(rows), stream.normed.shape[1])
    np.take(stream.normed, rows, axis=0, out=normed)
    if not keeps_sum:
        return Stream(normed, normed)
    total = workspace.take("picked sums", *normed.shape)
    np.take(stream.sum, rows, axis=0, out=total)
    return Stream(total, normed)


def feed_forward_block(stream: Stream, weights: PackedFeedForward, workspace: Workspace) -> Stream:
    """Widen, bend, narrow, add to the sum and normalise, in place: shape of the stream."""
    hidden = workspace.take("hidden", ROW_BLOCK, len(weights.up.bias))
    product = workspace.take("product", ROW_BLOCK, stream.sum.shape[1])
    operand = workspace.operand(max(hidden.shape[1], product.shape[1]))  # for the rows of either
    feed_forward(stream, weights, weights.gate, operand, hidden, product)
    return stream


def head(stream: Stream, offsets: NDArray[int64], weights: HeadWeights, workspace: Workspace) -> Floats:
    """Turn the normed rows of each pair into its logits: (B, labels)."""
    x = stream.normed
    if weights.pooling not in ("first", "last"):
        first = workspace.rows_of(int(offsets[-1]))[0]
        own = (offsets[:-1] >= first) & (offsets[:-1] < first + len(x))  # pairs whose first token is a row of x
        x = pool(workspace.share_rows(x, int(offsets[-1])), offsets, own, weights.pooling)
    return take_steps(x, weights.steps, workspace.operand(1))[:, : weights.num_labels].copy()
