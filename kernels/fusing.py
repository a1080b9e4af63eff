"""Biases of attention that change no result but for rounding, and vanish at load; heads filled up to whole tiles.

- That of the keys adds the same number to all scores of a query, and softmax does not see it. Only where keys are
  turned by their place, or meet the row of a distance, it is another number for each key, and must stay.
- The rows of softmax sum to 1, so that of the values passes through attention unchanged: it is folded into the bias of
  the output layer. That holds for every rule of positions.
"""

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from .parameters import Attention, Disentangled, Linear, Rotary


def drop_key_bias(attention: Attention) -> Attention:
    """Leave out the bias of the keys, if that is exact.

    Then adding it would do harm: a large one would take the digits of all scores before softmax takes it off again.
    """
    rule = attention.positions
    if isinstance(rule, Rotary) or (isinstance(rule, Disentangled) and rule.query_table is not None):
        return attention
    return attention._replace(key=attention.key._replace(bias=None))


def fold_value_bias(attention: Attention) -> Attention:
    """Move the bias of the values into that of the output layer."""
    value, output = attention.value, attention.output
    if value.bias is None:
        return attention
    exact = output.weight.astype(np.float64) @ value.bias
    if output.bias is not None:
        exact = output.bias + exact
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and then so are the logits: they are looked at
        folded = exact.astype(float32)
    return attention._replace(value=value._replace(bias=None), output=output._replace(bias=folded))


def fill_up_heads(attention: Attention, unit: int) -> Attention:
    """Fill up each head of D columns with zeros to D', a multiple of `unit`.

    Query, key and value become (H*D', C), output (C, H*D'). Where queries and keys are turned, their halves are filled
    up each for itself, to D'/2: so that the partner of d is d + D'/2.
    """
    heads = attention.heads
    width = len(attention.query.weight) // heads
    full = -(-width // unit) * unit
    if full == width:
        return attention
    parts = 2 * heads if isinstance(attention.positions, Rotary) else heads
    turned = (_fill_up_outputs(layer, parts, full * heads // parts) for layer in (attention.query, attention.key))
    query, key = turned
    value = _fill_up_outputs(attention.value, heads, full)
    return attention._replace(query=query, key=key, value=value, output=_fill_up_inputs(attention.output, heads, full))


def _fill_up_outputs(layer: Linear, parts: int, full: int) -> Linear:
    """Fill up each of the parts of a layer's rows to `full` of them."""
    weight = fill_up_parts(layer.weight, parts, full)
    return Linear(weight, None if layer.bias is None else fill_up_parts(layer.bias, parts, full))


def _fill_up_inputs(layer: Linear, parts: int, full: int) -> Linear:
    """Fill up each of the parts of a layer's columns."""
    return Linear(np.ascontiguousarray(fill_up_parts(layer.weight.T, parts, full).T), layer.bias)


def fill_up_parts(array: NDArray[float32], parts: int, full: int) -> NDArray[float32]:
    """Fill up each of the parts of the first axis with zeros to a length of `full`."""
    split = array.reshape(parts, len(array) // parts, *array.shape[1:])
    filled = np.zeros((parts, full, *array.shape[1:]), float32)
    filled[:, : split.shape[1]] = split
    return filled.reshape(parts * full, *array.shape[1:])
