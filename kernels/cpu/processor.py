"""What this processor has, as the operating system tells it; free of Numba and LLVM.

Names of features are LLVM's, which isa.py uses too. LLVM itself asks an x86-64 processor by an instruction. An ARM's
features it reads from /proc/cpuinfo, where it knows few names, or on macOS not at all: so there the system is asked.
"""

import ctypes
import platform
import sys
from collections.abc import Callable
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Linux writes some of x86-64's features otherwise than LLVM. Source: Linux, arch/x86/include/asm/cpufeatures.h
OF_CPUINFO = {
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512vl": "avx512vl",
    "avx512dq": "avx512dq",
    "avx512bw": "avx512bw",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx_vnni": "avxvnni",
    "amx_tile": "amx-tile",
    "amx_bf16": "amx-bf16",
    "amx_int8": "amx-int8",
}
# Linux gives every ARM program two words of bits. Source: Linux, arch/arm64/include/uapi/asm/hwcap.h
AT_HWCAP, AT_HWCAP2 = 16, 26
OF_HWCAP = {20: "dotprod"}
OF_HWCAP2 = {13: "i8mm", 14: "bf16"}
# Source: Apple, "Determining instruction set characteristics"; a name that a system does not know is a feature it lacks
OF_SYSCTL = {
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
}
ARCHITECTURE = frozenset({"neon"})  # what every 64-bit ARM has


def features() -> frozenset[str]:
    """Return what this processor has, as the operating system tells.

    Only the features that instruction sets here are made of, and only where the system is asked: Linux on x86-64 and
    ARM, macOS on ARM. On other systems it is what the architecture promises. AMX counts as there when the processor has
    it; whether this process may use it is another question (permission.py).
    """
    if is_arm():
        if sys.platform == "darwin":
            return from_sysctl(_read_sysctl)
        if sys.platform == "linux":
            return from_hwcap(_read_auxiliary(AT_HWCAP), _read_auxiliary(AT_HWCAP2))
        return ARCHITECTURE
    try:
        return from_cpuinfo(CPUINFO.read_text(errors="replace"))
    except OSError:
        return frozenset()


def is_arm() -> bool:
    """Return whether this is 64-bit ARM code. (A 32-bit program on a 64-bit system has other words of bits.)"""
    return platform.machine().lower() in ("aarch64", "arm64") and sys.maxsize > 2**32


def from_cpuinfo(text: str) -> frozenset[str]:
    """Return the features in an x86-64 processor's /proc/cpuinfo, of its first core: Linux runs no unlike ones."""
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    return frozenset(OF_CPUINFO[flag] for flag in flags if flag in OF_CPUINFO)


def from_hwcap(first: int, second: int) -> frozenset[str]:
    """Return the features in an ARM's HWCAP and HWCAP2."""
    found = {name for bit, name in OF_HWCAP.items() if first >> bit & 1}
    return ARCHITECTURE | found | {name for bit, name in OF_HWCAP2.items() if second >> bit & 1}


def from_sysctl(read: Callable[[str], int]) -> frozenset[str]:
    """Return the features for whose names `read` answers 1."""
    return ARCHITECTURE | {feature for name, feature in OF_SYSCTL.items() if read(name) == 1}


def _read_auxiliary(kind: int) -> int:
    """Return an entry of what Linux hands to a program when it starts; 0 where there is none."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return int(getauxval(kind))


def _read_sysctl(name: str) -> int:
    """Return a whole number that macOS keeps under a name; 0 where it keeps none."""
    value = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return value.value
