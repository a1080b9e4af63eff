"""How much room `attend` needs; whoever lends it may have frozen kernels, so that this is told without Numba."""

from .instruction_sets import InstructionSet


def queries_at_once(isa: InstructionSet) -> int:
    """Return how many queries keys meet at once (disentangled.py); more would not leave the L2 cache to others."""
    return 120 // isa.tile_rows * isa.tile_rows


def margin(isa: InstructionSet) -> int:
    """Return the columns that whole tiles write to the left and to the right of those that count."""
    return isa.tile_rows + isa.tile_width


def scratch_size(longest: int, width: int, isa: InstructionSet, *, disentangled: bool) -> int:
    """Return the numbers that are written down for pairs of up to `longest` tokens and heads of a width.

    They are keys in panels, TILE_ROWS rows of scores and the sum of each; and where content meets distances
    (disentangled.py), what all keys find for a block of queries, what TILE_ROWS queries find, and the former turned.
    """
    padded = -(-longest // isa.tile_width) * isa.tile_width
    plain = width * padded + isa.tile_rows * padded + isa.tile_rows
    if not disentangled:
        return plain
    turned = -(-isa.tile_rows // isa.lanes) * isa.lanes * padded
    return (
        plain + padded * (queries_at_once(isa) + 2 * margin(isa)) + isa.tile_rows * (padded + 2 * margin(isa)) + turned
    )
