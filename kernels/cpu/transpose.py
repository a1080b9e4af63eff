"""The transpose of a block that fits the vector registers."""

from typing import Any

from numba import types

from .isa import LANES
from .jit import intrinsic
from .simd import INT64, load_vector, shuffle, store_vector
from .view import take_apart


@intrinsic
def transpose_block(typingctx: Any, source: Any, target: Any) -> Any:
    """Write the transpose of the first LANES rows and columns of one View to another.

    Each of the log2(LANES) rounds interleaves row i with row i + LANES/2: after the last the block is transposed.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        read, write = (take_apart(context, builder, *view) for view in zip(sig.args, args, strict=True))
        rows = [load_vector(builder, read.row(builder, INT64(i))) for i in range(LANES)]
        half = LANES // 2
        low = [lane for pair in zip(range(half), range(LANES, LANES + half), strict=True) for lane in pair]
        high = [lane + half for lane in low]
        for _ in range(LANES.bit_length() - 1):
            pairs = [(rows[i], rows[i + half]) for i in range(half)]
            rows = [shuffle(builder, a, b, lanes) for a, b in pairs for lanes in (low, high)]
        for i, row in enumerate(rows):
            store_vector(builder, row, write.row(builder, INT64(i)))
        return context.get_dummy_value()

    return types.void(source, target), codegen
