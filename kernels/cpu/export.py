"""Machine code for elsewhere: the kernels that Numba has compiled in this process, as one object file.

Each kernel gets an entry that C can call: a function of the address of 64-bit words, which frozen.py writes. An array
is the address of its first byte and its shape (it is C-contiguous, as all arrays here are), a record all its fields, a
number itself; None is nothing. What an entry returns is the kernel's result, as a 64-bit number.

Numba's own functions take arrays as seven words and more. Source: numba/core/datamodel/models.py and callconv.py of
numba 0.61 to 0.68. Tests hold the scores of frozen models, bit for bit, against those of models that are not.
"""

from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core.typing.templates import Signature

from .frozen import signature_of_array, signature_of_record, symbol_of
from .workspace import Kernels

WORD, POINTER, STATUS = ir.IntType(64), ir.PointerType(), ir.IntType(32)


def export(kernels: Kernels, cpu: str, features: str) -> bytes:
    """Return an object file with the entries of all kernels that have been compiled, and nothing else.

    Parameters
    ----------
    kernels : Kernels
        Of this process.
    cpu, features : str
        What LLVM is to compile for: its name of a processor, and features in LLVM's form ("+avx2,+fma").
    """
    entries: set[str] = set()
    together = llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"')
    wrappers = ir.Module("entries")
    for name, kernel in vars(kernels).items():
        for arguments, compiled in getattr(kernel, "overloads", {}).items():
            if any(isinstance(kind, types.Literal) for kind in arguments):  # for another kernel, which has it inside
                continue
            signature = ",".join(map(_signature, arguments))
            symbol = symbol_of(kernels.isa.name, name, signature)
            if symbol in entries:  # arrays that may be written and such that may not are of two types for Numba only
                continue
            entries.add(symbol)
            together.link_in(llvm.parse_assembly(str(compiled.library._final_module)))
            _wrap(wrappers, symbol, compiled.fndesc.llvm_func_name, compiled.signature)
    together.link_in(llvm.parse_assembly(str(wrappers)))
    for value in (*together.functions, *together.global_variables):
        if not value.is_declaration and value.name not in entries:
            value.linkage = "internal"
    return _compile(together, cpu, features)


def _compile(module: Any, cpu: str, features: str) -> bytes:
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(cpu=cpu, features=features, opt=3, reloc="pic", codemodel="default")
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()  # what only Python would call
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3)))
    module.verify()
    code: bytes = machine.emit_object(module)
    return code


# ---- signatures


def _signature(kind: Any) -> str:
    """Return what frozen.py writes for an argument of this type."""
    if isinstance(kind, types.Array):
        if kind.layout != "C":
            raise TypeError(f"a kernel was compiled for an array that is not contiguous: {kind}")
        return signature_of_array(str(kind.dtype), kind.ndim)
    if isinstance(kind, types.BaseTuple):
        name = kind.instance_class.__name__ if isinstance(kind, types.BaseNamedTuple) else ""
        return signature_of_record(name, map(_signature, kind))
    for python, numba_type in (("int", types.int64), ("float", types.float64), ("None", types.none)):
        if kind == numba_type:
            return python
    raise TypeError(f"a kernel was compiled for an argument that frozen kernels do not take: {kind}")


# ---- entries


def _wrap(module: Any, symbol: str, function: str, signature: Signature) -> None:
    """Define the entry of a kernel."""
    entry = ir.Function(module, ir.FunctionType(WORD, [POINTER]), symbol)
    builder = ir.IRBuilder(entry.append_basic_block())
    words = _Words(builder, entry.args[0])
    arguments = [value for kind in signature.args for value in _unpack(kind, words)]
    result = builder.alloca(WORD)
    builder.store(WORD(0), result)
    # The result's place and that of an exception come first; kernels raise nothing, and the status is always 0.
    parameters = [POINTER, POINTER, *(value.type for value in arguments)]
    kernel = ir.Function(module, ir.FunctionType(STATUS, parameters), function)
    builder.call(kernel, [result, builder.alloca(POINTER), *arguments])
    builder.ret(builder.load(result, typ=WORD))


class _Words:
    """The words that an entry is given, read one after the other."""

    def __init__(self, builder: Any, first: Any) -> None:
        self.builder = builder
        self._first = first
        self._next = 0

    def read(self, kind: Any = WORD) -> Any:
        place = self.builder.gep(self._first, [WORD(self._next)], source_etype=WORD)
        self._next += 1
        return self.builder.load(place, typ=kind)


def _unpack(kind: Any, words: _Words) -> Iterator[Any]:
    """Emit what Numba's function takes for an argument."""
    if isinstance(kind, types.BaseTuple):
        for part in kind:
            yield from _unpack(part, words)
    elif isinstance(kind, types.Array):
        yield from _unpack_array(kind, words)
    elif kind == types.none:
        yield POINTER(None)
    else:
        yield words.read(ir.DoubleType() if kind == types.float64 else WORD)


def _unpack_array(kind: Any, words: _Words) -> Iterator[Any]:
    builder, bytes_of_item = words.builder, kind.dtype.bitwidth // 8
    data, shape = words.read(POINTER), [words.read() for _ in range(kind.ndim)]
    strides: list[Any] = []
    size = WORD(1)
    for length in reversed(shape):
        strides.insert(0, builder.mul(size, WORD(bytes_of_item)))
        size = builder.mul(size, length)
    yield from (POINTER(None), POINTER(None), size, WORD(bytes_of_item), data, *shape, *strides)
