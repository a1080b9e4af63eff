"""Start here: a model's name becomes a checkpoint, all of whose files have been checked.

    source        name -> folder
    files         the folder's files, each opened once
    published     the folder of a model as it was published -> specification, weights, tokenizer
    frozen        that of a frozen model
    tokenizer     its files -> token ids of a text

No file is a pickle, none is fetched from elsewhere than the hub, and none runs code but the kernels of a frozen model.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ConfigError, ModelNotFoundError
from .files import ModelFiles
from .frozen import MANIFEST, Manifest, check_files, check_nothing_else, read_manifest
from .modules import SENTENCE_TRANSFORMERS, Chain
from .source import find_folder
from .spec import Config, ModelSpec
from .tensors import Weights
from .tokenizer import PairTokenizer, check_template, load_tokenizer

PACKAGE = __name__.partition(".")[0]


class Saved(NamedTuple):
    """What the author of a model saved for use with it."""

    activation: str | None  # dotted path of the torch class that turns logits into scores
    prompts: dict[str, str]
    default_prompt_name: str | None


class Checkpoint(NamedTuple):
    """Everything that was read from a model's folder.

    Its weights are read when they are asked for, inside the checkpoint's context. To leave that without an error is to
    say that nothing more is needed: it is then proven that all was read from one and the same state of the folder.
    """

    files: ModelFiles
    spec: ModelSpec
    weights: Weights
    tokenizer: PairTokenizer
    saved: Saved
    config: dict[str, Any]  # config.json as it is
    chain: Chain = Chain()
    frozen: Manifest | None = None  # of a frozen model, which has no weights but those that are packed
    packed: Any = None  # kernels and weights, as `open_packed` has them read

    @property
    def folder(self) -> Path:
        """Where the model lies."""
        return self.files.folder

    @property
    def num_parameters(self) -> int:
        """How many numbers the model's tensors hold."""
        return self.weights.num_parameters() if self.frozen is None else self.frozen.num_parameters

    @property
    def stored_dtypes(self) -> Sequence[str]:
        """The dtypes in which they were published."""
        return self.weights.stored_dtypes() if self.frozen is None else self.frozen.stored_dtypes

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Close the files.

        Raises
        ------
        ModelChangedError
            When a file is not what it was when it was first looked at.
        """
        with self.files:
            if kind is None:
                self.files.check_unchanged()


def load_checkpoint(
    name: str | os.PathLike[str] | None,
    *,
    open_packed: Callable[[ModelFiles, Manifest], Callable[[], Any]] = lambda files, manifest: lambda: None,
    **hub_options: Any,
) -> Checkpoint:
    """Find, read and check a model.

    Parameters
    ----------
    name, **hub_options
        Those of `source.find_folder`.
    open_packed : callable
        Opens kernels and weights of a frozen model, and returns what reads them, while its tokenizer is made.

    Raises
    ------
    ModelNotFoundError, ConfigError, WeightsError, TokenizerError
        When anything is not as it must be; nothing is guessed, nothing initialised at random.
    """
    is_local = isinstance(name, str | os.PathLike) and os.path.isdir(name)
    if not (is_local and os.path.exists(os.path.join(name or "", MANIFEST))) and not _reads_published():
        raise ModelNotFoundError(
            f"model_name_or_path: found {str(name)!a:.200}, expected the folder of a frozen model, as {PACKAGE} reads"
            " no others; name one, or install numbert"
        )
    files = ModelFiles(find_folder(name, **hub_options))
    try:
        if MANIFEST in files:
            return _read_frozen(files, open_packed, is_local=is_local)
        return _read(files)
    except BaseException:
        files.close()
        raise


def _read(files: ModelFiles) -> Checkpoint:
    """Read a model as it was published."""
    from .published import read_published  # here: a frozen model needs none of the families

    model = read_published(files)
    saved = _read_saved(files, model.config)
    return Checkpoint(files, model.spec, model.weights, model.tokenizer, saved, model.config.values, model.chain)


def _reads_published() -> bool:
    """Tell whether this is all of numbert, and not the wheel of frozen models (engine/tools/wheel.py)."""
    return importlib.util.find_spec(".published", __package__) is not None


def _read_frozen(
    files: ModelFiles, open_packed: Callable[[ModelFiles, Manifest], Callable[[], Any]], *, is_local: bool
) -> Checkpoint:
    """Read a frozen model."""
    if not is_local:
        raise ConfigError(
            f"{files.folder}: found a frozen model on the hub, expected one without programs in it; load the model that"
            " it was made from"
        )
    manifest = read_manifest(files)
    check_files(files, manifest, small_only=True)
    config = Config.read(files, "config.json")
    spec, longest = manifest.spec, manifest.max_length
    read = open_packed(files, manifest)
    with ThreadPoolExecutor(1) as threads:  # reading leaves the GIL at once, and making a tokenizer keeps it
        with contextlib.suppress(RuntimeError):  # no more threads
            read = threads.submit(read).result
        tokenizer = load_tokenizer(files, spec.vocab_size, spec.num_token_types)._replace(max_length=longest)
        packed = read()
    check_template(config, spec, tokenizer.template)
    if longest is not None and longest <= tokenizer.template.num_special:
        raise ConfigError(
            f"{files.folder / MANIFEST}: max_length: found {longest}, expected more than the"
            f" {tokenizer.template.num_special} special tokens of a pair; freeze the model again"
        )
    saved = _read_saved(files, config)
    check_nothing_else(files, manifest)
    return Checkpoint(files, spec, Weights({}), tokenizer, saved, config.values, frozen=manifest, packed=packed)


def _read_saved(files: ModelFiles, config: Config) -> Saved:
    """Return what the author saved; the three places of the activation are those of sentence-transformers."""
    newer = Config.read_if_there(files, SENTENCE_TRANSFORMERS)
    places = [
        (newer.path, newer.values.get("activation_fn")),
        (config.path, _object(config, "sentence_transformers").get("activation_fn")),
        (config.path, config.values.get("sbert_ce_default_activation_function")),
    ]
    where, activation = next((place for place in places if place[1] is not None), (None, None))
    if activation is not None and not isinstance(activation, str):
        raise ConfigError(
            f"{where}: activation: found {activation!r:.100}, expected the dotted path of a class; correct the file"
        )
    if newer.values.get("model_type") != "CrossEncoder":  # the prompts of an embedding model are not meant for pairs
        return Saved(activation, {}, None)
    prompts, default = _object(newer, "prompts"), newer.values.get("default_prompt_name")
    if not all(isinstance(text, str) for text in prompts.values()):
        raise newer.error("prompts", prompts, "an object of strings")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise newer.error("default_prompt_name", default, f"one of {list(prompts)}")
    return Saved(activation, prompts, default)


def _object(config: Config, key: str) -> dict[str, Any]:
    value = config.values.get(key) or {}
    if not isinstance(value, dict):
        raise config.error(key, value, "an object")
    return value
