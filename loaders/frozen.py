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
from .files import ModelFiles, OpenFile, is_plain
from .records import RecordError, check_kinds, decode, kinds_of
from .safetensors import StoredTensor, read_header
from .spec import LARGEST_JSON, HeadStep, LinearStep, ModelSpec, NormStep, ResidualStep

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
FROZEN_DTYPES = ("float32", "bfloat16", "int8")
LARGEST_SIZE = 1 << 22
# The least that a specification may have of each of its numbers, for what kernels and tokens are counted by
LEAST = {
    **dict.fromkeys(("vocab_size", "hidden_size", "num_heads", "intermediate_size", "max_positions"), 1),
    **dict.fromkeys(("num_labels", "embedding_size", "score_terms", "layers_in_group"), 1),
    **dict.fromkeys(("num_token_types", "first_position", "relative_buckets"), 0),
}


class Variant(NamedTuple):
    """What there is for one instruction set; paths are those of the manifest."""

    isa: str
    library: str
    weights: str
    encoder: Any  # records of packed weights, as JSON


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
    for what, found, expected in (
        ("by numbert", values.get("numbert"), __version__),  # kernels and weights of one do not fit the other
        ("on", values.get("system"), this_system()),
    ):
        if found != expected:
            raise ConfigError(
                f"{path}: found a model frozen {what} {found!r:.40}, expected one frozen {what} {expected!r}, as this"
                f" is; {AGAIN} with that"
            )
    try:
        manifest = _decode(values)
        check_kinds(manifest, "manifest")
        _check_names(manifest)
        check_spec(manifest.spec)
    except (RecordError, RecursionError) as error:
        raise ConfigError(f"{path}: found what is no manifest ({error}); {AGAIN}") from error
    return manifest


def _decode(values: dict[str, Any]) -> Manifest:
    """Make the records of a manifest, of which nothing has been proven yet."""
    try:
        rest = {key: value for key, value in values.items() if key != "sha256"}
        return Manifest(
            **{
                **rest,
                "spec": decode(rest["spec"], kinds_of(specification), {}),
                "stored_dtypes": decode(rest["stored_dtypes"], {}, {}),
                "variants": tuple(Variant(**variant) for variant in rest["variants"]),
                "files": {name: Described(*entry) for name, entry in rest["files"].items()},
            }
        )
    except (AttributeError, KeyError, TypeError) as error:  # keys that are not there, values of another kind
        raise RecordError(str(error)) from error


def _check_names(manifest: Manifest) -> None:
    """Prove that all files are in the folder or in one in it, and that there are those that must be."""
    for name in manifest.files:
        if not all(map(is_plain, name.split("/"))) or name.count("/") > 1:
            raise RecordError(f"files: found {name!r:.100}, expected names in the folder, or in one in it")
    if manifest.dtype not in FROZEN_DTYPES:
        raise RecordError(f"dtype: found {manifest.dtype!r:.40}, expected one of {list(FROZEN_DTYPES)}")
    for variant in manifest.variants:
        for name in ("config.json", variant.library, variant.weights):
            if name not in manifest.files:
                raise RecordError(f"files: found no {name!r:.100}, expected what is read")


def check_spec(spec: ModelSpec) -> None:
    """Prove that the sizes and rules of a specification are possible, and fit each other.

    Raises
    ------
    RecordError
        When they do not.
    """
    for name, least in LEAST.items():
        _require(least <= getattr(spec, name) <= LARGEST_SIZE, name, getattr(spec, name))
    reaches = [tokens for rule in spec.layers for tokens in rule.reach or ()]
    _require(bool(spec.layers), "layers", spec.layers)
    _require(all(0 <= tokens <= LARGEST_SIZE for tokens in reaches), "layers", reaches)
    _require(spec.hidden_size % spec.num_heads == 0, "num_heads", spec.num_heads)
    _require(spec.usable_length >= 1, "max_positions", spec.max_positions)
    _require(spec.pad_token_id is None or 0 <= spec.pad_token_id < spec.vocab_size, "pad_token_id", spec.pad_token_id)
    _require(spec.projection in ("before", "after", None), "projection", spec.projection)
    _require(spec.projection is not None or spec.embedding_size == spec.hidden_size, "projection", spec.projection)
    _require(spec.convolution is None or spec.convolution.width % 2 == 1, "convolution", spec.convolution)
    _require(_width_behind(spec.head, spec.hidden_size) == spec.num_labels, "head", spec.head)


def _width_behind(steps: tuple[HeadStep, ...], width: int) -> int:
    """Return the width of the rows behind steps of a head, each of which must take the width of the one before it."""
    for step in steps:
        if isinstance(step, LinearStep):
            _require(step.inputs == width, "head", step)
            width = step.outputs
        elif isinstance(step, NormStep):
            _require(step.width == width, "head", step)
        elif isinstance(step, ResidualStep):
            direct = () if step.shortcut is None else (step.shortcut,)
            _require(_width_behind(step.steps, width) == _width_behind(direct, width), "head", step)
            width = _width_behind(direct, width)
    return width


def _require(holds: bool, name: str, found: Any) -> None:
    if not holds:
        raise RecordError(f"spec.{name}: found {found!r:.100}, which no model has, or which does not fit the rest")


def check_files(files: ModelFiles, manifest: Manifest, *, small_only: bool = False) -> None:
    """Prove that all files are those of the manifest, or only configuration and tokenizer.

    Raises
    ------
    ModelNotFoundError, ConfigError
        When one is not.
    """
    for name, expected in manifest.files.items():
        if not (small_only and "/" in name):
            check_file(open_file(files, name), expected)


def check_nothing_else(files: ModelFiles, manifest: Manifest) -> None:
    """Prove that no file was read that is not in the manifest.

    Raises
    ------
    ConfigError
        When one was.
    """
    for file in files:
        if file.path.name not in (MANIFEST, *manifest.files):
            raise ConfigError(f"{file.path}: found a file that the manifest does not name, expected none; remove it")


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
    room = np.empty(file.size + CACHE_LINE, np.uint8)
    begin = -room.ctypes.data % CACHE_LINE
    content = room[begin : begin + file.size]
    if file.read_into(content.data, 0) != file.size:
        raise WeightsError(f"{file.path}: found fewer than {file.size} bytes: the file was cut; {AGAIN}")
    _check_sum(file, hashlib.sha256(content.data).hexdigest(), expected)
    return {tensor.name: _array_of(tensor, content) for tensor in read_header(file)}


def _array_of(tensor: StoredTensor, content: NDArray[np.uint8]) -> NDArray[Any]:
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise WeightsError(f"{tensor.place}: found dtype {tensor.dtype}, expected one of {list(DTYPES)}; {AGAIN}")
    array: NDArray[Any] = content[tensor.start : tensor.stop].view(dtype).reshape(tensor.shape)
    if not array.flags.aligned:
        raise WeightsError(
            f"{tensor.place}: found it at byte {tensor.start}, expected a multiple of its numbers' size; {AGAIN}"
        )
    return array
