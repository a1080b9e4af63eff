"""Frozen models: folders with kernels as shared libraries and packed weights, which engine/tools/freeze.py writes.

    numbert-frozen.json    what is there, with the size and the SHA-256 of each file, and of itself
    kernels/<isa>.so       the kernels for an instruction set
    weights/<isa>.safetensors    the weights, packed for it; several instruction sets may share a file
    config.json, tokenizer.json ...    as they were published

A library is a program. Whoever loads a frozen folder runs it, so that it must come from where programs come from; a
folder of the hub is refused. The sums in the manifest find damage, not malice.
"""

import hashlib
import json
import platform
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from . import spec as specification
from .errors import ConfigError, ModelNotFoundError, WeightsError
from .files import ModelFiles, OpenFile
from .records import RecordError, decode, kinds_of
from .safetensors import read_header
from .spec import LARGEST_JSON, ModelSpec

MANIFEST = "numbert-frozen.json"
CACHE_LINE = 64  # bytes
CHUNK = 2**20  # bytes that are read at once to be summed up
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U16": np.dtype("<u2"),
}
AGAIN = "freeze the model again"


class Variant(NamedTuple):
    """What there is for one instruction set; paths are those of the manifest."""

    isa: str
    library: str
    weights: str
    encoder: Any  # records of packed weights, as JSON
    entries: dict[str, dict[str, str]]  # symbol for each kernel and signature


class Described(NamedTuple):
    """What a file must be."""

    size: int
    sha256: str


class Manifest(NamedTuple):
    """What a frozen folder says of itself."""

    numbert: str  # version
    system: str  # Linux on which processor: "linux-x86_64"
    dtype: str
    spec: ModelSpec
    max_length: int | None  # of the tokenizer
    num_parameters: int
    stored_dtypes: tuple[str, ...]  # of the model that was frozen
    variants: tuple[Variant, ...]  # the best first
    files: dict[str, Described]


def this_system() -> str:
    """Return what libraries are made for: the operating system and the processor's architecture."""
    return f"{sys.platform}-{platform.machine().lower()}"


def checksum(values: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest, but for its own entry."""
    rest = {key: value for key, value in values.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(files: ModelFiles) -> Manifest:
    """Read the manifest, and prove that it is whole, of this version of numbert and for this kind of machine.

    Raises
    ------
    ConfigError
        When it is not so.
    """
    path = files.folder / MANIFEST
    try:
        values = json.loads(files.open(MANIFEST, ConfigError).read(LARGEST_JSON).decode())
        whole = isinstance(values, dict) and values.get("sha256") == checksum(values)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: found no valid JSON ({error}), expected a manifest; {AGAIN}") from error
    if not whole:
        raise ConfigError(f"{path}: found a content that its own SHA-256 does not fit: it is damaged; {AGAIN}")
    if values["numbert"] != __version__:
        raise ConfigError(
            f"{path}: found a model frozen by numbert {values['numbert']}, expected one by {__version__}, as this is:"
            f" kernels and weights of one do not fit the other; {AGAIN}"
        )
    if values["system"] != this_system():
        raise ConfigError(
            f"{path}: found a model frozen on {values['system']}, expected one frozen on {this_system()}, as this is;"
            f" {AGAIN} there"
        )
    try:
        kinds = {**kinds_of(specification), "Variant": Variant, "Manifest": Manifest, "Described": Described}
        described = {name: Described(*entry) for name, entry in values["files"].items()}
        variants = tuple(Variant(**variant) for variant in values["variants"])
        spec = decode(values["spec"], kinds, {})
    except (RecordError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: found what is no manifest ({error}); {AGAIN}") from error
    return Manifest(
        values["numbert"], values["system"], values["dtype"], spec, values["max_length"], values["num_parameters"],
        tuple(values["stored_dtypes"]), variants, described,
    )  # fmt: skip


def check_small_files(files: ModelFiles, manifest: Manifest) -> None:
    """Prove that configuration and tokenizer are those of the manifest.

    Raises
    ------
    ModelNotFoundError, ConfigError
        When one is not.
    """
    for name, expected in manifest.files.items():
        if "/" not in name:
            check_file(open_file(files, name), expected)


def open_file(files: ModelFiles, name: str) -> OpenFile:
    """Open a file of the folder, or of a folder in it.

    Raises
    ------
    ModelNotFoundError, ConfigError
        When it is not there or is no file.
    """
    folder, _, base = name.rpartition("/")
    place = files.inside(folder) if folder else files
    if base not in place:
        raise ModelNotFoundError(f"{files.folder / name}: found nothing, the manifest names it; {AGAIN}")
    return place.open(base, ConfigError)


def check_file(file: OpenFile, expected: Described) -> None:
    """Prove that a file is what the manifest says.

    Raises
    ------
    ConfigError
        When it is not.
    """
    _check_size(file, expected)
    found, buffer, done = hashlib.sha256(), memoryview(bytearray(CHUNK)), 0
    while count := file.read_into(buffer, done):
        found.update(buffer[:count])
        done += count
    _check_sum(file, found.hexdigest(), expected)


def _check_size(file: OpenFile, expected: Described) -> None:
    if file.size != expected.size:
        raise ConfigError(f"{file.path}: found {file.size} bytes, the manifest has {expected.size}; {AGAIN}")


def _check_sum(file: OpenFile, found: str, expected: Described) -> None:
    if found != expected.sha256:
        raise ConfigError(
            f"{file.path}: found SHA-256 {found[:16]}..., the manifest has {expected.sha256[:16]}...: the file is"
            f" damaged, or another one; {AGAIN}"
        )


def read_weights(file: OpenFile, expected: Described) -> dict[str, NDArray[Any]]:
    """Read a file of packed weights as a whole, into memory whose tensors begin on cache lines.

    Raises
    ------
    ConfigError, WeightsError
        When it is not what the manifest says, or damaged.
    """
    _check_size(file, expected)
    tensors = read_header(file)
    first = min((tensor.start for tensor in tensors), default=0)
    room = np.empty(file.size + 2 * CACHE_LINE, np.uint8)
    begin = -(room.ctypes.data + first) % CACHE_LINE
    content = room[begin : begin + file.size]
    if file.read_into(content.data, 0) != file.size:
        raise WeightsError(f"{file.path}: found fewer than {file.size} bytes: the file was cut; {AGAIN}")
    _check_sum(file, hashlib.sha256(content.data).hexdigest(), expected)
    return {
        tensor.name: content[tensor.start : tensor.stop].view(DTYPES[tensor.dtype]).reshape(tensor.shape)
        for tensor in tensors
    }
