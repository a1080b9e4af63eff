"""Kernels out of a shared library that export.py and a linker made: neither Numba nor LLVM is in the process.

The symbol of a kernel says what it is for, and a library is asked for it when it is first called: what was made for
other arguments or for another instruction set has another symbol, and is not found.

A kernel is called by ctypes, which lets other threads run meanwhile, with the address of the words of its arguments;
export.py says what they are. Those of weights are worked out once, those of buffers while these are the same objects.
"""

import ctypes
import hashlib
import struct
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .instruction_sets import InstructionSet
from .workspace import Kernels

Words = tuple[str, bytes]  # the signature of an argument, and its words
INTEGER, FLOAT = struct.Struct("=q").pack, struct.Struct("=d").pack
ADDRESS_AND_SHAPE = [struct.Struct(f"={1 + dimensions}q").pack for dimensions in range(5)]
BYTE = ctypes.c_char
SMALL = range(257)  # numbers of which Python has one object each


def signature_of_array(dtype: str, dimensions: int) -> str:
    """Return how the type of an array is written."""
    return f"{dtype}[{dimensions}]"


def signature_of_record(name: str, fields: Iterable[str]) -> str:
    """Return how the type of a record, or of a tuple without a name, is written."""
    return f"{name}({','.join(fields)})"


def symbol_of(isa: str, kernel: str, signature: str) -> str:
    """Return the symbol of a kernel that was compiled for an instruction set and for arguments of a signature."""
    return f"numbert_{kernel}_{hashlib.sha256(f'{isa} {signature}'.encode()).hexdigest()[:16]}"


class Library:
    """The kernels of a shared library.

    Parameters
    ----------
    path : str
        Of the library. Whoever calls has seen that it is what was made, and that the processor has what it needs.
    isa : InstructionSet
        That it was compiled for.
    error : type
        The class of what is raised when it cannot be loaded, or lacks a kernel.
    """

    def __init__(self, path: str, isa: InstructionSet, error: type[Exception]) -> None:
        self._path, self._isa, self._error = path, isa.name, error
        try:
            self._library = ctypes.CDLL(path)
        except OSError as problem:
            raise error(
                f"{path}: found a library that cannot be loaded ({problem}), expected one that fits this system;"
                " freeze the model again, on a system like this one"
            ) from problem
        # The words of objects by their id: of arrays as long as they are there, of others for good
        self._known: dict[int, Words] = {id(number): ("int", INTEGER(number)) for number in SMALL}
        self._known[id(None)] = "None", b""
        self._references: dict[int, _Reference] = {}
        self._held: list[Any] = []
        self._lent: dict[tuple[Any, ...], Words] = {}  # of records by their class and the ids of what is known in them
        self._records_with: dict[int, list[tuple[Any, ...]]] = {}  # keys of those by the ids of the arrays in them
        self._arrays: dict[tuple[Any, ...], str] = {}  # signatures of arrays by dtype and number of dimensions
        self._records: dict[tuple[Any, ...], str] = {}  # signatures of records by their class and those of the fields
        names = [name for name in Kernels.__dataclass_fields__ if name != "isa"]
        self.kernels = Kernels(isa, *map(self._kernel, names))
        self._find("arrive", (signature_of_array("int64", 1),))  # which each has: that of another set is told now

    def hold(self, record: Any) -> None:
        """Keep the words of weights, of this record and of all records within, as long as the library is there."""
        if isinstance(record, tuple):
            for field in record:
                self.hold(field)
            if _is_argument(record):
                self._held.append(record)
                self._known[id(record)] = self._describe(record)

    def _kernel(self, name: str) -> Callable[..., int]:
        functions: dict[tuple[str, ...], Any] = {}
        known, describe, join = self._known.get, self._describe, b"".join

        def call(*arguments: Any) -> int:
            parts = [known(id(argument)) or describe(argument) for argument in arguments]
            signature = tuple([part[0] for part in parts])
            function = functions.get(signature)
            if function is None:
                functions[signature] = function = self._find(name, signature)
            result: int = function(join([part[1] for part in parts]))
            return result

        return call

    def _find(self, kernel: str, signature: tuple[str, ...]) -> Any:
        symbol = symbol_of(self._isa, kernel, ",".join(signature))
        try:
            function = self._library[symbol]
        except AttributeError as problem:
            raise self._error(
                f"{self._path}: found no kernel {symbol}, expected {kernel} of {', '.join(signature)} for {self._isa};"
                " freeze the model again"
            ) from problem
        function.argtypes, function.restype = [ctypes.c_char_p], ctypes.c_int64
        return function

    def _describe(self, argument: Any) -> Words:
        """Find the signature and the words of an argument."""
        if isinstance(argument, int):
            return "int", INTEGER(argument)
        if isinstance(argument, np.ndarray):
            return self._know(argument)
        if isinstance(argument, float):
            return "float", FLOAT(argument)
        key = type(argument), *map(id, argument)
        lent = self._lent.get(key)
        if lent is not None:
            return lent
        parts = [self._known.get(id(field)) or self._describe(field) for field in argument]
        kinds = tuple([part[0] for part in parts])
        signature = self._records.get((type(argument), kinds))
        if signature is None:
            name = type(argument).__name__ if hasattr(argument, "_fields") else ""
            self._records[type(argument), kinds] = signature = signature_of_record(name, kinds)
        words = signature, b"".join([part[1] for part in parts])
        if all(id(field) in self._known for field in argument):
            self._lent[key] = words
            for field in argument:
                if id(field) in self._references:
                    self._records_with.setdefault(id(field), []).append(key)
        return words

    def _know(self, array: np.ndarray[Any, Any]) -> Words:
        """Find the address and the shape of an array, and keep them until it is gone."""
        if not array.flags.c_contiguous:  # its words say nothing of strides
            raise ValueError(f"found an array with strides {array.strides}, expected one that is C-contiguous; copy it")
        if array.size and array.flags.writeable:
            address = ctypes.addressof(BYTE.from_buffer(array.data))
        else:  # takes a microsecond longer
            address = array.ctypes.data
        shape, key = array.shape, id(array)
        kind = self._arrays.get((array.dtype, len(shape)))
        if kind is None:
            self._arrays[array.dtype, len(shape)] = kind = signature_of_array(array.dtype.name, len(shape))
        words = kind, ADDRESS_AND_SHAPE[len(shape)](address, *shape)
        self._known[key] = words
        self._references[key] = reference = _Reference(array, self._forget)
        reference.key = key
        return words

    def _forget(self, reference: "_Reference") -> None:
        """Drop the words of an array that is about to be gone: another object may get its id."""
        del self._known[reference.key], self._references[reference.key]
        for key in self._records_with.pop(reference.key, ()):
            self._lent.pop(key, None)


class _Reference(weakref.ref[np.ndarray[Any, Any]]):
    """A weak reference that knows the id of its array, which it cannot ask for any more at its end."""

    __slots__ = ("key",)
    key: int


def _is_argument(record: Any) -> bool:
    """Return whether all of a record could be given to a kernel: text could not."""
    return all(
        field is None
        or isinstance(field, (int, float, np.ndarray))
        or (isinstance(field, tuple) and _is_argument(field))
        for field in record
    )
