"""The blocks of kernels/reference/blocks.py on the CPU, under the same names and signatures.

Each block takes its scratch from the workspace, calls one to four kernels, and returns. Nothing is checked; ids,
offsets and shapes have been proven before (a wrong id would read outside its table). A block may overwrite the stream
that it is given. Nothing of Numba is used here: the kernels are those of the workspace, compiled in this process
(compiled.py) or loaded from a library (frozen.py).

A thread may be one of a team that computes a shard together (workspace.py): its stream then has its own rows of the T,
from `first` on. On a first reading, take `first` for 0, the rows for all, and `meet` for nothing.

What is saved against the reference, equal but for rounding:

- biases of values disappear, and those of keys unless keys are turned (fusing.py);
- vectors of position and token type are added once, at load;
- in the last layer only the rows that are pooled have queries, output and feed-forward.
"""

from typing import Any

import numpy as np
from numpy import float32, int32, int64
from numpy.typing import NDArray

from ..parameters import Disentangled, Stream
from .memory import aligned_empty
from .packed import (
    POOLINGS,
    AttentionWeights,
    EmbeddingWeights,
    Float32Linear,
    HeadWeights,
    PackedConvolution,
    PackedFeedForward,
    PackedLinear,
    PackedNorm,
    PackedNormalize,
    PackedResidual,
    PackedStep,
)
from .scratch import scratch_size
from .workspace import Workspace

Floats = NDArray[float32]
# A shard's activations must fit in the L2 cache beside the weights that pass by; but each shard reads all weights once,
# so that small ones wait for memory. On 100 pairs of 80 tokens, 256 to 1024 were within 4 %, 128 lost 16 %.
LARGEST_SHARD = 384
SHARES_SHARDS = True
MOST_WORKERS = None


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
    x = workspace.take("x", len(places), weights.place.shape[1])
    norm = None if weights.projects_first else weights.norm
    workspace.kernels.embed(ids[rows], places, weights.word, weights.place, norm, x)
    if weights.projection is not None:
        looked_up, x = x, workspace.take("projected", len(x), len(weights.projection.bias))
        workspace.kernels.linear_rows(looked_up, 0, len(x), weights.projection, workspace.operand(1), x)
    if weights.projects_first:
        workspace.kernels.normalize_rows(x, weights.norm, x)
    return Stream(x, x)


def convolve(stream: Stream, offsets: NDArray[int64], weights: PackedConvolution, workspace: Workspace) -> Floats:
    """Mix the embeddings of neighbours, which other members of the team may have: (T, C')."""
    share, width = workspace.share_of(offsets), weights.width * stream.normed.shape[1]
    own = slice(share.first, share.first + len(stream.normed))
    starts, stops = (np.repeat(ends, np.diff(offsets))[own] for ends in (offsets[:-1], offsets[1:]))
    rows = workspace.share_rows(stream.normed, share.total)
    beside, operand = workspace.take("beside", workspace.kernels.isa.row_block, width), workspace.operand(width)
    mixed = workspace.take("mixed", *stream.normed.shape)
    workspace.kernels.convolve_rows(rows, starts, stops, share.first, weights, operand, beside, mixed)
    return mixed


def add_convolved(stream: Stream, change: Floats, weights: PackedConvolution, workspace: Workspace) -> Stream:
    """Add what `convolve` returned to the sum and normalise, in place."""
    workspace.kernels.add_rows(change, weights.norm, stream)
    return stream


def attention_block(
    stream: Stream,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    rows: NDArray[int64] | None,
    workspace: Workspace,
) -> Stream:
    """Attend within each pair, add to the sum and normalise, in place: (T, C'), or (rows, C')."""
    kernels, share = workspace.kernels, workspace.share_of(offsets)
    first, capacity = share.first, share.total + kernels.isa.tile_width
    x, layer, heads, rule = stream.normed, weights.query_key_value, weights.heads, weights.rule
    width, operand = len(layer.bias) // (3 * heads), workspace.operand(x.shape[1])
    turn, places = rule.positions, share.places
    if rows is None:
        qkv = workspace.take_shared("query_key_value", 3 * heads, capacity, width)
        kernels.project_heads(x, places, layer, turn, 2 * heads, operand, qkv, first)
        query = key_value = qkv  # the first heads are the queries', the last those of keys and values
        query_offsets, query_places = share.query_offsets, share.query_places
    else:
        own = (rows >= first) & (rows < first + len(x))
        query_offsets, query_places = np.concatenate([[0], np.cumsum(own)]), rows - offsets[:-1]
        key_value = workspace.take_shared("query_key_value", 2 * heads, capacity, width)
        query_layer, key_value_layer = workspace.once(layer, _take_apart)
        kernels.project_heads(x, places, key_value_layer, turn, heads, operand, key_value, first)
        stream = _take_rows(stream, rows[own] - first, weights.keeps_sum, workspace)
        query, places = workspace.take("query", heads, len(stream.normed), width), query_places[own]
        kernels.project_heads(stream.normed, places, query_layer, turn, heads, operand, query, 0)
    workspace.meet()
    context = workspace.take("context", len(stream.normed), heads * width)
    room = scratch_size(share.longest, width, kernels.isa, disentangled=isinstance(turn, Disentangled))
    scratch = workspace.take("scratch", room)
    kernels.attend(query, query_offsets, query_places, key_value, offsets, rule, scratch, context)
    # Behind the embedding, sum and normed are one array. From here on they are two, or writing the one would destroy
    # the other.
    if weights.keeps_sum and stream.normed is stream.sum:
        stream = Stream(stream.sum, workspace.take("normed", *stream.sum.shape))
    product = workspace.take("product", kernels.isa.row_block, stream.sum.shape[1])
    operand = workspace.operand(context.shape[1])
    kernels.linear_residual_norm(context, weights.output, weights.norm, operand, product, stream)
    return stream


def _take_apart(layer: PackedLinear) -> tuple[PackedLinear, PackedLinear]:
    """Return the part of a layer that makes queries, and the rest of it."""
    part = len(layer.panels) // 3
    return _take_panels(layer, 0, part), _take_panels(layer, part, 3 * part)


def _take_panels(layer: PackedLinear, first: int, stop: int) -> PackedLinear:
    """Return some panels of a layer as a layer of their own; nothing is copied."""
    width = layer.panels.shape[2]
    columns = slice(first * width, stop * width)
    kind: Any = type(layer)
    taken: PackedLinear = kind(layer.panels[first:stop], *(row[columns] for row in layer[1:]))
    return taken


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
    kernels = workspace.kernels
    hidden = workspace.take("hidden", kernels.isa.row_block, len(weights.up.bias))
    product = workspace.take("product", kernels.isa.row_block, stream.sum.shape[1])
    operand = workspace.operand(max(hidden.shape[1], product.shape[1]))  # for the rows of either
    kernels.feed_forward(stream, weights, weights.gate, operand, hidden, product)
    return stream


def head(stream: Stream, offsets: NDArray[int64], weights: HeadWeights, workspace: Workspace) -> Floats:
    """Turn the normed rows of each pair into its logits: (B, labels)."""
    x = stream.normed
    if weights.pooling in POOLINGS:
        x = pool(x, offsets, weights.pooling, workspace)
    return take_steps(x, weights.steps, workspace)[:, : weights.num_labels].copy()


def pool(x: Floats, offsets: NDArray[int64], pooling: str, workspace: Workspace) -> Floats:
    """Return one row for each of the pairs whose first token is a row of x: (B, C')."""
    share = workspace.share_of(offsets)
    own = (offsets[:-1] >= share.first) & (offsets[:-1] < share.first + len(x))
    rows = workspace.share_rows(x, share.total)
    pooled = aligned_empty(int(np.count_nonzero(own)), x.shape[1])
    workspace.kernels.pool_rows(rows, offsets[:-1][own], offsets[1:][own], POOLINGS.index(pooling), pooled)
    return pooled


def take_steps(x: Floats, steps: tuple[PackedStep, ...], workspace: Workspace) -> Floats:
    """Apply the steps to rows (B, C'), of which nothing is overwritten; the result is (B, N')."""
    kernels = workspace.kernels
    for step in steps:
        if isinstance(step, PackedResidual):
            direct = x if step.shortcut is None else take_steps(x, (step.shortcut,), workspace)
            x = take_steps(x, step.steps, workspace) + direct
            continue
        result = aligned_empty(len(x), len(step.bias) if isinstance(step, Float32Linear) else x.shape[1])
        if isinstance(step, Float32Linear):
            kernels.linear_rows(x, 0, len(x), step, workspace.operand(1), result)
        elif isinstance(step, PackedNorm):
            kernels.normalize_rows(x, step, result)
        elif isinstance(step, PackedNormalize):
            kernels.shorten_rows(x, step.width, result)
        else:
            kernels.activate_rows(x, step.activation, result)
        x = result
    return x
