"""The records that kernels read: weights as they are packed, and what is lent to a kernel.

They need no Numba: a frozen model has them too. How weights are packed is in packing.py, and for each arithmetic in
float32.py, bfloat16.py and int8.py. C' means: C filled up with zeros to whole tiles (panels.py).
"""

from typing import NamedTuple

from numpy import float32, int32
from numpy.typing import NDArray

from ..parameters import Positions, WordTable

Floats = NDArray[float32]
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu", "tanh", "sigmoid")
POOLINGS = ("mean", "mean_sqrt", "weighted_mean", "max")  # those that are computed; "first" and "last" pick rows

# ---- layers


class Float32Linear(NamedTuple):
    """A Linear in panels."""

    panels: Floats  # (N'/TILE_WIDTH, K', TILE_WIDTH)
    bias: Floats  # (N',)


class Bfloat16Linear(NamedTuple):
    """A Linear in panels of bfloat16."""

    panels: NDArray[int32]  # (N'/TILE_WIDTH, K'/2, TILE_WIDTH)
    bias: Floats  # (N',)


class TwoPartLinear(NamedTuple):
    """A Linear whose weights are sums of two bfloat16; panels of the first parts, then of the second."""

    panels: NDArray[int32]  # (N'/TILE_WIDTH, 2*K'/2, TILE_WIDTH)
    bias: Floats  # (N',)


class Int8Linear(NamedTuple):
    """A Linear in panels of int8."""

    panels: NDArray[int32]  # (N'/TILE_WIDTH, K'/4, TILE_WIDTH)
    bias: Floats  # (N',)
    scale: Floats  # (N',): weight = scale * int8
    start: NDArray[int32]  # (N',): what the sums begin with


PackedLinear = Float32Linear | Bfloat16Linear | TwoPartLinear | Int8Linear


class PackedNorm(NamedTuple):
    """A LayerNorm filled up with zeros, and the number of columns that are real."""

    gain: Floats  # (C',)
    bias: Floats  # (C',)
    eps: float
    width: int  # C


# ---- blocks


class EmbeddingWeights(NamedTuple):
    """Tables for `embedding`."""

    word: WordTable  # (vocabulary, E')
    place: Floats  # (token types * positions, E'): row type * positions + position
    positions: int  # 0: none, and `place` has a row for each token type
    norm: PackedNorm
    projection: PackedLinear | None
    projects_first: bool


class ScoreRule(NamedTuple):
    """How a query scores the keys of its pair."""

    scale: float  # of the products, 1 / sqrt(D)
    positions: Positions
    reach: tuple[int, int] | None


class AttentionWeights(NamedTuple):
    """Packed weights of an attention block."""

    query_key_value: PackedLinear  # (3*H*D', C')
    output: PackedLinear  # (C', H*D')
    norm: PackedNorm
    heads: int
    rule: ScoreRule
    keeps_sum: bool


class PackedFeedForward(NamedTuple):
    """The layers of a feed-forward block."""

    up: PackedLinear  # (F', C')
    gate: PackedLinear | None  # (F', C')
    down: PackedLinear  # (C', F')
    activation: int  # place in ACTIVATIONS
    norm: PackedNorm


class PackedConvolution(NamedTuple):
    """What mixes neighbours."""

    layer: PackedLinear  # (C', W*C')
    width: int  # W
    activation: int
    norm: PackedNorm


# ---- the head


class PackedActivation(NamedTuple):
    """A function of each number of a row."""

    activation: int  # place in ACTIVATIONS


class PackedNormalize(NamedTuple):
    """The step that brings rows to length 1."""

    width: int


class PackedResidual(NamedTuple):
    """Steps whose result is added to what went in."""

    steps: "tuple[PackedStep, ...]"
    shortcut: Float32Linear | None


PackedStep = Float32Linear | PackedNorm | PackedActivation | PackedNormalize | PackedResidual


class HeadWeights(NamedTuple):
    """Packed weights of the head."""

    pooling: str
    steps: tuple[PackedStep, ...]
    num_labels: int


# ---- lent to kernels


class Operand(NamedTuple):
    """Room for some rounded rows of A, in the form in which a tile reads them; not used for float32."""

    words: NDArray[int32]  # at most one of 32 bits for each number
    scales: Floats  # of each row; int8 only
