"""Tables of words as files hold them: float32, or one of two kinds of 16 bits, which are widened when a row is read."""

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from .parameters import Bfloat16Table, Float16Table, WordTable


def widen(table: WordTable) -> NDArray[float32]:
    """Return the numbers of a table, exactly: all of 16 bits are numbers of float32 too."""
    if isinstance(table, Float16Table):
        return table.bits.view(np.float16).astype(float32)
    if isinstance(table, Bfloat16Table):
        return (table.bits.astype(np.uint32) << np.uint32(16)).view(float32)
    return table


def bits_of(table: WordTable) -> NDArray[np.generic]:
    """Return the array of a table, of whatever kind: (vocabulary, E)."""
    return table.bits if isinstance(table, Float16Table | Bfloat16Table) else table
