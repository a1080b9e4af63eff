"""How the operands of a tensor core lie in the registers of a warp.

``mma.sync.m16n8k16`` multiplies 16 x 16 numbers by 16 x 8. Each of 32 lanes holds words of two bfloat16 that are
neighbours along k, and four of the sums. With group = lane // 4 and member = lane % 4, the lane holds

    of A   the words (row, word) = (group, member) + each of FRAGMENT_A
    of B   the words (column, word) = (group, member) + each of FRAGMENT_B
    of C   the sums (row, column) = (group, 2 * member) + each of FRAGMENT_C

Source: NVIDIA, PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
"""

FRAGMENT_A = ((0, 0), (8, 0), (0, 4), (8, 4))
FRAGMENT_B = ((0, 0), (0, 4))
FRAGMENT_C = ((0, 0), (0, 1), (8, 0), (8, 1))
MMA_ROWS, MMA_COLUMNS, MMA_WORDS = 16, 8, 8  # words along k
DOWN, ACROSS = 4, 4  # products of a warp: 64 rows by 32 columns
WARP_ROWS, WARP_COLUMNS = DOWN * MMA_ROWS, ACROSS * MMA_COLUMNS
SUMS = DOWN * ACROSS * len(FRAGMENT_C)  # of a lane

# (row, column) of each of a lane's sums, from (group, 2 * member) on
PLACES = tuple(
    (down * MMA_ROWS + row, across * MMA_COLUMNS + column)
    for down in range(DOWN)
    for across in range(ACROSS)
    for row, column in FRAGMENT_C
)
