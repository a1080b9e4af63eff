"""What the kernels need beyond Numba's CUDA Python: all that depends on the compiler is behind these names.

Values that a thread works on are tuples of constant length, which the compiler keeps in registers: ``load`` and
``store`` move them by 128 bits, ``outer_product`` and the others calculate with them. Three makers could stand behind:

    hardware.py    intrinsics in LLVM IR and PTX, for numba-cuda and Numba's built-in numba.cuda
    simulated.py   the same in plain Python, for Numba's simulator (NUMBA_ENABLE_CUDASIM=1), which has no intrinsics
    (a third, if another compiler of CUDA Python takes numba-cuda's place)

==================  ====================================================================================================
load                (array, at, count): the `count` elements from flat position `at`, by vectors of 4 or 2
store               (array, at, values)
load_rows           (array, at, stride, count): 4 elements from each of `count` rows, `stride` elements apart
store_rows          (array, at, stride, values, count): the same number of values to each of `count` rows
store_columns       (array, at, column_stride, stride, values): values by fours, each four down a column
zeros               (count): floats
round_pairs         (values): floats rounded to bfloat16, two in a word of 32 bits, the earlier in the lower half
scaled              (values, factor)
outer_products      (a, a_at, a_stride, b, b_at, b_stride, half, steps, sums): 8 x 8 sums + a[i] * b[j] for each of
                    `steps` rows, of 8 neighbours in a, and 4 in b and 4 more `half` a row on
dots                (query, array, at, stride, count): products of a vector with `count` rows of an array
weighted_sum        (sums, factor, weights, array, at, stride): sums * factor + weights[i] * row i of an array
multiply_fragments  (a, a_at, b, b_at, stride, lane, sums): a warp's 64 x 32 sums + 64 x 8 words of a by 32 x 8 of b
device_function     a decorator: functions that kernels of the same file call
lane_sum            (value, thread, scratch): the sum over LANES neighbouring threads. All threads of the block must
                    call it; scratch is shared memory for a number of each, needed where there are no shuffles
==================  ====================================================================================================
"""

from numba import config

SIMULATED = bool(config.ENABLE_CUDASIM)
ALIGNMENT = None if SIMULATED else 16  # bytes, of shared memory: what `load` and `store` move at once

if SIMULATED:
    from .simulated import (
        LANES,
        device_function,
        dots,
        lane_sum,
        load,
        load_rows,
        multiply_fragments,
        outer_products,
        round_pairs,
        scaled,
        store,
        store_columns,
        store_rows,
        weighted_sum,
        zeros,
    )
else:
    from .hardware import (
        LANES,
        device_function,
        dots,
        lane_sum,
        load,
        load_rows,
        multiply_fragments,
        outer_products,
        round_pairs,
        scaled,
        store,
        store_columns,
        store_rows,
        weighted_sum,
        zeros,
    )

__all__ = [
    "ALIGNMENT",
    "LANES",
    "SIMULATED",
    "device_function",
    "dots",
    "lane_sum",
    "load",
    "load_rows",
    "multiply_fragments",
    "outer_products",
    "round_pairs",
    "scaled",
    "store",
    "store_columns",
    "store_rows",
    "weighted_sum",
    "zeros",
]
