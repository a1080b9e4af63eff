"""The head: from the rows of each pair to its logits, step by step. It is a thousandth of the work, always in float32.

Rows are filled up to N' columns here as everywhere. What stands in those is not always 0 (a sigmoid makes 0.5 of it);
whatever reads a whole row therefore reads its real width only.
"""

from typing import NamedTuple

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from ..parameters import Linear, Norm, Residual, Step
from .elementwise import normalize_rows
from .float32 import Float32Linear, pack_float32
from .isa import LANES
from .jit import kernel
from .linear import linear_rows
from .packing import PackedNorm, pack_norm
from .panels import aligned_empty
from .rounding import Operand
from .simd import fma, keep_between, load, maximum, reduce_add, splat, store
from .vector_math import ACTIVATIONS, activate

Floats = NDArray[float32]
POOLINGS = ("mean", "mean_sqrt", "weighted_mean", "max")
MEAN, MEAN_SQRT, WEIGHTED_MEAN, MAX = range(len(POOLINGS))
SHORTEST = 1e-12  # what shorter rows are divided by: torch.nn.functional.normalize's


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


def take_steps(x: Floats, steps: tuple[PackedStep, ...], operand: Operand) -> Floats:
    """Apply the steps to rows (B, C'), of which nothing is overwritten; the result is (B, N')."""
    for step in steps:
        if isinstance(step, PackedResidual):
            direct = x if step.shortcut is None else take_steps(x, (step.shortcut,), operand)
            x = take_steps(x, step.steps, operand) + direct
            continue
        result = aligned_empty(len(x), len(step.bias) if isinstance(step, Float32Linear) else x.shape[1])
        if isinstance(step, Float32Linear):
            linear_rows(x, 0, len(x), step, operand, result)
        elif isinstance(step, PackedNorm):
            normalize_rows(x, step, result)
        elif isinstance(step, PackedNormalize):
            shorten_rows(x, step.width, result)
        else:
            activate_rows(x, step.activation, result)
        x = result
    return x


def pool(x: Floats, offsets: NDArray[int64], own: NDArray[np.bool_], pooling: str) -> Floats:
    """Return one row for each of the pairs that are `own`: (B, C')."""
    pooled = aligned_empty(int(np.count_nonzero(own)), x.shape[1])
    pool_rows(x, offsets[:-1][own], offsets[1:][own], POOLINGS.index(pooling), pooled)
    return pooled


@kernel
def pool_rows(x: Floats, starts: NDArray[int64], stops: NDArray[int64], pooling: int, out: Floats) -> None:
    """Write one row for the rows of x from each start to each stop; added up in their order, whatever is around them.

    x: (T, C'); out: (pairs, C').
    """
    width = x.shape[1]
    for pair in range(starts.size):
        start, count = starts[pair], float32(stops[pair] - starts[pair])
        for j in range(0, width, LANES):
            total = load(x, start * width + j)
            for row in range(start + 1, stops[pair]):
                value = load(x, row * width + j)
                if pooling == MAX:
                    total = maximum(total, value) + (value - value)  # NaN of what is no number: it would get lost
                elif pooling == WEIGHTED_MEAN:
                    total = fma(value, splat(float32(row - start + 1)), total)
                else:
                    total = total + value
            if pooling == MEAN:
                total = total / count
            elif pooling == MEAN_SQRT:
                total = total / float32(np.sqrt(count))
            elif pooling == WEIGHTED_MEAN:
                total = total / (count * (count + float32(1)) / float32(2))
            store(out, pair * width + j, total)


@kernel
def activate_rows(x: Floats, activation: int, out: Floats) -> None:
    """Write the activation of each number of x (B, N'); what has left float32 becomes NaN: it would be hidden."""
    for i in range(0, x.size, LANES):
        store(out, i, activate(load(x, i), activation))


@kernel
def shorten_rows(x: Floats, width: int, out: Floats) -> None:
    """Write each row of x (B, N') divided by its length; one of zeros stays."""
    columns = x.shape[1]
    for row in range(x.shape[0]):
        squares = splat(float32(0))
        for i in range(row * columns, (row + 1) * columns, LANES):
            value = keep_between(load(x, i), 0, row * columns + width - i, splat(float32(0)))
            squares = fma(value, value, squares)
        total = reduce_add(squares)
        length = np.sqrt(total + (total - total))  # NaN of an infinity: what is divided by it would be 0
        if length < SHORTEST:
            length = float32(SHORTEST)
        for i in range(row * columns, (row + 1) * columns, LANES):
            store(out, i, load(x, i) / length)
