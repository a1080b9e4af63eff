"""Query, key and value as one layer: what every backend but the reference does with the weights of attention at load.

Two biases disappear, exactly:

- that of the keys adds the same number to all scores of a query, and softmax does not see it: it is dropped;
- the rows of softmax sum to 1, so that of the values passes through attention unchanged: it is folded into the bias of
  the output layer.
"""

import numpy as np
from numpy import float32

from .parameters import Linear


def fuse_attention(
    query: Linear, key: Linear, value: Linear, output: Linear, num_heads: int, unit: int
) -> tuple[Linear, Linear, Linear, Linear]:
    """Return the layers of query, key, value and output, with heads filled up to a multiple of `unit` columns.

    A head of D columns gets zeros up to D': query, key and value are (H*D', C), output is (C, H*D'). Bias of key and
    value is 0.
    """
    query, key, value = (_split_outputs(layer, num_heads, unit) for layer in (query, key, value))
    output = _split_inputs(output, num_heads, unit)
    exact = output.bias + output.weight.astype(np.float64) @ value.bias
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and then so are the logits: they are looked at
        folded = exact.astype(float32)
    no_bias = np.zeros(len(key.bias), float32)
    return (
        query,
        Linear(key.weight, no_bias),
        Linear(value.weight, no_bias),
        Linear(output.weight, folded),
    )


def _split_outputs(layer: Linear, num_heads: int, unit: int) -> Linear:
    """Fill up each head of a query, key or value weight (H*D, C) to D' rows: (H*D', C)."""
    width = len(layer.bias) // num_heads
    padding = -width % unit
    if padding == 0:
        return layer
    weight = np.pad(layer.weight.reshape(num_heads, width, -1), ((0, 0), (0, padding), (0, 0)))
    bias = np.pad(layer.bias.reshape(num_heads, width), ((0, 0), (0, padding)))
    return Linear(weight.reshape(num_heads * (width + padding), -1), bias.ravel())


def _split_inputs(layer: Linear, num_heads: int, unit: int) -> Linear:
    """Fill up each head's columns of the output weight (C, H*D): (C, H*D')."""
    outputs, inputs = layer.weight.shape
    width = inputs // num_heads
    padding = -width % unit
    if padding == 0:
        return layer
    weight = np.pad(layer.weight.reshape(outputs, num_heads, width), ((0, 0), (0, 0), (0, padding)))
    return Linear(weight.reshape(outputs, -1), layer.bias)
