"""A cross-encoder's forward pass in NumPy: the specification that every other backend is tested against.

It is written to be read, in any float dtype, and never tuned. Read it from the top: four small functions, then the
blocks of the transformer built from them. Numbers travel as ragged arrays: the tokens of all pairs stand one after the
other in (T, C), and ``offsets`` (B+1,) says where each pair begins and ends. A padding token does not exist.

Letters: T tokens, B pairs, C hidden size, H heads, D head width, F intermediate size, L tokens of one pair.

Sources: A. Vaswani et al., "Attention Is All You Need" (2017), sections 3.1-3.3; J. Devlin et al., "BERT" (2018),
section 3 and its code; D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units" (2016); J. L. Ba et al.,
"Layer Normalization" (2016), equation 3.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy import int32, int64
from numpy.typing import NDArray

from ..parameters import LayerNorm, Linear

Floats = NDArray[np.floating[Any]]

# ---- the mathematics


def linear(x: Floats, layer: Linear) -> Floats:
    """Multiply by the weight and add the bias: (..., K) -> (..., N)."""
    return x @ layer.weight.T + layer.bias


def layer_norm(x: Floats, norm: LayerNorm) -> Floats:
    """Shift and scale each row to mean 0 and variance 1 (the biased variance), then apply gain and bias.

    A row whose squares are beyond the dtype becomes NaN. (Divided by an infinite variance, it would be the bias alone,
    and the score wrong without a sign of it.)
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    variance = variance + (variance - variance)
    return centred / np.sqrt(variance + x.dtype.type(norm.eps)) * norm.gain + norm.bias


def gelu(x: Floats) -> Floats:
    """X times the probability that a standard normal number is below x; exact, by erf, not the tanh approximation."""
    erf = np.frompyfunc(math.erf, 1, 1)  # NumPy has none; this one is exact and slow
    half = x.dtype.type(0.5)
    return x * half * (1 + erf(x * math.sqrt(0.5)).astype(x.dtype))


def relu(x: Floats) -> Floats:
    """Keep what is positive."""
    return np.maximum(x, 0)


def softmax(x: Floats) -> Floats:
    """Turn the last axis into probabilities; the maximum is taken off first so that exp cannot overflow."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


# ---- the weights of each block; the precision is the dtype of the computation


class EmbeddingWeights(NamedTuple):
    """What turns ids into vectors."""

    word: Floats  # (vocabulary, C)
    position: Floats  # (positions, C)
    token_type: Floats  # (token types, C)
    norm: LayerNorm


class AttentionWeights(NamedTuple):
    """What one attention block needs."""

    query: Linear  # (H*D, C)
    key: Linear  # (H*D, C)
    value: Linear  # (H*D, C)
    output: Linear  # (C, H*D)
    norm: LayerNorm
    num_heads: int


class FeedForwardWeights(NamedTuple):
    """What one feed-forward block needs."""

    up: Linear  # (F, C)
    down: Linear  # (C, F)
    norm: LayerNorm


class HeadWeights(NamedTuple):
    """What turns the first token's vector into logits."""

    dense: Linear  # (C, C)
    activation: Callable[[Floats], Floats]
    output: Linear  # (labels, C)


LARGEST_SHARD = 384  # tokens that are computed at once
SHARES_SHARDS = False
MOST_WORKERS = None
HEAD_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {"tanh": np.tanh, "gelu": gelu, "relu": relu}


def _cast(layer: Any, dtype: str) -> Any:
    """Give the arrays of a Linear or LayerNorm another dtype."""
    return type(layer)(*(part.astype(dtype) if isinstance(part, np.ndarray) else part for part in layer))


def pack_embedding(
    word: Floats, position: Floats, token_type: Floats, norm: LayerNorm, precision: str
) -> EmbeddingWeights:
    """Bring the embedding tables into the dtype of the computation."""
    return EmbeddingWeights(
        word.astype(precision), position.astype(precision), token_type.astype(precision), _cast(norm, precision)
    )


def pack_attention(
    query: Linear, key: Linear, value: Linear, output: Linear, norm: LayerNorm, num_heads: int, precision: str
) -> AttentionWeights:
    """Bring the weights of an attention block into the dtype of the computation."""
    query, key, value, output, norm = (_cast(layer, precision) for layer in (query, key, value, output, norm))
    return AttentionWeights(query, key, value, output, norm, num_heads)


def pack_feed_forward(up: Linear, down: Linear, norm: LayerNorm, precision: str) -> FeedForwardWeights:
    """Bring the weights of a feed-forward block into the dtype of the computation."""
    return FeedForwardWeights(*(_cast(layer, precision) for layer in (up, down, norm)))


def pack_head(dense: Linear, activation: str, output: Linear, precision: str) -> HeadWeights:
    """Bring the weights of the classification head into the dtype of the computation."""
    return HeadWeights(_cast(dense, precision), HEAD_ACTIVATIONS[activation], _cast(output, precision))


def pack_projection(layer: Linear, precision: str) -> Linear:
    """Bring the layer from the embedding size to the hidden size into the dtype of the computation."""
    projection: Linear = _cast(layer, precision)
    return projection


def pack_relative_bias(bias: Floats, precision: str) -> Floats:
    """Bring the bias of each head for each distance, (H, 2 positions - 1), into the dtype of the computation."""
    return bias.astype(precision)


class Workspace:
    """The buffers that a forward pass writes to. NumPy makes its own; other backends reuse theirs."""

    def leave(self) -> None:
        """Tell the other members of the team, of which there are none, that this one has failed."""


def make_team(size: int) -> list[Workspace]:
    """Return the workspaces of the threads that compute a shard together: of one, here."""
    return [Workspace()]


# ---- the blocks


def embedding(
    ids: NDArray[int32],
    type_ids: NDArray[int32],
    position_ids: NDArray[int32],
    weights: EmbeddingWeights,
    workspace: Workspace,
) -> Floats:
    """Look up and add three vectors for each token: its word, its segment (query or passage), its position.

    Parameters
    ----------
    ids, type_ids, position_ids : ndarray of int32, shape (T,)

    Returns
    -------
    ndarray, shape (T, C)
    """
    x = weights.word[ids] + weights.token_type[type_ids] + weights.position[position_ids]  # (T, C)
    return layer_norm(x, weights.norm)


def projection(x: Floats, weights: Linear, workspace: Workspace) -> Floats:
    """Bring embeddings of another size to the hidden size: (T, E) -> (T, C)."""
    return linear(x, weights)


def attention_block(
    x: Floats,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    relative_bias: Floats | None,
    workspace: Workspace,
) -> Floats:
    """Let each token gather information from all tokens of its own pair.

    Each of H heads compares the token's query with every token's key, and takes the mean of the values weighted by
    how well they match: softmax(Q K^T / sqrt(D)) V. What was gathered is added to x, and the sum normalised.

    Parameters
    ----------
    x : ndarray, shape (T, C)
    offsets : ndarray of int64, shape (B+1,)
        Pair b is rows offsets[b] to offsets[b+1].
    relative_bias : ndarray, shape (H, 2 positions - 1), or None
        What is added to a score for the distance from query to key; the middle column is distance 0.

    Returns
    -------
    ndarray, shape (T, C)
    """
    # The key's bias b would add q.b to all scores of a query, which leaves its softmax as it is. It is not added: a
    # large one would take the digits of all scores before softmax takes it off again.
    query, key, value = (
        rows.reshape(len(x), weights.num_heads, -1).transpose(1, 0, 2)  # (H, T, D)
        for rows in (linear(x, weights.query), x @ weights.key.weight.T, linear(x, weights.value))
    )
    scale = query.dtype.type(1 / math.sqrt(query.shape[-1]))
    context = np.empty_like(query)  # (H, T, D)
    for start, end in itertools.pairwise(offsets):
        pair = slice(start, end)
        scores = query[:, pair] @ key[:, pair].transpose(0, 2, 1) * scale  # (H, L, L)
        if relative_bias is not None:
            scores += relative_bias[:, distances(end - start, relative_bias.shape[1])]
        context[:, pair] = softmax(scores) @ value[:, pair]  # (H, L, D)
    gathered = context.transpose(1, 0, 2).reshape(len(x), -1)  # (T, H*D)
    return layer_norm(x + linear(gathered, weights.output), weights.norm)


def distances(length: int, columns: int) -> NDArray[np.int64]:
    """Return the column of a relative bias for each query (rows) and key (columns) of a pair: (L, L)."""
    place = np.arange(length)
    return place[None, :] - place[:, None] + columns // 2


def first_token_attention_block(
    x: Floats,
    offsets: NDArray[int64],
    weights: AttentionWeights,
    relative_bias: Floats | None,
    workspace: Workspace,
) -> Floats:
    """Give the rows of `attention_block` that belong to the first token of each pair.

    Only these reach the head; a faster backend computes no others in the last layer.

    Returns
    -------
    ndarray, shape (B, C)
    """
    return attention_block(x, offsets, weights, relative_bias, workspace)[offsets[:-1]]


def feed_forward_block(x: Floats, weights: FeedForwardWeights, workspace: Workspace) -> Floats:
    """Transform each token by itself: widen to F, bend with GELU, narrow to C; add to x and normalise.

    Parameters
    ----------
    x : ndarray, shape (T, C), or (B, C) after `first_token_attention_block`

    Returns
    -------
    ndarray, shape of x
    """
    hidden = gelu(linear(x, weights.up))  # (T, F)
    return layer_norm(x + linear(hidden, weights.down), weights.norm)


def classification_head(x: Floats, weights: HeadWeights, workspace: Workspace) -> Floats:
    """Turn the vector of each pair's first token into its logits.

    What has left the dtype becomes NaN: tanh would make 1 of an infinity whose sign may be wrong, and hide it.

    Parameters
    ----------
    x : ndarray, shape (B, C)

    Returns
    -------
    ndarray, shape (B, labels)
    """
    pooled = linear(x, weights.dense)
    return linear(weights.activation(pooled + (pooled - pooled)), weights.output)
