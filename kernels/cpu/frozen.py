"""Kernels out of a shared library that export.py and a linker made: neither Numba nor LLVM is in the process.

A kernel is called by ctypes, which lets other threads run meanwhile, with the address of the words of its arguments;
export.py says what they are. Those of weights are worked out once, those of buffers while these are the same objects.
"""

import ctypes
import struct
import weakref
from collections.abc import Callable, Iterable, Mapping
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


class Library:
    """The kernels of a shared library.

    Parameters
    ----------
    path : str
        Of the library. Whoever calls has seen that it is what was made, and that the processor has what it needs.
    entries : mapping
        For the name of each kernel, the symbol for each signature.
    isa : InstructionSet
        That it was compiled for.
    """

    def __init__(self, path: str, entries: Mapping[str, Mapping[str, str]], isa: InstructionSet) -> None:
        self._library = ctypes.CDLL(path)
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
        self.kernels = Kernels(isa, *(self._kernel(name, entries.get(name, {})) for name in names))

    def hold(self, record: Any) -> None:
        """Keep the words of weights, of this record and of all records within, as long as the library is there."""
        if isinstance(record, tuple):
            for field in record:
                self.hold(field)
            if _is_argument(record):
                self._held.append(record)
                self._known[id(record)] = self._describe(record)

    def _kernel(self, name: str, symbols: Mapping[str, str]) -> Callable[..., int]:
        functions: dict[tuple[str, ...], Any] = {}
        for written, symbol in symbols.items():
            functions[tuple(split_signature(written))] = function = getattr(self._library, symbol)
            function.argtypes, function.restype = [ctypes.c_char_p], ctypes.c_int64
        known, describe, join = self._known.get, self._describe, b"".join

        def call(*arguments: Any) -> int:
            parts = [known(id(argument)) or describe(argument) for argument in arguments]
            function = functions.get(tuple([part[0] for part in parts]))
            if function is None:
                raise TypeError(f"{name}: found {[part[0] for part in parts]}, expected one of {list(symbols)}")
            result: int = function(join([part[1] for part in parts]))
            return result

        return call

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
        assert array.flags.c_contiguous
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


def split_signature(signature: str) -> list[str]:
    """Return the signatures of the single arguments."""
    parts, depth = [""], 0
    for letter in signature:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _is_argument(record: Any) -> bool:
    """Return whether all of a record could be given to a kernel: text could not."""
    return all(
        field is None
        or isinstance(field, (int, float, np.ndarray))
        or (isinstance(field, tuple) and _is_argument(field))
        for field in record
    )
