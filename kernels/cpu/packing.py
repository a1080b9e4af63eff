"""From the records of a model (parameters.py) to those that kernels read (packed.py); done once, at load.

Layers are packed by the arithmetic in which they are multiplied, sizes are filled up to whole tiles (panels.py), and
what vanishes is left out (fusing.py).
"""

import numpy as np
from numpy import float32

from ..fusing import drop_key_bias, fill_up_heads, fill_up_parts, fold_value_bias
from ..parameters import (
    Attention,
    Bfloat16Table,
    Convolution,
    Embedding,
    FeedForward,
    Float16Table,
    Head,
    Linear,
    Norm,
    Positions,
    Residual,
    Step,
    WordTable,
)
from ..tables import bits_of
from . import positions
from .bfloat16 import pack_bfloat16, pack_two_parts
from .float32 import pack_float32
from .int8 import pack_int8
from .isa import ISA, TILE_WIDTH
from .memory import aligned_empty
from .packed import (
    ACTIVATIONS,
    AttentionWeights,
    EmbeddingWeights,
    HeadWeights,
    PackedActivation,
    PackedConvolution,
    PackedFeedForward,
    PackedLinear,
    PackedNorm,
    PackedNormalize,
    PackedResidual,
    PackedStep,
    ScoreRule,
)
from .panels import fill_up, round_up


def pack_linear(layer: Linear, precision: str) -> PackedLinear:
    """Fill up, round and reorder a weight (N, K) and its bias (N,).

    Parameters
    ----------
    precision : {"float32", "high", "bfloat16", "int8"}
        How weights are stored and multiplied. "high" is the same as "float32" where the processor has nothing faster.
    """
    if precision == "bfloat16":
        return pack_bfloat16(layer)
    if precision == "high" and ISA.amx:
        return pack_two_parts(layer)
    if precision == "int8":
        return pack_int8(layer)
    return pack_float32(layer)


def pack_norm(norm: Norm) -> PackedNorm:
    """Fill up gain and bias, which is 0 where there is none."""
    width = len(norm.gain)
    return PackedNorm(fill_up(norm.gain, round_up(width)), fill_up(norm.bias, round_up(width)), norm.eps, width)


def pack_positions(rule: Positions, precision: str) -> Positions:
    """Fill up the tables of a rule; the layers with the same rule share them."""
    return positions.pack_positions(rule)


def pack_embedding(embedding: Embedding, precision: str) -> EmbeddingWeights:
    """Add up every token type with every position, and fill up the rows; words stay in the dtype of the file."""
    rows_of_words, columns = bits_of(embedding.word).shape
    width = round_up(columns)
    nothing = np.zeros((1, columns), float32)
    types = nothing if embedding.token_type is None else embedding.token_type
    rows = nothing if embedding.position is None else embedding.position
    place = (types[:, None] + rows[None]).reshape(-1, columns)
    word = embedding.word
    if columns != width:  # else it stays where it is: the largest array of all
        word = _fill_up_table(word, rows_of_words, width)
    return EmbeddingWeights(
        word,
        fill_up(place, len(place), width),
        0 if embedding.position is None else len(embedding.position),
        pack_norm(embedding.norm),
        None if embedding.projection is None else pack_float32(embedding.projection),
        embedding.projects_first,
    )


def _fill_up_table(table: WordTable, rows: int, columns: int) -> WordTable:
    """Copy a table into a wider one; zeros have no bits in any dtype."""
    filled = aligned_empty(rows, columns, dtype=bits_of(table).dtype)
    filled.fill(0)
    filled[:, : bits_of(table).shape[1]] = bits_of(table)
    return type(table)(filled) if isinstance(table, Float16Table | Bfloat16Table) else filled


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


def pack_steps(steps: tuple[Step, ...]) -> tuple[PackedStep, ...]:
    """Pack the layers and norms of a head."""
    packed: list[PackedStep] = []
    for i, step in enumerate(steps):
        if isinstance(step, Linear):
            packed.append(pack_float32(step))
        elif isinstance(step, Norm):
            packed.append(pack_norm(step))
        elif isinstance(step, Residual):
            shortcut = None if step.shortcut is None else pack_float32(step.shortcut)
            packed.append(PackedResidual(pack_steps(step.steps), shortcut))
        elif step == "normalize":
            packed.append(PackedNormalize(_width(steps, i)))
        else:
            packed.append(PackedActivation(ACTIVATIONS.index(step)))
    return tuple(packed)


def _width(steps: tuple[Step, ...], place: int) -> int:
    """Return the width of the rows that reach a step: that of the results before it, or else of what comes after."""
    for step in reversed(steps[:place]):
        if not isinstance(step, str):
            return _sizes(step)[1]
    return next(_sizes(step)[0] for step in steps[place:] if not isinstance(step, str))


def _sizes(step: Linear | Norm | Residual) -> tuple[int, int]:
    """Return the width of the rows that go into a step and that of those that come out."""
    if isinstance(step, Linear):
        outputs, inputs = step.weight.shape
        return inputs, outputs
    if isinstance(step, Norm):
        return len(step.gain), len(step.gain)
    if step.shortcut is not None:
        return _sizes(step.shortcut)
    sizes = [_sizes(inner) for inner in step.steps if not isinstance(inner, str)]
    return sizes[0][0], sizes[-1][1]


def output_width(steps: tuple[Step, ...]) -> int:
    """Return the width of the rows that come out of all steps: the number of labels."""
    return _sizes(next(step for step in reversed(steps) if not isinstance(step, str)))[1]
