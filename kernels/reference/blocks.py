"""A cross-encoder's forward pass in NumPy: the specification that every other backend is tested against.

It is written to be read, in any float dtype, and never tuned. Read it from the top: some small functions, then the
blocks of the transformer built from them, each for the record of kernels/parameters.py that has its weights. Numbers
travel as ragged arrays: the tokens of all pairs stand one after the other in (T, C), and ``offsets`` (B+1,) says where
each pair begins and ends. A padding token does not exist.

Letters: T tokens, B pairs, C hidden size, H heads, D head width, F intermediate size, L tokens of one pair.

Sources: A. Vaswani et al., "Attention Is All You Need" (2017), sections 3.1-3.3; J. Devlin et al., "BERT" (2018),
section 3 and its code; D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units" (2016); J. L. Ba et al.,
"Layer Normalization" (2016), equation 3; N. Shazeer, "GLU Variants Improve Transformer" (2020), section 2.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import int32, int64
from numpy.typing import NDArray

from ..fusing import drop_key_bias
from ..parameters import (
    Attention,
    Convolution,
    Disentangled,
    DistanceBias,
    Embedding,
    FeedForward,
    Floats,
    Head,
    Linear,
    Norm,
    Positions,
    Rotary,
    Step,
    Stream,
)
from ..tables import widen

# ---- the mathematics


def linear(x: Floats, layer: Linear) -> Floats:
    """Multiply by the weight and add the bias: (..., K) -> (..., N)."""
    product = x @ layer.weight.T
    return product if layer.bias is None else product + layer.bias


def layer_norm(x: Floats, norm: Norm) -> Floats:
    """Shift and scale each row to mean 0 and variance 1 (the biased variance), then apply gain and bias.

    A row whose squares are beyond the dtype becomes NaN. (Divided by an infinite variance, it would be the bias alone,
    and the score wrong without a sign of it.)
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt(nan_if_infinite(variance) + x.dtype.type(norm.eps)) * norm.gain
    return normed if norm.bias is None else normed + norm.bias


def nan_if_infinite(x: Floats) -> Floats:
    """Replace what has left the dtype by NaN, where an infinity would not reach the logits."""
    return x + (x - x)


def gelu(x: Floats) -> Floats:
    """X times the probability that a standard normal number is below x; exact, by erf, not the tanh approximation."""
    erf = np.frompyfunc(math.erf, 1, 1)  # NumPy has none; this one is exact and slow
    half = x.dtype.type(0.5)
    return x * half * (1 + erf(x * math.sqrt(0.5)).astype(x.dtype))


def gelu_tanh(x: Floats) -> Floats:
    """Approximate GELU by a tanh, as the code of the first models had it."""
    inner = math.sqrt(2 / math.pi) * (x + x.dtype.type(0.044715) * x * x * x)
    return x * x.dtype.type(0.5) * (1 + np.tanh(inner))


def relu(x: Floats) -> Floats:
    """Keep what is positive."""
    return np.maximum(x, 0)


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def silu(x: Floats) -> Floats:
    """X times its sigmoid."""
    return x * sigmoid(x)


def normalize(x: Floats) -> Floats:
    """Divide each row by its length; one of zeros stays."""
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.maximum(nan_if_infinite(length), x.dtype.type(SHORTEST))


def softmax(x: Floats) -> Floats:
    """Turn the last axis into probabilities; the maximum is taken off first so that exp cannot overflow."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


SHORTEST = 1e-12  # what shorter rows are divided by: torch.nn.functional.normalize's
ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "tanh": np.tanh,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
    "sigmoid": sigmoid,
    "normalize": normalize,
}


def activate(x: Floats, activation: str) -> Floats:
    """Apply a function of ACTIVATIONS.

    What has left the dtype becomes NaN first: of an infinity, whose sign may be wrong, tanh would make 1, ReLU 0.
    """
    return ACTIVATIONS[activation](nan_if_infinite(x))


# ---- what a backend says of itself

DTYPES = ("float32", "float64")
LARGEST_SHARD = 384  # tokens that are computed at once
SHARES_SHARDS = False
MOST_WORKERS = None
LOWERS_FLOAT32 = False
PICKLES = True
PEAK = None


def describe() -> dict[str, str]:
    """Return what is computed with, and where machine code is kept."""
    return {"instruction_set": "NumPy's own", "kernel_cache": "none"}


# ---- the weights: the precision is the dtype of the computation


def _cast(part: Any, dtype: str) -> Any:
    """Give all arrays of a record, and of the records in it, another dtype."""
    if isinstance(part, np.ndarray):
        return part.astype(dtype) if part.dtype.kind == "f" else part
    if isinstance(part, tuple):
        parts = (_cast(inner, dtype) for inner in part)
        return type(part)(*parts) if hasattr(part, "_fields") else tuple(parts)
    return part


def pack_positions(rule: Positions, precision: str) -> Positions:
    """Bring the tables of a rule, which the attention of many layers shares, into the dtype of the computation."""
    packed: Positions = _cast(rule, precision)
    return packed


def pack_embedding(embedding: Embedding, precision: str) -> Embedding:
    """Bring the embedding tables into the dtype of the computation."""
    packed: Embedding = _cast(embedding._replace(word=widen(embedding.word)), precision)
    return packed


def pack_attention(attention: Attention, precision: str) -> Attention:
    """Bring the weights of an attention block, but for its rule of positions, into the dtype of the computation."""
    packed: Attention = _cast(drop_key_bias(attention)._replace(positions=None), precision)
    return packed._replace(positions=attention.positions)


def pack_feed_forward(feed_forward: FeedForward, precision: str) -> FeedForward:
    """Bring the weights of a feed-forward block into the dtype of the computation."""
    packed: FeedForward = _cast(feed_forward, precision)
    return packed


def pack_convolution(convolution: Convolution, precision: str) -> Convolution:
    """Bring the weights of a convolution into the dtype of the computation."""
    packed: Convolution = _cast(convolution, precision)
    return packed


def pack_head(head: Head, precision: str) -> Head:
    """Bring the weights of the head into the dtype of the computation."""
    packed: Head = _cast(head, precision)
    return packed


class Workspace:
    """The buffers that a forward pass writes to. NumPy makes its own; other backends reuse theirs."""

    def leave(self) -> None:
        """Tell the other members of the team, of which there are none, that this one has failed."""


def make_team(size: int) -> list[Workspace]:
    """Return the workspaces of the threads that compute a shard together: of one, here."""
    return [Workspace()]


# ---- the blocks


def add(stream: Stream, change: Floats, weights: Attention | FeedForward | Convolution) -> Stream:
    """Add what a block has computed, and normalise."""
    total = stream.sum + change
    normed = layer_norm(total, weights.norm)
    return Stream(total if weights.keeps_sum else normed, normed)


def embedding(
    ids: NDArray[int32],
    type_ids: NDArray[int32],
    position_ids: NDArray[int32],
    weights: Embedding,
    workspace: Workspace,
) -> Stream:
    """Look up and add three vectors for each token: its word, its segment (query or passage), its position.

    Parameters
    ----------
    ids, type_ids, position_ids : ndarray of int32, shape (T,)

    Returns
    -------
    Stream of (T, C)
    """
    x: Floats = widen(weights.word)[ids]  # (T, E)
    if weights.token_type is not None:
        x = x + weights.token_type[type_ids]
    if weights.position is not None:
        x = x + weights.position[position_ids]
    if weights.projection is not None and weights.projects_first:
        x = linear(x, weights.projection)  # (T, C)
    x = layer_norm(x, weights.norm)
    if weights.projection is not None and not weights.projects_first:
        x = linear(x, weights.projection)  # (T, C)
    return Stream(x, x)


def convolve(stream: Stream, offsets: NDArray[int64], weights: Convolution, workspace: Workspace) -> Floats:
    """Mix the embedding of each token with those of its neighbours in the pair, beyond whose ends there are zeros.

    Returns
    -------
    ndarray, shape (T, C)
        What is added to the first layer's result: see `add_convolved`.
    """
    around = weights.layer.weight.shape[1] // stream.normed.shape[1] // 2
    mixed = []
    for start, end in itertools.pairwise(offsets):
        padded = np.pad(stream.normed[start:end], ((around, around), (0, 0)))
        beside = [padded[tap : tap + end - start] for tap in range(2 * around + 1)]
        mixed.append(linear(np.concatenate(beside, axis=1), weights.layer))  # (L, C)
    return activate(np.concatenate(mixed), weights.activation)


def add_convolved(stream: Stream, change: Floats, weights: Convolution, workspace: Workspace) -> Stream:
    """Add what `convolve` made of the embeddings, and normalise."""
    return add(stream, change, weights)


def attention_block(
    stream: Stream,
    offsets: NDArray[int64],
    weights: Attention,
    rows: NDArray[int64] | None,
    workspace: Workspace,
) -> Stream:
    """Let each token gather information from the tokens of its own pair.

    Each of H heads compares the token's query with every token's key, and takes the mean of the values weighted by
    how well they match: softmax(Q K^T / sqrt(D)) V. What was gathered is added to the sum, and that normalised.

    Parameters
    ----------
    stream : Stream of (T, C)
    offsets : ndarray of int64, shape (B+1,)
        Pair b is rows offsets[b] to offsets[b+1].
    rows : ndarray of int64, shape (B,), or None
        The one row of each pair that is wanted. (In the last layer no others reach the head, and a faster backend
        computes none.) None: all.

    Returns
    -------
    Stream of (T, C), or (B, C)
    """
    query, key, value = (
        linear(stream.normed, layer).reshape(len(stream.normed), weights.heads, -1).transpose(1, 0, 2)  # (H, T, D)
        for layer in (weights.query, weights.key, weights.value)
    )
    context = np.empty_like(query)  # (H, T, D)
    for start, end in itertools.pairwise(offsets):
        pair, places = slice(start, end), np.arange(end - start)
        q, k = (turn(part[:, pair], places, weights.positions) for part in (query, key))
        products = q @ k.transpose(0, 2, 1) + disentangled_scores(q, k, places, weights.positions)  # (H, L, L)
        scores: Floats = products * weights.scale + distance_scores(places, weights.positions)
        scores = hide(scores, places, weights.reach)
        context[:, pair] = softmax(scores) @ value[:, pair]  # (H, L, D)
    gathered = context.transpose(1, 0, 2).reshape(len(stream.normed), -1)  # (T, H*D)
    block = add(stream, linear(gathered, weights.output), weights)
    return block if rows is None else Stream(block.sum[rows], block.normed[rows])


def turn(x: Floats, places: NDArray[int64], positions: Positions) -> Floats:
    """Return what queries or keys (H, L, D) become for their places in the pair."""
    if not isinstance(positions, Rotary):
        return x
    first, second = np.split(x, 2, axis=-1)  # coordinates of D/2 points
    cosine, sine = positions.cosine[places], positions.sine[places]  # (L, D/2)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def disentangled_scores(query: Floats, key: Floats, places: NDArray[int64], positions: Positions) -> Floats | int:
    """Return what is added to the product of each query and key, both (H, L, D), before it is scaled: (H, L, L)."""
    if not isinstance(positions, Disentangled):
        return 0
    distance = places[None, :] - places[:, None]  # from query to key
    rows = np.broadcast_to(positions.rows[distance + len(positions.rows) // 2], (len(query), *distance.shape))
    scores = np.zeros(rows.shape, query.dtype)
    if positions.key_table is not None:
        scores += np.take_along_axis(query @ positions.key_table.transpose(0, 2, 1), rows, axis=2)
    if positions.query_table is not None:  # by key: each row of the table meets each key
        scores += np.take_along_axis(positions.query_table @ key.transpose(0, 2, 1), rows, axis=1)
    return scores


def distance_scores(places: NDArray[int64], positions: Positions) -> Floats | int:
    """Return what is added to the score of each query (rows) and key (columns) for their places: (H, L, L)."""
    if not isinstance(positions, DistanceBias):
        return 0
    distance = places[None, :] - places[:, None]
    return positions.table[:, distance + positions.table.shape[1] // 2]


def hide(scores: Floats, places: NDArray[int64], reach: tuple[int, int] | None) -> Floats:
    """Replace the scores of keys that a query does not see by minus infinity, of which softmax makes 0."""
    if reach is None:
        return scores
    distance = places[None, :] - places[:, None]
    return np.where((distance >= -reach[0]) & (distance <= reach[1]), scores, scores.dtype.type(-np.inf))


def feed_forward_block(stream: Stream, weights: FeedForward, workspace: Workspace) -> Stream:
    """Transform each token by itself: widen to F, bend with GELU, narrow to C; add to the sum and normalise.

    GELU is BERT's; other models have other activations. With a gate, two layers widen, and the bent numbers of the gate
    are multiplied with the others.
    """
    hidden = linear(stream.normed, weights.up)  # (T, F)
    if weights.gate is None:
        hidden = activate(hidden, weights.activation)
    else:
        hidden = activate(linear(stream.normed, weights.gate), weights.activation) * hidden
    return add(stream, linear(hidden, weights.down), weights)


def head(stream: Stream, offsets: NDArray[int64], weights: Head, workspace: Workspace) -> Floats:
    """Turn the normed rows of each pair into its logits.

    Parameters
    ----------
    stream : Stream of (T, C), or of (B, C) where the pooling takes one row of each pair

    Returns
    -------
    ndarray, shape (B, labels)
    """
    return take_steps(pool(stream.normed, offsets, weights.pooling), weights.steps)


def pool(x: Floats, offsets: NDArray[int64], pooling: str) -> Floats:
    """Make one row of the rows of each pair: (T, C) -> (B, C).

    "first" and "last" are rows of their own, and come as such: the last attention block was asked for no others.
    """
    if pooling in ("first", "last"):
        return x
    lengths = np.diff(offsets).astype(x.dtype)[:, None]
    if pooling == "max":
        return np.maximum.reduceat(x, offsets[:-1], axis=0)
    if pooling == "weighted_mean":  # a token weighs 1, 2, 3, ... by its place
        weights = np.concatenate([np.arange(1, length + 1) for length in np.diff(offsets)]).astype(x.dtype)
        return np.add.reduceat(x * weights[:, None], offsets[:-1], axis=0) / (lengths * (lengths + 1) / 2)
    total = np.add.reduceat(x, offsets[:-1], axis=0)
    return total / (np.sqrt(lengths) if pooling == "mean_sqrt" else lengths)


def take_steps(x: Floats, steps: tuple[Step, ...]) -> Floats:
    """Apply the steps of a head, one after the other."""
    for step in steps:
        if isinstance(step, str):
            x = activate(x, step)
        elif isinstance(step, Linear):
            x = linear(x, step)
        elif isinstance(step, Norm):
            x = layer_norm(x, step)
        else:
            x = take_steps(x, step.steps) + (x if step.shortcut is None else linear(x, step.shortcut))
    return x
