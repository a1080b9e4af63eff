"""The limit of one core: multiply-adds per second, measured without a single access to memory.

As many chains x = x * factor + term as the registers hold run side by side. They depend on nothing but themselves, so
the multiply-add units are never without work, and what is measured is the processor, not a kernel.
"""

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numpy import float32
from numpy.typing import NDArray

from .isa import LANES, TILE_ROWS
from .jit import intrinsic, kernel
from .memory import aligned_empty
from .simd import FLOAT, INT64, element_pointer, load_vector, multiply_add, store_vector

CHAINS = 2 * TILE_ROWS  # as many as a tile has sums: with the two constants they fit the registers
STEPS = 4  # of each chain in one turn of the loop
TURNS = 50_000
FLOP = 2 * CHAINS * STEPS * TURNS * LANES  # of one call of `run_chains`


@intrinsic
def _chains(typingctx: Any, data: Any, turns: Any) -> Any:
    """Emit the loop. The vectors at `data`: where each chain starts and its end goes, then the factor and the term."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first = element_pointer(context, builder, sig.args[0], args[0], INT64(0))
        places = [builder.gep(first, [INT64(i * LANES)], source_etype=FLOAT) for i in range(CHAINS + 2)]
        *starts, factor, term = (load_vector(builder, place) for place in places)
        chains = [cgutils.alloca_once_value(builder, start) for start in starts]
        with cgutils.for_range(builder, args[1], intp=INT64):
            for _ in range(STEPS):
                for chain in chains:
                    builder.store(multiply_add(builder, builder.load(chain), factor, term), chain)
        for chain, place in zip(chains, places[:CHAINS], strict=True):
            store_vector(builder, builder.load(chain), place)
        return context.get_dummy_value()

    return types.void(data, types.int64), codegen


@kernel
def _run(data: NDArray[float32], turns: int) -> None:
    _chains(data, turns)


def start_values() -> NDArray[float32]:
    """Make data of which all chains differ (equal ones would be computed once) and stay near 1."""
    data = aligned_empty(CHAINS + 2, LANES)
    data[:CHAINS] = 1 + 0.01 * np.arange(CHAINS, dtype=float32)[:, None]
    data[CHAINS:] = 0.5
    return data


def run_chains(data: NDArray[float32]) -> None:
    """Compute FLOP operations."""
    _run(data, TURNS)


def largest_error(data: NDArray[float32]) -> float:
    """Return how far the chains end from 1, the fixed point of x * 0.5 + 0.5."""
    run_chains(data)
    return float(abs(data[:CHAINS] - 1).max())
