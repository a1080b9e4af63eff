"""A pytest plugin: the kernels for AMX on a processor without it, each instruction replaced by a call of a function.

    NUMBERT_ISA=amx PYTHONPATH=tests python -m pytest -p amx_emulation tests/test_cpu_kernels.py

Everything but the instructions is then the code that runs on AMX: packing, layout of the operands, loops, strides, what
is stored. What the instructions do was written from the Intel 64 and IA-32 Architectures Software Developer's Manual,
volume 2 (LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS, TDPBUSD). That the real ones are emitted is shown in test_amx.py.
"""

import ctypes
import os
import sys
import threading

os.environ["NUMBERT_CACHE_DIR"] = "off"  # machine code with addresses of this process in it

import numpy as np
from llvmlite import binding, ir
from numba import carray, cfunc, types
from numba.core import cgutils
from numbert.kernels.cpu import permission

AMX = {"amx-tile": True, "amx-bf16": True, "amx-int8": True}
_features = binding.get_host_cpu_features()


class _Features(type(_features)):
    """This processor's features, and AMX for whoever asks; LLVM is told the truth."""

    def items(self):
        return {**self, **AMX}.items()


binding.get_host_cpu_features = lambda: _Features(_features)
permission.request_amx = lambda: True

from numbert.kernels.cpu import amx  # noqa: E402 - after the features have been changed

ROWS, ROW_BYTES = 16, 64
pointer, number = types.voidptr, types.int64
configured = set()  # threads


@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
def ldtilecfg(registers, source):
    rows, row_bytes = np.zeros(16, np.uint8), np.zeros(16, "<u2")
    rows[:8], row_bytes[:8] = ROWS, ROW_BYTES
    expected = bytes([1] + [0] * 15) + row_bytes.tobytes() + rows.tobytes()
    if ctypes.string_at(source, 64) != expected:
        _end(f"LDTILECFG: found {ctypes.string_at(source, 64)!r}, expected {expected!r}")
    configured.add(threading.get_ident())


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def tilerelease(registers):
    if threading.get_ident() not in configured:
        _end("TILERELEASE without LDTILECFG")
    configured.remove(threading.get_ident())


def _end(message):
    """End the tests: an exception would be lost in machine code."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
    os._exit(1)


@cfunc(types.void(pointer, types.int8, pointer, number))
def tileloadd64(registers, register, source, stride):
    target = carray(registers, (8, ROWS, ROW_BYTES), types.uint8)
    data = carray(source, ((ROWS - 1) * stride + ROW_BYTES,), types.uint8)
    for row in range(ROWS):
        target[register, row] = data[row * stride : row * stride + ROW_BYTES]


@cfunc(types.void(pointer, types.int8, pointer, number))
def tilestored64(registers, register, target, stride):
    source = carray(registers, (8, ROWS, ROW_BYTES), types.uint8)
    data = carray(target, ((ROWS - 1) * stride + ROW_BYTES,), types.uint8)
    for row in range(ROWS):
        data[row * stride : row * stride + ROW_BYTES] = source[register, row]


@cfunc(types.void(pointer, types.int8, types.int8, types.int8))
def tdpbf16ps(registers, c, a, b):
    """Two chains of sums in float32, of the even and the odd k, then added together, then to C."""
    halves = carray(registers, (8, ROWS, 32), types.uint16)
    sums = carray(registers, (8, ROWS, 16), types.float32)
    factor = np.zeros(4, np.uint32)
    values = factor.view(np.float32)
    for row in range(ROWS):
        for column in range(16):
            even = odd = np.float32(0)
            for k in range(16):
                factor[0] = np.uint32(halves[a, row, 2 * k]) << 16
                factor[1] = np.uint32(halves[b, k, 2 * column]) << 16
                factor[2] = np.uint32(halves[a, row, 2 * k + 1]) << 16
                factor[3] = np.uint32(halves[b, k, 2 * column + 1]) << 16
                even += values[0] * values[1]
                odd += values[2] * values[3]
            sums[c, row, column] += even + odd


@cfunc(types.void(pointer, types.int8, types.int8, types.int8))
def tdpbusd(registers, c, a, b):
    """Unsigned bytes of A times signed bytes of B."""
    unsigned = carray(registers, (8, ROWS, ROW_BYTES), types.uint8)
    signed = carray(registers, (8, ROWS, ROW_BYTES), types.int8)
    sums = carray(registers, (8, ROWS, 16), types.int32)
    for row in range(ROWS):
        for column in range(16):
            total = np.int32(0)
            for k in range(16):
                for byte in range(4):
                    total += np.int32(unsigned[a, row, 4 * k + byte]) * np.int32(signed[b, k, 4 * column + byte])
            sums[c, row, column] += total


for _function in (tileloadd64, tilestored64, tdpbf16ps, tdpbusd):
    binding.add_symbol(f"emulated_{_function.__name__}", _function.address)
for _name, _callback in (("ldtilecfg", ldtilecfg), ("tilerelease", tilerelease)):
    binding.add_symbol(f"emulated_{_name}", ctypes.cast(_callback, ctypes.c_void_p).value)

_registers = {}  # of each function that is compiled: what is in the registers passes within it


def instruction(builder, name, args):
    function = builder.function
    if function not in _registers:
        with builder.goto_entry_block():
            _registers[function] = cgutils.alloca_once(builder, ir.IntType(8), size=ir.IntType(32)(8 * 1024))
    values = [_registers[function], *args]
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"emulated_{name}"), values)


amx.instruction = instruction
