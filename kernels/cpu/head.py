"""The head: from the rows of each pair to its logits, step by step. It is a thousandth of the work, always in float32.

Rows are filled up to N' columns here as everywhere. What stands in those is not always 0 (a sigmoid makes 0.5 of it);
whatever reads a whole row therefore reads its real width only.
"""

import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from .isa import LANES
from .jit import kernel
from .packed import POOLINGS
from .simd import fma, keep_between, load, maximum, reduce_add, splat, store
from .vector_math import activate

Floats = NDArray[float32]
MEAN, MEAN_SQRT, WEIGHTED_MEAN, MAX = range(len(POOLINGS))
SHORTEST = 1e-12  # what shorter rows are divided by: torch.nn.functional.normalize's


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
