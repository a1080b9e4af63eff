"""The instruction sets that kernels are written for, as facts: what each has, and what a processor needs for it.

A kernel is written for a vector of ``lanes`` float32 numbers and a register tile of ``tile_rows`` rows by
``tile_width`` columns.
"""

from typing import Literal, NamedTuple


class InstructionSet(NamedTuple):
    """The facts about a vector unit that shape the kernels; bfloat16.py and int8.py have what is behind those."""

    name: str
    lanes: int  # float32 numbers in a vector register
    tile_rows: int  # rows of the register tile: as many accumulators as the register file holds
    fma: bool  # a*b + c with one rounding is one instruction
    # one instruction multiplies matrices of 2 rows, or pairs; or numbers are widened to float32
    bfloat16: Literal["matrix", "dot", "widen"]
    # one instruction multiplies matrices of 2 rows, four products of int8, two of int16, or one of int32
    int8: Literal["matrix", "dot", "pairs", "widen"]
    amx: bool = False  # registers of 16 x 16 words are multiplied by one instruction, in bfloat16 and int8 (amx.py)
    neon: bool = False  # a product takes one of its factors from a lane of a register (micro_kernel.py)

    @property
    def tile_width(self) -> int:
        """Columns of the register tile."""
        return 2 * self.lanes

    @property
    def row_block(self) -> int:
        """Rows that are computed together with all panels of a weight; 96 where AMX is: whole tiles of AMX too."""
        return 8 * self.tile_rows

    @property
    def int8_depth(self) -> int:
        """What the inputs of an int8 layer are filled up to a multiple of: whole registers of AMX."""
        return 64 if self.amx else self.tile_width


# The tile is two vectors wide everywhere: tile_rows x 2 accumulators, 2 vectors of B and 1 of A must fit the registers;
# on NEON, 1 of each row of A.
# Heads of 32 and 64 and all usual hidden sizes are multiples of two vectors, so that nothing is padded.
_AVX512 = InstructionSet("avx512", lanes=16, tile_rows=12, fma=True, bfloat16="widen", int8="pairs")  # 24 + 3 of 32
_AVX2 = InstructionSet("avx2", lanes=8, tile_rows=6, fma=True, bfloat16="widen", int8="pairs")  # 12 + 3 of 16
_AVX512_BF16 = _AVX512._replace(name="avx512-bf16", bfloat16="dot", int8="dot")
# 16 + 10 of 32
_NEON = InstructionSet("neon", lanes=4, tile_rows=8, fma=True, bfloat16="widen", int8="widen", neon=True)
KNOWN = {
    "amx": _AVX512_BF16._replace(name="amx", amx=True),
    "avx512-bf16": _AVX512_BF16,
    "avx512-vnni": _AVX512._replace(name="avx512-vnni", int8="dot"),
    "avx512": _AVX512,
    "avx2-vnni": _AVX2._replace(name="avx2-vnni", int8="dot"),
    "avx2": _AVX2,
    "neon-mmla": _NEON._replace(name="neon-mmla", bfloat16="matrix", int8="matrix"),
    "neon-dotprod": _NEON._replace(name="neon-dotprod", int8="dot"),
    "neon": _NEON,
    "baseline": InstructionSet("baseline", 4, tile_rows=4, fma=False, bfloat16="widen", int8="widen"),  # 8 + 4 of 16
}
# What each instruction set needs; the first that the processor has is taken.
AVX512_NEEDS = {"avx512f", "avx512vl", "avx512dq", "avx512bw", "avx2", "fma"}
_AVX512_BF16_NEEDS = {*AVX512_NEEDS, "avx512vnni", "avx512bf16"}
AMX_NEEDS = {*_AVX512_BF16_NEEDS, "amx-tile", "amx-bf16", "amx-int8"}
REQUIRED_FEATURES = {
    "amx": AMX_NEEDS,
    "avx512-bf16": _AVX512_BF16_NEEDS,
    "avx512-vnni": {*AVX512_NEEDS, "avx512vnni"},
    "avx512": AVX512_NEEDS,
    "avx2-vnni": {"avx2", "fma", "avxvnni"},
    "avx2": {"avx2", "fma"},
    "neon-mmla": {"neon", "dotprod", "i8mm", "bf16"},
    "neon-dotprod": {"neon", "dotprod"},
    "neon": {"neon"},
}
