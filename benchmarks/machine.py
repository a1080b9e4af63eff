"""What this processor can do, measured and looked up; and forcing all engines to a lower instruction set."""

import os
import sys

import llvmlite.binding as llvm
from numbert.kernels.cpu import processor

# The features that decide how fast float32, bfloat16 and int8 products can be, in LLVM's spelling.
FEATURES = (
    "avx2", "fma", "avxvnni", "avx512f", "avx512vnni", "avx512bf16", "avx512fp16", "amx-tile", "amx-bf16", "amx-int8",
    "neon", "dotprod", "i8mm", "bf16", "sve",
)  # fmt: skip

# What makes numbert, OpenVINO and torch compute as on a processor with AVX2 and no more. Found by timing on an AVX-512
# processor of AMD: with it OpenVINO's float32 takes 1.4 times as long and torch's bfloat16 10 times; torch's float32
# (MKL) and int8 (FBGEMM) and all of ONNX Runtime take as long as without.
AVX2_ENVIRONMENT = {
    "NUMBA_CPU_NAME": "haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def processor_features() -> list[str]:
    """Name the features of FEATURES that this processor has."""
    present = {name for name, is_there in llvm.get_host_cpu_features().items() if is_there} | processor.features()
    return [name for name in FEATURES if name in present]


def restart_with_avx2() -> None:
    """Start this program anew with AVX2_ENVIRONMENT, unless it is set: libraries read it when they are loaded."""
    if AVX2_ENVIRONMENT.items() <= os.environ.items():
        return
    os.execve(sys.executable, sys.orig_argv, os.environ | AVX2_ENVIRONMENT)
