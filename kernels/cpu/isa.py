"""What this processor can do, decided once per process.

A kernel is written for a vector of ``LANES`` float32 numbers and a register tile of ``TILE_ROWS`` rows by
``TILE_WIDTH`` columns; this file chooses the three for the processor. The environment variable ``NUMBERT_ISA`` forces
a lower instruction set than the processor has, so that tests can run every code path on one machine.
"""

import os
from typing import Literal, NamedTuple

import llvmlite.binding as llvm
from numba import config

from . import permission


class InstructionSet(NamedTuple):
    """The facts about a vector unit that shape the kernels; bfloat16.py and int8.py have what is behind those."""

    name: str
    lanes: int  # float32 numbers in a vector register
    tile_rows: int  # rows of the register tile: as many accumulators as the register file holds
    fma: bool  # a*b + c with one rounding is one instruction
    bfloat16: Literal["dot", "widen"]  # pairs of bfloat16 are multiplied by one instruction, or widened to float32
    int8: Literal["dot", "pairs", "widen"]  # four products of int8 by one instruction, two of int16, or one of int32
    amx: bool = False  # registers of 16 x 16 words are multiplied by one instruction, in bfloat16 and int8 (amx.py)


# The tile is two vectors wide everywhere: tile_rows x 2 accumulators, 2 vectors of B and 1 of A must fit the registers.
# Heads of 32 and 64 and all usual hidden sizes are multiples of two vectors, so that nothing is padded.
_AVX512 = InstructionSet("avx512", lanes=16, tile_rows=12, fma=True, bfloat16="widen", int8="pairs")  # 24 + 3 of 32
_AVX2 = InstructionSet("avx2", lanes=8, tile_rows=6, fma=True, bfloat16="widen", int8="pairs")  # 12 + 3 of 16
_AVX512_BF16 = _AVX512._replace(name="avx512-bf16", bfloat16="dot", int8="dot")
KNOWN = {
    "amx": _AVX512_BF16._replace(name="amx", amx=True),
    "avx512-bf16": _AVX512_BF16,
    "avx512-vnni": _AVX512._replace(name="avx512-vnni", int8="dot"),
    "avx512": _AVX512,
    "avx2-vnni": _AVX2._replace(name="avx2-vnni", int8="dot"),
    "avx2": _AVX2,
    "neon": InstructionSet("neon", 4, tile_rows=8, fma=True, bfloat16="widen", int8="widen"),  # 16 + 3 of 32
    "baseline": InstructionSet("baseline", 4, tile_rows=4, fma=False, bfloat16="widen", int8="widen"),  # 8 + 4 of 16
}
# What each instruction set needs; the first that the processor has is taken.
_AVX512_NEEDS = {"avx512f", "avx512vl", "avx512dq", "avx512bw", "avx2", "fma"}
_AVX512_BF16_NEEDS = {*_AVX512_NEEDS, "avx512vnni", "avx512bf16"}
_AMX_NEEDS = {*_AVX512_BF16_NEEDS, "amx-tile", "amx-bf16", "amx-int8"}
REQUIRED_FEATURES = {
    "amx": _AMX_NEEDS,
    "avx512-bf16": _AVX512_BF16_NEEDS,
    "avx512-vnni": {*_AVX512_NEEDS, "avx512vnni"},
    "avx512": _AVX512_NEEDS,
    "avx2-vnni": {"avx2", "fma", "avxvnni"},
    "avx2": {"avx2", "fma"},
    "neon": {"neon"},
}
# NUMBA_CPU_NAME makes Numba compile for another processor than this one; these are the names in use.
FEATURES_OF_CPU_NAME: dict[str, set[str]] = {
    "generic": set(),
    "x86-64": set(),
    "x86-64-v2": set(),
    "haswell": {"avx2", "fma"},
    "skylake": {"avx2", "fma"},
    "znver2": {"avx2", "fma"},
    "x86-64-v3": {"avx2", "fma"},
    "skylake-avx512": _AVX512_NEEDS,
    "x86-64-v4": _AVX512_NEEDS,
    "sapphirerapids": _AMX_NEEDS,
    "graniterapids": _AMX_NEEDS,
}


def usable_features() -> set[str]:
    """Names of the features that code may use here: this processor's, AMX only if the operating system grants it."""
    here = {feature for feature, present in llvm.get_host_cpu_features().items() if present}
    if "amx-tile" in here and not permission.request_amx():
        here.remove("amx-tile")
    return here


def target_features() -> set[str]:
    """Names of the features that Numba compiles for: those usable here, unless NUMBA_CPU_NAME or _FEATURES is set."""
    features = usable_features()
    if config.CPU_NAME not in (None, "host"):
        named = FEATURES_OF_CPU_NAME.get(config.CPU_NAME, set())
        features = named & features if config.CPU_FEATURES is None else named  # None: Numba takes this processor's
    changes = (config.CPU_FEATURES or "").split(",")
    added, removed = ({change[1:] for change in changes if change.startswith(sign)} for sign in "+-")
    return (features | added) - removed


def find_problem() -> str | None:
    """Return why code that is compiled now cannot be run on this machine, or None if it can."""
    known = {None, "host", llvm.get_host_cpu_name(), *FEATURES_OF_CPU_NAME}
    if config.CPU_NAME not in known and config.CPU_FEATURES is not None:  # without them, Numba takes this processor's
        return (
            f"NUMBA_CPU_NAME: found {config.CPU_NAME!r} with NUMBA_CPU_FEATURES={config.CPU_FEATURES!r}, expected one"
            f" of {sorted(FEATURES_OF_CPU_NAME)}, since of no other it is known what it has; unset both"
        )
    missing = target_features() - usable_features()
    if not missing:
        return None
    return (
        f"NUMBA_CPU_NAME, NUMBA_CPU_FEATURES: found {config.CPU_NAME!r}, {config.CPU_FEATURES!r}, expected no more than"
        f" this machine has; it lacks {', '.join(sorted(missing))}; unset them"
    )


def detect() -> InstructionSet:
    """Choose the instruction set: the best that the processor has, or the one that NUMBERT_ISA names.

    Raises
    ------
    ValueError
        When NUMBERT_ISA names an instruction set that is unknown or that this processor lacks.
    """
    features = target_features()
    usable = [name for name, required in REQUIRED_FEATURES.items() if required <= features] + ["baseline"]
    forced = os.environ.get("NUMBERT_ISA")
    if forced and forced not in usable:
        raise ValueError(
            f"NUMBERT_ISA: found {forced!r}, expected one of {usable} on this processor; unset it to choose the best"
        )
    return KNOWN[forced or usable[0]]


ISA = detect()
LANES = ISA.lanes
TILE_ROWS = ISA.tile_rows
TILE_WIDTH = 2 * LANES
