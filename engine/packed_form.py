"""What the packed weights of a model must look like: the records of packing.py, with a form in the place of each array.

Kernels check nothing. The weights of a frozen model come out of a file, so that it is proven here that they are of the
sizes and rules of its specification, for its instruction set; nothing is packed for that.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..kernels.cpu.instruction_sets import InstructionSet
from ..kernels.cpu.packed import (
    ACTIVATIONS,
    POOLINGS,
    AttentionWeights,
    Bfloat16Linear,
    EmbeddingWeights,
    Float32Linear,
    HeadWeights,
    Int8Linear,
    PackedActivation,
    PackedConvolution,
    PackedFeedForward,
    PackedNorm,
    PackedNormalize,
    PackedResidual,
    ScoreRule,
)
from ..kernels.parameters import Bfloat16Table, Disentangled, DistanceBias, Float16Table, Rotary
from ..loaders.errors import WeightsError
from ..loaders.spec import HeadStep, LayerRule, LinearStep, ModelSpec, NormStep, ResidualStep
from .encoder import POOLED_ROWS, Encoder, Layer


class Form(NamedTuple):
    """What an array must be."""

    dtype: str
    shape: tuple[int, ...]


def check_form(encoder: Any, spec: ModelSpec, dtype: str, isa: InstructionSet) -> None:
    """Prove that packed weights are those of a model of these sizes and rules.

    Raises
    ------
    WeightsError
        When something is of another kind, shape or value.
    """
    if spec.pooling not in (*POOLED_ROWS, *POOLINGS):
        raise _error("pooling", spec.pooling, [*POOLED_ROWS, *POOLINGS])
    words = type(getattr(getattr(encoder, "embedding", None), "word", None))  # in the dtype of the published file
    _compare(encoder, _Forms(spec, dtype, isa).encoder(words), "encoder")


def _compare(found: Any, expected: Any, place: str) -> None:
    if isinstance(expected, Form):
        form = Form(found.dtype.name, found.shape) if isinstance(found, np.ndarray) else None
        if form != expected:
            raise _error(place, form or type(found).__name__, expected)
    elif isinstance(expected, tuple):
        if type(found) is not type(expected) or len(found) != len(expected):
            raise _error(place, type(found).__name__, f"{type(expected).__name__} of {len(expected)}")
        names = getattr(expected, "_fields", range(len(expected)))
        for name, part, wanted in zip(names, found, expected, strict=True):
            _compare(part, wanted, f"{place}.{name}")
    elif type(found) is not type(expected) or found != expected:
        raise _error(place, found, expected)


def _error(place: str, found: Any, expected: Any) -> WeightsError:
    return WeightsError(
        f"frozen weights: {place}: found {found!r:.100}, expected {expected!r:.100}; freeze the model again"
    )


class _Forms:
    """The forms for a specification."""

    def __init__(self, spec: ModelSpec, dtype: str, isa: InstructionSet) -> None:
        self.spec, self.dtype, self.isa = spec, dtype, isa

    def encoder(self, kind_of_words: Any) -> Encoder:
        spec = self.spec
        words = spec.vocab_size, self.up(spec.embedding_size)
        narrow = kind_of_words in (Float16Table, Bfloat16Table)
        embedding = EmbeddingWeights(
            kind_of_words(_array("uint16", *words)) if narrow else _floats(*words),
            _floats(max(spec.num_token_types, 1) * max(self.positions, 1), self.up(spec.embedding_size)),
            self.positions,
            self.norm(spec.hidden_size if spec.projection == "before" else spec.embedding_size),
            None if spec.projection is None else self.linear(spec.hidden_size, spec.embedding_size, "float32"),
            spec.projection == "before",
        )
        layers = tuple(Layer(self.attention(rule), self.feed_forward()) for rule in spec.layers)
        head = HeadWeights(spec.pooling, self.steps(spec.head, spec.hidden_size), spec.num_labels)
        return Encoder(embedding, layers, self.convolution(), head, spec.pooling)

    @property
    def positions(self) -> int:
        return self.spec.max_positions if self.spec.has_position_table else 0

    def up(self, size: int) -> int:
        """Fill up to whole tiles."""
        return -(-size // self.isa.tile_width) * self.isa.tile_width

    def linear(self, outputs: int, inputs: int, dtype: str) -> Any:
        n, k, width = self.up(outputs), self.up(inputs), self.isa.tile_width
        bias, panels = _floats(n), n // width
        if dtype == "bfloat16":
            return Bfloat16Linear(_array("int32", panels, k // 2, width), bias)
        if dtype == "int8":
            words = -(-k // self.isa.int8_depth) * self.isa.int8_depth // 4
            return Int8Linear(_array("int32", panels, words, width), bias, _floats(n), _array("int32", n))
        return Float32Linear(_floats(panels, k, width), bias)

    def norm(self, width: int, eps: float | None = None) -> PackedNorm:
        row: Any = _floats(self.up(width))
        return PackedNorm(row, row, self.spec.norm_eps if eps is None else eps, width)

    def attention(self, rule: LayerRule) -> AttentionWeights:
        spec = self.spec
        c, heads, width = spec.hidden_size, spec.num_heads, self.up(spec.hidden_size // spec.num_heads)
        scale = 1 / math.sqrt(c / heads * spec.score_terms)
        return AttentionWeights(
            self.linear(3 * heads * width, c, self.dtype),
            self.linear(c, heads * width, self.dtype),
            self.norm(c),
            heads,
            ScoreRule(scale, self.rule(rule, heads, width), rule.reach),
            spec.pre_norm,
        )

    def rule(self, rule: LayerRule, heads: int, width: int) -> Any:
        """Return the tables of a rule of positions."""
        spec = self.spec
        positions, tile = spec.usable_length, self.isa.tile_width
        if spec.distance_rows is not None:
            if not spec.distance_rows.kinds:
                return None
            table = _floats(heads, 2 * self.up(positions) // tile, width, tile)
            key, query = (table if kind in spec.distance_rows.kinds else None for kind in ("c2p", "p2c"))
            return Disentangled(key, query, _array("int64", 2 * positions - 1))
        if rule.theta is not None:
            return Rotary(*2 * [_floats(positions, width // 2)])
        if spec.alibi or spec.relative_buckets:
            return DistanceBias(_floats(heads, 2 * positions - 1 + tile))
        return None

    def feed_forward(self) -> PackedFeedForward:
        spec = self.spec
        up = self.linear(spec.intermediate_size, spec.hidden_size, self.dtype)
        down = self.linear(spec.hidden_size, spec.intermediate_size, self.dtype)
        norm = self.norm(spec.hidden_size)
        return PackedFeedForward(up, up if spec.gated else None, down, _place(spec.activation), norm)

    def convolution(self) -> PackedConvolution | None:
        rule, c = self.spec.convolution, self.spec.hidden_size
        if rule is None:
            return None
        layer = self.linear(c, rule.width * self.up(c), self.dtype)
        return PackedConvolution(layer, rule.width, _place(rule.activation), self.norm(c))

    def steps(self, steps: tuple[HeadStep, ...], width: int) -> tuple[Any, ...]:
        """Return the steps of a head whose rows have this width before the first one."""
        packed: list[Any] = []
        for step in steps:
            if isinstance(step, LinearStep):
                packed.append(self.linear(step.outputs, step.inputs, "float32"))
                width = step.outputs
            elif isinstance(step, NormStep):
                packed.append(self.norm(step.width, step.eps))
            elif isinstance(step, ResidualStep):
                shortcut = step.shortcut
                direct = None if shortcut is None else self.linear(shortcut.outputs, shortcut.inputs, "float32")
                packed.append(PackedResidual(self.steps(step.steps, width), direct))
                width = width if shortcut is None else shortcut.outputs
            else:
                packed.append(PackedNormalize(width) if step == "normalize" else PackedActivation(_place(step)))
        return tuple(packed)


def _floats(*shape: int) -> Any:
    return _array("float32", *shape)


def _array(dtype: str, *shape: int) -> Any:
    return Form(dtype, shape)


def _place(activation: str) -> int:
    if activation not in ACTIVATIONS:
        raise _error("activation", activation, ACTIVATIONS)
    return ACTIVATIONS.index(activation)
