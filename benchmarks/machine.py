"""What this processor can do, measured and looked up; and forcing all engines to a lower instruction set."""

import os
import sys
import time

import llvmlite.binding as llvm
from peak import FLOP, run_chains, start_values

# The features that decide how fast float32, bfloat16 and int8 products can be, in LLVM's spelling.
FEATURES = (
    "avx2", "fma", "avxvnni", "avx512f", "avx512vnni", "avx512bf16", "avx512fp16", "amx-tile", "amx-bf16", "amx-int8",
    "neon", "dotprod", "i8mm", "bf16", "sve",
)  # fmt: skip
PEAK_SAMPLES = 40  # of some tens of milliseconds together; the best counts, it is a limit

# What makes each library compute as on a processor with AVX2 and no more. MKL heeds its variable on Intel only.
AVX2_ENVIRONMENT = {
    "NUMBA_CPU_NAME": "haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def processor_features() -> list[str]:
    """Name the features of FEATURES that this processor has."""
    present = llvm.get_host_cpu_features()
    return [name for name in FEATURES if present.get(name)]


def measure_peak() -> float:
    """Return the most GFLOP/s of float32 multiply-adds that one core has shown."""
    data = start_values()
    run_chains(data)  # compiles
    best = float("inf")
    for _ in range(PEAK_SAMPLES):
        start = time.perf_counter()
        run_chains(data)
        best = min(best, time.perf_counter() - start)
    return FLOP / best / 1e9


def restart_with_avx2() -> None:
    """Start this program anew with AVX2_ENVIRONMENT, unless it is set: libraries read it when they are loaded."""
    if AVX2_ENVIRONMENT.items() <= os.environ.items():
        return
    os.execve(sys.executable, sys.orig_argv, os.environ | AVX2_ENVIRONMENT)
