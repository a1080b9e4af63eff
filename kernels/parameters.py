"""The parameters of the two layers that a transformer is made of, as every backend receives them.

Letters for shapes, here and everywhere: T tokens in a shard, B pairs, C hidden size, H heads, D head width,
F intermediate size, L layers.
"""

from typing import NamedTuple

from numpy import float32
from numpy.typing import NDArray


class Linear(NamedTuple):
    """y = x @ weight.T + bias."""

    weight: NDArray[float32]  # (outputs, inputs), as checkpoints store it
    bias: NDArray[float32]  # (outputs,)


class LayerNorm(NamedTuple):
    """y = (x - mean) / sqrt(variance + eps) * gain + bias."""

    gain: NDArray[float32]  # (C,)
    bias: NDArray[float32]  # (C,)
    eps: float
