"""From safetensors files to float32 arrays under canonical names.

Before any array is made, it is proven that the tensors are exactly those that the configuration promises. One tensor is
read at a time, when it is asked for.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from .errors import WeightsError, shown
from .files import ModelFiles, is_plain
from .names import Source, TensorTable
from .safetensors import STORED_DTYPES, StoredTensor, read_header
from .spec import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CHECKED_ROWS = 4096  # at once, for numbers that are none


class Weights(Mapping[str, NDArray[float32]]):
    """The checkpoint's tensors by canonical name; each is read and widened to float32 when it is asked for."""

    def __init__(self, tensors: dict[str, tuple[StoredTensor, Source]]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> NDArray[float32]:
        tensor, source = self._tensors[name]
        return _read(tensor, source)

    def as_stored(self, name: str) -> tuple[str, NDArray[Any]]:
        """Return a tensor as the file has it, and its dtype there: "F32", "F16" or "BF16" (its bits)."""
        tensor, source = self._tensors[name]
        if source.parts != 1 or tensor.dtype == "F32":
            return "F32", self[name]
        raw = _read_rows(tensor, 0, tensor.shape[0])
        bits, exponent = raw.view(np.uint16), np.uint16({"F16": 0x7C00, "BF16": 0x7F80}[tensor.dtype])
        for first in range(0, len(bits), CHECKED_ROWS):
            some = bits[first : first + CHECKED_ROWS]
            if ((some & exponent) == exponent).any():
                _widen(tensor, raw[first : first + CHECKED_ROWS], first)  # which says where
        return tensor.dtype, raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __or__(self, others: "Weights") -> "Weights":
        """Return the tensors of both."""
        return Weights({**self._tensors, **others._tensors})

    def num_parameters(self) -> int:
        """Return how many numbers the tensors hold."""
        return sum(math.prod(tensor.shape) // source.parts for tensor, source in self._tensors.values())

    def stored_dtypes(self) -> list[str]:
        """Return the dtypes found in the files."""
        return sorted({tensor.dtype for tensor, _ in self._tensors.values()})


class Headers(NamedTuple):
    """What the headers of a folder's safetensors files say."""

    where: Path  # the file, or the index of the files
    tensors: dict[str, StoredTensor]  # by name


def read_headers(files: ModelFiles) -> Headers:
    """Read which tensors a folder has, and where they lie.

    Parameters
    ----------
    files : ModelFiles
        Of a folder that holds model.safetensors, or model.safetensors.index.json and the files that it names.

    Raises
    ------
    WeightsError
        When a file is damaged, or a name is there twice.
    """
    names = weight_files(files)
    stored: dict[str, StoredTensor] = {}
    for file_name in names:
        for tensor in read_header(files.open(file_name, WeightsError)):
            name = _modern_name(tensor.name)
            if name in stored:
                raise WeightsError(
                    f"{tensor.place}: found again, expected once; it is also in {stored[name].file.path}"
                )
            stored[name] = tensor
    return Headers(files.folder / (names[0] if len(names) == 1 else INDEX), stored)


def open_weights(headers: Headers, table: TensorTable, ignored: tuple[str, ...]) -> Weights:
    """Find every tensor of the table.

    Parameters
    ----------
    headers : Headers
    table : dict
        What must be there, and in which shape.
    ignored : tuple of str
        Beginnings of names that may be there and are not needed.

    Raises
    ------
    WeightsError
        When a tensor is missing, unexpected, of another shape or of a dtype that is not float.
    """
    stored = headers.tensors
    _check_names(headers.where, set(stored), {source.name for source in table.values()}, ignored)
    for source in table.values():
        _check_tensor(stored[source.name], source.shape)
    return Weights({ours: (stored[source.name], source) for ours, source in table.items()})


def _modern_name(name: str) -> str:
    """Translate the names that TensorFlow gave to the parameters of LayerNorm."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(f"LayerNorm{old}"):
            return name.removesuffix(old) + new
    return name


def weight_files(files: ModelFiles) -> list[str]:
    """Return the name of the file with the weights, or else those of the shards that the index names.

    Raises
    ------
    WeightsError, ConfigError
        When the index is damaged, names anything but files of the folder, or a file that is not there.
    """
    if SINGLE in files:
        return [SINGLE]
    index = files.folder / INDEX
    content = read_json(files, INDEX)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(
            f"{index}: found no weight_map, expected an object of tensor names and files; download it again"
        )
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if not is_plain(name) or not name.endswith(".safetensors"):
            raise WeightsError(
                f"{index}: weight_map: found file {name!a:.200}, expected a plain name ending in .safetensors;"
                " do not trust this model"
            )
        if name not in files:
            raise WeightsError(
                f"{index}: weight_map: names {name!a:.200}, which is not in the folder; download the model again"
            )
    return names


def _check_names(where: Path, found: set[str], needed: set[str], ignored: tuple[str, ...]) -> None:
    missing = sorted(needed - found)
    unexpected = sorted(name for name in found - needed if not name.startswith(ignored))
    for problem, names in (("lacks", missing), ("has more than config.json promises:", unexpected)):
        if names:
            some = ", ".join(map(shown, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise WeightsError(
                f"{where}: {problem} {some}; expected exactly the {len(needed)} tensors of the configuration. Either"
                " config.json is of another model, or the model has no classification head and is no cross-encoder"
            )


def _check_tensor(tensor: StoredTensor, shape: tuple[int, ...]) -> None:
    if tensor.dtype not in STORED_DTYPES:
        raise WeightsError(
            f"{tensor.place}: found dtype {tensor.dtype}, expected one of {sorted(STORED_DTYPES)}; convert the model"
        )
    if tensor.shape != shape:
        raise WeightsError(
            f"{tensor.place}: found shape {tensor.shape}, config.json promises {shape}; the two are of different models"
        )


def _read(tensor: StoredTensor, source: Source) -> NDArray[float32]:
    """Read the rows that are asked for of a tensor, and widen them to float32."""
    rows = tensor.shape[0] // source.parts
    if source.groups == 1:
        return _widen(tensor, _read_rows(tensor, source.part * rows, rows), source.part * rows)
    every = _widen(tensor, _read_rows(tensor, 0, tensor.shape[0]), 0)
    grouped = every.reshape(source.groups, source.parts, -1, *tensor.shape[1:])
    return np.ascontiguousarray(grouped[:, source.part]).reshape(rows, *tensor.shape[1:])


def _read_rows(tensor: StoredTensor, first: int, rows: int) -> NDArray[np.generic]:
    raw = np.empty((rows, *tensor.shape[1:]), STORED_DTYPES[tensor.dtype])
    start = tensor.start + first * math.prod(tensor.shape[1:]) * raw.itemsize
    count = tensor.file.read_into(raw.reshape(-1).view(np.uint8).data, start)
    if count != raw.nbytes:
        raise WeightsError(
            f"{tensor.place}: found {count} bytes, expected {raw.nbytes}: the file was cut; download it again"
        )
    return raw


def _widen(tensor: StoredTensor, raw: NDArray[np.generic], first: int) -> NDArray[float32]:
    """Widen rows of a tensor, from `first` on, to float32."""
    if tensor.dtype == "BF16":  # the upper half of a float32, which NumPy has no name for
        values = (raw.astype(np.uint32) << np.uint32(16)).view(float32)
    else:
        values = raw.astype(float32, copy=False)
    with np.errstate(all="ignore"):
        total = values.sum()
    if not np.isfinite(total) and not np.isfinite(values).all():  # a sum is quick, and finite almost always
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        place = (first + at[0], *at[1:])
        raise WeightsError(
            f"{tensor.place}: found {values[at]} at {place}, expected finite numbers; the model is damaged"
        )
    return values
