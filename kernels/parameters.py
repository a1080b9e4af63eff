"""The parts of a model, as loaders, engine and every backend speak of them.

A family of models is data: which of these records it has, and what is in them. No block asks for a family.

Letters for shapes, here and everywhere: T tokens in a shard, B pairs, C hidden size, H heads, D head width,
F intermediate size, L layers (or the tokens of one pair, where that is said), P positions.

A norm belongs to the sum that it follows, and activations are a pair: the sum, and what the norm makes of it. A block
reads what is normed and adds to the sum. In BERT's kind of layer (post-norm) the normed rows take the place of the sum;
in ModernBERT's (pre-norm, `keeps_sum`) the sum runs on beside them, through the whole model.
"""

from typing import Any, NamedTuple

from numpy import float32, floating, int64, uint16
from numpy.typing import NDArray

Floats = NDArray[floating[Any]]


class Stream(NamedTuple):
    """The activations between two blocks, in whatever form a backend has them."""

    sum: Any  # (T, C)
    normed: Any  # (T, C): what the norm behind the last sum made of it; the same object where layers keep no sum


class Linear(NamedTuple):
    """y = x @ weight.T + bias."""

    weight: NDArray[float32]  # (outputs, inputs), as checkpoints store it
    bias: NDArray[float32] | None  # (outputs,)


class Norm(NamedTuple):
    """LayerNorm: y = (x - mean) / sqrt(variance + eps) * gain + bias."""

    gain: NDArray[float32]  # (C,)
    bias: NDArray[float32] | None  # (C,)
    eps: float


class DistanceBias(NamedTuple):
    """A rule of positions: each head adds a number to a score, by the distance from query to key."""

    table: Floats  # (H, 2P-1); the middle column is distance 0


class Rotary(NamedTuple):
    """A rule of positions: query and key are turned by angles that grow with their place in the pair.

    Numbers d and d + D/2 of a head are the coordinates of a point, which is turned by place * rate of d. The product of
    two turned points depends on the difference of their angles only. Source: J. Su et al., "RoFormer" (2021).
    """

    cosine: Floats  # (P, D/2), of each angle
    sine: Floats  # (P, D/2)


class Disentangled(NamedTuple):
    """A rule of positions: content meets distance. Tables are constants of each layer.

    To the product of a query and a key, that of the query with a row for the distance to the key is added, and that of
    the key with a row for the same distance; the sum is scaled. Source: P. He et al., "DeBERTa: Decoding-enhanced BERT
    with Disentangled Attention" (2021), section 3.1.
    """

    key_table: Floats | None  # (H, R, D): what queries meet ("c2p")
    query_table: Floats | None  # (H, R, D): what keys meet ("p2c")
    rows: NDArray[int64]  # (2P-1,): row of each distance from query to key; the middle one is distance 0


Positions = DistanceBias | Rotary | Disentangled | None  # None: positions are in the embeddings only


class Float16Table(NamedTuple):
    """A table of IEEE 754's binary16 numbers, as a file holds it."""

    bits: NDArray[uint16]  # (rows, E)


class Bfloat16Table(NamedTuple):
    """A table of bfloat16 numbers, the upper halves of float32 ones, as a file holds it."""

    bits: NDArray[uint16]  # (rows, E)


WordTable = NDArray[float32] | Float16Table | Bfloat16Table


class Embedding(NamedTuple):
    """What turns ids into vectors: a row of each table, added up, normalised and projected, or the other way round."""

    word: WordTable  # (vocabulary, E): the largest table of all; tables.py
    position: NDArray[float32] | None  # (P, E)
    token_type: NDArray[float32] | None  # (token types, E)
    norm: Norm
    projection: Linear | None  # (C, E)
    projects_first: bool  # before the norm


class Attention(NamedTuple):
    """What one attention block needs, and the norm of the sum that it adds to."""

    query: Linear  # (H*D, C)
    key: Linear  # (H*D, C)
    value: Linear  # (H*D, C)
    output: Linear  # (C, H*D)
    norm: Norm
    heads: int
    scale: float  # of the products of query and key
    positions: Positions
    reach: tuple[int, int] | None  # tokens before and after itself that a token sees; None: all
    keeps_sum: bool


class FeedForward(NamedTuple):
    """What one feed-forward block needs: down(activation(up(x))), or down(activation(gate(x)) * up(x))."""

    up: Linear  # (F, C)
    gate: Linear | None  # (F, C)
    down: Linear  # (C, F)
    activation: str  # "gelu", "gelu_tanh", "relu", "silu", "tanh" or "sigmoid"
    norm: Norm
    keeps_sum: bool


class Convolution(NamedTuple):
    """What mixes embeddings of neighbours behind the first layer: norm(x + activation(layer(embeddings around x)))."""

    layer: Linear  # (C, W*C): the vectors of W tokens side by side, with the token itself in the middle
    activation: str
    norm: Norm
    keeps_sum: bool


class Residual(NamedTuple):
    """A step of a head: what its steps make of x, and x itself (by way of a layer, where widths differ)."""

    steps: "tuple[Step, ...]"
    shortcut: Linear | None


# A string is the name of a function of each number, as in `FeedForward`, or "normalize", which brings rows to length 1.
Step = Linear | Norm | Residual | str


class Head(NamedTuple):
    """What turns the normed rows of a pair into its logits: pooled to one row, and then step by step."""

    pooling: str  # "first", "last", "mean", "max", "mean_sqrt" or "weighted_mean"
    steps: tuple[Step, ...]
