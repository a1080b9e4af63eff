"""What this processor can do, decided once per process.

Kernels are compiled for one instruction set of those in instruction_sets.py; this file chooses it for the processor.
The environment variable ``NUMBERT_ISA`` forces a lower one than the processor has, so that tests can run every code
path on one machine.
"""

import os

import llvmlite.binding as llvm
from numba import config

from . import permission, processor
from .instruction_sets import AMX_NEEDS, AVX512_NEEDS, KNOWN, REQUIRED_FEATURES, InstructionSet

# NUMBA_CPU_NAME makes Numba compile for another processor than this one; these are the names in use.
FEATURES_OF_CPU_NAME: dict[str, set[str]] = {
    "generic": set(),
    "x86-64": set(),
    "x86-64-v2": set(),
    "haswell": {"avx2", "fma"},
    "skylake": {"avx2", "fma"},
    "znver2": {"avx2", "fma"},
    "x86-64-v3": {"avx2", "fma"},
    "skylake-avx512": AVX512_NEEDS,
    "x86-64-v4": AVX512_NEEDS,
    "sapphirerapids": AMX_NEEDS,
    "graniterapids": AMX_NEEDS,
    "cortex-a53": {"neon"},
    "cortex-a72": {"neon"},
    "cortex-a76": {"neon", "dotprod"},
    "neoverse-n1": {"neon", "dotprod"},
    "neoverse-v1": {"neon", "dotprod", "i8mm", "bf16"},
    "neoverse-n2": {"neon", "dotprod", "i8mm", "bf16"},
    "apple-m1": {"neon", "dotprod"},
    "apple-m2": {"neon", "dotprod", "i8mm", "bf16"},
}


def usable_features() -> set[str]:
    """Names of the features that code may use here: this processor's, AMX only if the operating system grants it."""
    here = {feature for feature, present in llvm.get_host_cpu_features().items() if present}
    if processor.is_arm():  # of which LLVM knows little
        here |= processor.features()
    if "amx-tile" in here and not permission.request_amx():
        here.remove("amx-tile")
    return here


def target_features() -> set[str]:
    """Names of the features that Numba compiles for: those usable here, unless NUMBA_CPU_NAME or _FEATURES is set."""
    features = usable_features()
    if config.CPU_NAME not in (None, "host"):
        always = processor.ARCHITECTURE if processor.is_arm() else frozenset()  # whatever the name
        named = FEATURES_OF_CPU_NAME.get(config.CPU_NAME, set()) | always
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
TILE_WIDTH = ISA.tile_width
