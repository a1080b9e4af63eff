"""The safetensors format: where the tensors of a file lie, proven before any of them is read.

A file is: 8 bytes, the length of the header as a little-endian integer; the header, a JSON object of tensor names, each
with "dtype", "shape" and "data_offsets" [first byte, byte after the last], counted from the end of the header, and
perhaps "__metadata__"; and the data, which the tensors cover without a gap or an overlap.

The safetensors library itself is not used here, because it opens files by name (another file may lie there by then) and
maps them into memory (a file that shrinks then ends the process). Tests hold this file against the library.
"""

import json
import math
import struct
from typing import Any, NamedTuple

import numpy as np

from .errors import WeightsError, shown
from .files import OpenFile

LARGEST_HEADER = 4 * 2**20  # bytes; a BERT has fewer than 600 tensors, about 60 kB of header
MOST_DIMENSIONS = 8
LENGTH = struct.Struct("<Q")
STORED_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# Bits of a number of the other dtypes, so that a file which has some is whole or damaged and not merely unknown.
OTHER_DTYPES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("I32", "U32"), 32),
    **dict.fromkeys(("I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
BITS = {**OTHER_DTYPES, **{name: 8 * dtype.itemsize for name, dtype in STORED_DTYPES.items()}}


class StoredTensor(NamedTuple):
    """Where a tensor lies."""

    file: OpenFile
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # first byte in the file
    stop: int

    @property
    def place(self) -> str:
        """File and name, for messages."""
        return f"{self.file.path}: tensor {shown(self.name)}"


def read_header(file: OpenFile) -> list[StoredTensor]:
    """Return where the tensors of a file lie.

    Raises
    ------
    WeightsError
        When the file is no safetensors file, or its header says anything that cannot be true.
    """
    length = _header_length(file)
    content = bytearray(length)
    if file.read_into(memoryview(content), LENGTH.size) < length:
        raise _damaged(file, f"its header ends before its {length} bytes")
    try:
        entries = json.loads(content.decode(), object_pairs_hook=_without_duplicates)
    except ValueError as error:
        raise _damaged(file, f"its header is no valid JSON: {error}") from error
    except RecursionError as error:
        raise WeightsError(
            f"{file.path}: found a header that is nested deeper than the call stack has room, expected three levels;"
            " choose another model, or load it from a function that is not called so deep in a recursion"
        ) from error
    if not isinstance(entries, dict):
        raise _damaged(file, f"its header is a JSON {type(entries).__name__}")
    entries.pop("__metadata__", None)
    first = LENGTH.size + length
    tensors = [_read_entry(file, name, entry, first) for name, entry in entries.items()]
    _check_coverage(file, tensors, first)
    return tensors


def _header_length(file: OpenFile) -> int:
    start = bytearray(64)
    found = bytes(start[: file.read_into(memoryview(start), 0)])
    length = LENGTH.unpack_from(found)[0] if len(found) >= LENGTH.size else 0
    if not 2 <= length <= LARGEST_HEADER:
        raise WeightsError(
            f"{file.path}: found {_describe(file, found)}, expected a safetensors file; download it again"
        )
    return int(length)


def _describe(file: OpenFile, start: bytes) -> str:
    """Say what a file that is no safetensors file looks like."""
    if start.startswith(b"version"):
        return "a Git LFS pointer (the file itself was never fetched)"
    if start.lstrip().startswith(b"<"):
        return "a web page (an error page saved as the file)"
    if start.startswith((b"PK", b"\x80")):
        return "a pickle or zip file, which is never loaded"
    return f"{file.size} bytes that begin with {start[:8]!r}"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    return result


def _read_entry(file: OpenFile, name: str, entry: Any, first: int) -> StoredTensor:
    """Check what the header says of one tensor by itself."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise _damaged(file, f"tensor {shown(name)} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise WeightsError(
            f"{file.path}: tensor {shown(name)}: found dtype {dtype!r:.40}, expected one of {sorted(STORED_DTYPES)};"
            " convert the model"
        )
    if not _all_counts(shape) or len(shape) > MOST_DIMENSIONS or not _all_counts(offsets) or len(offsets) != 2:
        raise _damaged(file, f"tensor {shown(name)} has a shape or data_offsets that are no lists of counts")
    start, stop = offsets
    if math.prod(shape) * BITS[dtype] != (stop - start) * 8:
        raise _damaged(file, f"tensor {shown(name)} has {stop - start} bytes, its shape and dtype need another number")
    return StoredTensor(file, name, dtype, tuple(shape), first + start, first + stop)


def _all_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _check_coverage(file: OpenFile, tensors: list[StoredTensor], first: int) -> None:
    """Prove that the tensors cover the data: each begins where the one before it ends, the last ends the file."""
    end = first
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != end:
            raise _damaged(
                file, f"tensor {shown(tensor.name)} begins at byte {tensor.start}, the data before it ends at {end}"
            )
        end = tensor.stop
    if end != file.size:
        raise _damaged(file, f"its tensors end at byte {end} of {file.size}")


def _damaged(file: OpenFile, problem: str) -> WeightsError:
    return WeightsError(
        f"{file.path}: found a damaged safetensors file ({problem}), expected a whole one; download it again"
    )
