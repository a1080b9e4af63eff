"""Leave to use AMX. Linux grants it to a process that asks, since the registers add 8 KiB to the state of a thread.

The grant holds for all threads of the process and for its children. Without it, the first AMX instruction would end
the process.
"""

import ctypes
import platform
import sys

# Source: Linux, Documentation/arch/x86/xstate.rst
SYS_ARCH_PRCTL = 158  # on x86-64
ARCH_REQ_XCOMP_PERM = 0x1023
XFEATURE_XTILEDATA = 18


def request_amx() -> bool:
    """Ask for the use of AMX, and return whether it is granted. (It is not on kernels before 5.16.)"""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None).syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0
