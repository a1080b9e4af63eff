"""From safetensors files to float32 arrays under canonical names.

The safetensors library checks the format of a file's header: sizes, overlaps, holes, overflow. This file then proves,
before any array is made, that the tensors are exactly those that the configuration promises; and reads one tensor at a
time when it is asked for, from an open file and not from a memory map (which ends the process when a file shrinks).
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import float32
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from .encoder_names import TensorTable
from .errors import WeightsError
from .spec import read_json

LARGEST_HEADER = 4 * 2**20  # bytes; a BERT has fewer than 600 tensors, about 60 kB of header
STORED_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
INDEX = "model.safetensors.index.json"


class StoredTensor(NamedTuple):
    """Where a tensor lies."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # first byte in the file
    stop: int


class Weights(Mapping[str, NDArray[float32]]):
    """The checkpoint's tensors by canonical name; each is read and widened to float32 when it is asked for."""

    def __init__(self, tensors: dict[str, StoredTensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> NDArray[float32]:
        return _read(self._tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def num_parameters(self) -> int:
        """Return how many numbers the tensors hold."""
        return sum(math.prod(tensor.shape) for tensor in self._tensors.values())

    def stored_dtypes(self) -> list[str]:
        """Return the dtypes found in the files."""
        return sorted({tensor.dtype for tensor in self._tensors.values()})


def open_weights(folder: Path, table: TensorTable, ignored: tuple[str, ...]) -> Weights:
    """Find every tensor of the table in the folder's safetensors files.

    Parameters
    ----------
    folder : Path
        Holds model.safetensors, or model.safetensors.index.json and the files that it names.
    table : dict
        What must be there, and in which shape.
    ignored : tuple of str
        Beginnings of names that may be there and are not needed.

    Raises
    ------
    WeightsError
        When a file is damaged, or a tensor is missing, unexpected, of another shape or of a dtype that is not float.
    """
    files = weight_files(folder)
    stored: dict[str, StoredTensor] = {}
    for path in files:
        for tensor in _read_header(path):
            name = _modern_name(tensor.name)
            if name in stored:
                raise WeightsError(
                    f"{path}: tensor {tensor.name}: found again, expected once; it is also in {stored[name].path}"
                )
            stored[name] = tensor
    where = files[0] if len(files) == 1 else folder / INDEX
    _check_names(where, set(stored), {theirs for theirs, _ in table.values()}, ignored)
    for theirs, shape in table.values():
        _check_tensor(stored[theirs], shape)
    return Weights({ours: stored[theirs] for ours, (theirs, _) in table.items()})


def _modern_name(name: str) -> str:
    """Translate the names that TensorFlow gave to the parameters of LayerNorm."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(f"LayerNorm{old}"):
            return name.removesuffix(old) + new
    return name


def weight_files(folder: Path) -> list[Path]:
    """Return model.safetensors, or else the shards that the index names.

    Raises
    ------
    WeightsError, ConfigError
        When the index is damaged, names anything but files of the folder, or a file that is not there.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / INDEX
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(
            f"{index}: found no weight_map, expected an object of tensor names and files; download it again"
        )
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        # A path would let a downloaded model read files elsewhere on this machine.
        if name != os.path.basename(name) or "\\" in name or not name.endswith(".safetensors"):
            raise WeightsError(
                f"{index}: weight_map: found file {name!r}, expected a plain name ending in .safetensors;"
                " do not trust this model"
            )
        if not (folder / name).is_file():
            raise WeightsError(
                f"{index}: weight_map: names {name}, which is not in the folder; download the model again"
            )
    return [folder / name for name in names]


def _read_header(path: Path) -> list[StoredTensor]:
    """Let the safetensors library check the file, then return where its tensors lie."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > LARGEST_HEADER:
                raise WeightsError(
                    f"{path}: found {_describe(path, start)}, expected a safetensors file; download it again"
                )
            header = file.read(length)
        with safe_open(path, framework="np"):
            pass
        entries = json.loads(header, object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}; check the file and its permissions") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{path}: found a damaged safetensors file ({error}), expected a whole one; download it again"
        ) from error
    data = 8 + length
    return [
        StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]), *(data + at for at in entry["data_offsets"]))
        for name, entry in entries.items()
        if name != "__metadata__"
    ]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    return result


def _describe(path: Path, start: bytes) -> str:
    """Say what a file that is no safetensors file looks like."""
    if start.startswith(b"version"):
        return "a Git LFS pointer (the file itself was never fetched)"
    if start.lstrip().startswith(b"<"):
        return "a web page (an error page saved as the file)"
    if start.startswith((b"PK", b"\x80")):
        return "a pickle or zip file, which is never loaded"
    return f"{path.stat().st_size} bytes that begin with {start!r}"


def _check_names(where: Path, found: set[str], needed: set[str], ignored: tuple[str, ...]) -> None:
    missing = sorted(needed - found)
    unexpected = sorted(name for name in found - needed if not name.startswith(ignored))
    for problem, names in (("lacks", missing), ("has more than config.json promises:", unexpected)):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise WeightsError(
                f"{where}: {problem} {shown}; expected exactly the {len(needed)} tensors of the configuration. Either"
                " config.json is of another model, or the model has no classification head and is no cross-encoder"
            )


def _check_tensor(tensor: StoredTensor, shape: tuple[int, ...]) -> None:
    where = f"{tensor.path}: tensor {tensor.name}"
    if tensor.dtype not in STORED_DTYPES:
        raise WeightsError(
            f"{where}: found dtype {tensor.dtype}, expected one of {sorted(STORED_DTYPES)}; convert the model"
        )
    if tensor.shape != shape:
        raise WeightsError(
            f"{where}: found shape {tensor.shape}, config.json promises {shape}; the two are of different models"
        )


def _read(tensor: StoredTensor) -> NDArray[float32]:
    """Read one tensor and widen it to float32."""
    where = f"{tensor.path}: tensor {tensor.name}"
    raw = np.empty(tensor.shape, STORED_DTYPES[tensor.dtype])
    if raw.nbytes != tensor.stop - tensor.start:
        raise WeightsError(
            f"{where}: found {tensor.stop - tensor.start} bytes, expected {raw.nbytes}; download it again"
        )
    try:
        with tensor.path.open("rb") as file:
            file.seek(tensor.start)
            count = file.readinto(raw.reshape(-1).view(np.uint8).data)
    except OSError as error:
        raise WeightsError(f"{where}: cannot be read: {error.strerror}; check the file and its disk") from error
    if count != raw.nbytes:
        raise WeightsError(f"{where}: found {count} bytes, expected {raw.nbytes}: the file was cut; download it again")
    values = _widen(raw, tensor.dtype)
    if not np.isfinite(values.sum()) and not np.isfinite(values).all():  # a sum is quick, and finite almost always
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise WeightsError(f"{where}: found {values[at]} at {at}, expected finite numbers; the model is damaged")
    return values


def _widen(raw: NDArray[Any], dtype: str) -> NDArray[float32]:
    if dtype == "BF16":  # the upper half of a float32, which NumPy has no name for
        return (raw.astype(np.uint32) << np.uint32(16)).view(float32)
    return raw.astype(float32, copy=False)
