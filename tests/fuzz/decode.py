"""A second decoding of safetensors files, by json, struct and NumPy alone; strict."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1}


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header as JSON, and the data behind it."""
    (size,) = struct.unpack("<Q", content[:8])
    if size > len(content) - 8:
        raise ValueError("the header is longer than the file")
    return json.loads(content[8 : 8 + size], object_pairs_hook=_no_name_twice), content[8 + size :]


def decode(path: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a file: floats of up to 32 bits as float32, anything else as bytes.

    Raises
    ------
    ValueError
        When the file is not as the format's specification has it.
    """
    header, data = split(path.read_bytes())
    header.pop("__metadata__", None)
    tensors, covered = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if start != covered or stop - start != BYTES[entry["dtype"]] * math.prod(entry["shape"]):
            raise ValueError(f"{name}: offsets {start} to {stop} leave a hole, overlap, or do not fit the shape")
        covered = stop
        tensors[name] = _widen(data[start:stop], entry["dtype"])
        if tensors[name].dtype == np.float32:
            tensors[name] = tensors[name].reshape(entry["shape"])
    if covered != len(data):
        raise ValueError("bytes that belong to no tensor")
    return tensors


def _widen(raw: bytes, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") * np.uint32(65536)).view("<f4")
    if dtype not in ("F32", "F16"):
        return np.frombuffer(raw, np.uint8)
    return np.frombuffer(raw, "<f4" if dtype == "F32" else "<f2").astype(np.float32)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)
