"""The backend of a frozen model: the blocks of the cpu backend, with kernels and weights out of its folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..kernels import parameters
from ..kernels.cpu import blocks, packed, permission, processor
from ..kernels.cpu.frozen import Library
from ..kernels.cpu.instruction_sets import KNOWN, REQUIRED_FEATURES
from ..kernels.cpu.workspace import Workspace, make_team
from ..loaders.checkpoint import Checkpoint
from ..loaders.errors import ConfigError
from ..loaders.files import ModelFiles, OpenFile
from ..loaders.frozen import Described, Manifest, Variant, check_file, open_file, read_weights
from ..loaders.records import RecordError, decode, kinds_of
from . import encoder as encoders
from .encoder import Encoder
from .errors import BackendError, InputError
from .packed_form import check_form

NAME = "frozen"  # of the backend
KINDS = kinds_of(parameters, packed, encoders)


class LibraryPlace(NamedTuple):
    """What it takes to open a library again, in this process or in another."""

    path: str
    isa: str
    described: Described


class Packed(NamedTuple):
    """What is read of the best variant for this processor."""

    variant: Variant
    library: LibraryPlace
    arrays: dict[str, NDArray[Any]]


class FrozenBackend:
    """The blocks, with the kernels of a library. What there is to pack was packed when the model was frozen."""

    LARGEST_SHARD = blocks.LARGEST_SHARD
    SHARES_SHARDS = blocks.SHARES_SHARDS
    MOST_WORKERS: int | None = blocks.MOST_WORKERS
    LOWERS_FLOAT32 = False
    PICKLES = True
    PEAK = None

    def __init__(self, place: LibraryPlace, dtype: str, encoder: Encoder) -> None:
        self.place = place
        self.DTYPES: tuple[str, ...] = (dtype,)
        library = Library(place.path, KNOWN[place.isa], BackendError)
        library.hold(encoder)
        self.KERNELS = library.kernels
        self.embedding, self.convolve, self.add_convolved = blocks.embedding, blocks.convolve, blocks.add_convolved
        self.attention_block, self.feed_forward_block = blocks.attention_block, blocks.feed_forward_block
        self.head = blocks.head

    def describe(self) -> dict[str, str]:
        """Return what is computed with."""
        return {"instruction_set": self.place.isa, "library": self.place.path}

    def make_team(self, size: int) -> list[Workspace]:
        """Return the workspaces of `size` threads that compute one shard together."""
        return make_team(self.KERNELS, size)


def open_packed(files: ModelFiles, manifest: Manifest) -> Callable[[], Packed]:
    """Choose the best variant for this processor, see to its kernels, and return what reads its weights.

    Raises
    ------
    BackendError
        When the model was not frozen for anything that this processor has.
    ConfigError, ModelNotFoundError, WeightsError
        When a file is not what the manifest says.
    """
    variant = choose_variant(manifest, str(files.folder))
    library, weights = (open_file(files, name) for name in (variant.library, variant.weights))
    check_file(library, manifest.files[variant.library])
    place = LibraryPlace(str(library.path.resolve()), variant.isa, manifest.files[variant.library])
    return lambda: Packed(variant, place, read_weights(weights, manifest.files[variant.weights]))


def load_frozen(checkpoint: Checkpoint, manifest: Manifest, backend: str, dtype: str) -> tuple[FrozenBackend, Encoder]:
    """Make a frozen model ready to compute.

    Raises
    ------
    InputError
        When another backend or dtype is asked for.
    BackendError
        When the system does not load its kernels.
    ConfigError, WeightsError
        When the manifest describes no records, or not those of its specification.
    """
    if backend not in ("auto", "torch", NAME):
        raise InputError(
            f"backend: found {backend!r}, expected {NAME!r} or nothing, as {checkpoint.folder} is frozen; leave it out,"
            " or load the model that it was made from"
        )
    if dtype != manifest.dtype:
        raise InputError(
            f"dtype: found {dtype!r}, expected {manifest.dtype!r}, in which {checkpoint.folder} was frozen; leave it"
            " out, or freeze the model in the other"
        )
    packed: Packed = checkpoint.packed
    try:
        encoder: Encoder = decode(packed.variant.encoder, KINDS, packed.arrays)
    except (RecordError, RecursionError) as error:
        raise ConfigError(f"{checkpoint.folder}: {error}; freeze the model again") from error
    check_form(encoder, manifest.spec, manifest.dtype, KNOWN[packed.library.isa])
    return FrozenBackend(packed.library, manifest.dtype, encoder), encoder


def reopen(place: LibraryPlace, dtype: str, encoder: Encoder) -> FrozenBackend:
    """Open the library of a model that another process has pickled.

    Raises
    ------
    BackendError
        When this processor lacks what the library needs.
    ConfigError
        When the library is not there any more, or is another one.
    """
    if place.isa not in usable_instruction_sets():
        raise BackendError(
            f"{place.path}: found kernels for {place.isa}, expected one of {usable_instruction_sets()}, which this"
            " processor has; load the model from its folder"
        )
    check_file(OpenFile(Path(place.path), ConfigError), place.described)
    return FrozenBackend(place, dtype, encoder)


def choose_variant(manifest: Manifest, folder: str) -> Variant:
    """Return the best of those that this processor can run, or the one that NUMBERT_ISA names.

    Raises
    ------
    BackendError
        When there is none.
    """
    usable = usable_instruction_sets()
    forced = os.environ.get("NUMBERT_ISA")
    for variant in manifest.variants:
        if variant.isa in usable and forced in (None, "", variant.isa):
            return variant
    found, wanted = [variant.isa for variant in manifest.variants], forced or f"one of {usable}, which it has"
    raise BackendError(
        f"{folder}: found kernels for {', '.join(found)}, expected {wanted}, as this processor needs; freeze the model"
        f" again with --isa {forced or usable[0]}"
    )


def usable_instruction_sets() -> list[str]:
    """Return the names of the instruction sets that this processor has and this process may use, the best first."""
    here = set(processor.features())
    if "amx-tile" in here and not permission.request_amx():
        here.remove("amx-tile")
    return [name for name in KNOWN if REQUIRED_FEATURES.get(name, set()) <= here]
