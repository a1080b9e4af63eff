"""Start here: a model's name becomes a checkpoint, all of whose files have been checked.

    source        name -> folder
    files         the folder's files, each opened once
    modules       modules.json: is it a model that is computed here?
    modular_head  the folders of modules behind an encoder -> steps of a head
    spec          config.json -> ModelSpec; bert, modernbert and their like hold what differs between families
    remote        families whose folders bring code, which is not run
    names         the tensors that a spec promises
    tensors       safetensors files -> weights under canonical names
    tokenizer     tokenizer.json or vocab.txt -> token ids of a text

No file is a pickle, none runs code, none is fetched from elsewhere than the hub.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from . import (
    albert,
    bert,
    deberta,
    deberta_v1,
    distilbert,
    electra,
    gte,
    modernbert,
    mpnet,
    nomic_bert,
    remote,
    roberta,
)
from .errors import ConfigError
from .files import ModelFiles
from .frozen import MANIFEST, Manifest, check_small_files, read_manifest
from .modular_head import read_head
from .modules import SENTENCE_TRANSFORMERS, SETTINGS, Chain, read_modules
from .names import Names, tensor_table, without_head
from .source import find_folder
from .spec import Config, ModelSpec
from .tensors import Headers, Weights, open_weights, read_headers
from .tokenizer import PairTemplate, PairTokenizer, load_tokenizer

MODULES = (bert, roberta, electra, distilbert, mpnet, modernbert, deberta, deberta_v1, albert, nomic_bert, gte)
FAMILIES: dict[str, ModuleType] = {model_type: module for module in MODULES for model_type in module.ARCHITECTURES}
HEAD = "ForSequenceClassification"  # ends the names of transformers' classes
OF_HEAD = ("id2label", "num_labels", "classifier_")  # how keys of config.json begin that say something of a head


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
    frozen: Manifest | None = None  # of a frozen model, which has no weights but those of the manifest

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


def load_checkpoint(name: str | os.PathLike[str] | None, **hub_options: Any) -> Checkpoint:
    """Find, read and check a model. `name` and `hub_options` are those of `source.find_folder`.

    Raises
    ------
    ModelNotFoundError, ConfigError, WeightsError, TokenizerError
        When anything is not as it must be; nothing is guessed, nothing initialised at random.
    """
    files = ModelFiles(find_folder(name, **hub_options))
    try:
        if MANIFEST in files:
            return _read_frozen(files, is_local=name is not None and os.path.isdir(name))
        return _read(files)
    except BaseException:
        files.close()
        raise


def _read(files: ModelFiles) -> Checkpoint:
    chain = read_modules(files)
    config, headers = Config.read(files, "config.json"), read_headers(files)
    family = _family(config, headers, has_head=not chain.behind)
    if chain.behind:
        spec, weights = _read_modular(files, chain, config, headers, family)
    else:
        spec, weights = _read_whole(config, headers, family)
    tokenizer = load_tokenizer(files, spec.vocab_size, spec.num_token_types)
    _check_template(config, spec, tokenizer.template)
    if chain.longest is not None:
        tokenizer = tokenizer._replace(max_length=_check_length(files, chain.longest, tokenizer.template))
    return Checkpoint(files, spec, weights, tokenizer, _read_saved(files, config), config.values, chain)


def _read_frozen(files: ModelFiles, *, is_local: bool) -> Checkpoint:
    """Read a frozen model, but for its kernels and weights."""
    if not is_local:
        raise ConfigError(
            f"{files.folder}: found a frozen model on the hub, expected one without programs in it; load the model that"
            " it was made from"
        )
    manifest = read_manifest(files)
    check_small_files(files, manifest)
    config = Config.read(files, "config.json")
    tokenizer = load_tokenizer(files, manifest.spec.vocab_size, manifest.spec.num_token_types)
    tokenizer = tokenizer._replace(max_length=manifest.max_length)
    saved = _read_saved(files, config)
    return Checkpoint(files, manifest.spec, Weights({}), tokenizer, saved, config.values, frozen=manifest)


def _read_whole(config: Config, headers: Headers, family: ModuleType) -> tuple[ModelSpec, Weights]:
    """Read a model with a head of its own."""
    if family in remote.MODULES:
        config = _with_labels(config, headers, family.NAMES)
    spec: ModelSpec = family.read_spec(config)
    return spec, open_weights(headers, tensor_table(spec, family.NAMES), family.IGNORED)


def _with_labels(config: Config, headers: Headers, names: Names) -> Config:
    """Let the last layer say how many logits there are where config.json does not, as that of some models."""
    last = headers.tensors.get(f"{names['head.output']}.weight")
    if last is None or not last.shape or not {"id2label", "num_labels"}.isdisjoint(config.values):
        return config
    return Config(config.path, {**config.values, "num_labels": last.shape[0]})


def _read_modular(
    files: ModelFiles, chain: Chain, config: Config, headers: Headers, family: ModuleType
) -> tuple[ModelSpec, Weights]:
    """Read an encoder and the modules behind it; what config.json says of a head means nothing then."""
    of_encoder = {key: value for key, value in config.values.items() if not key.startswith(OF_HEAD)}
    spec, tables = read_head(files, chain.behind, family.read_spec(Config(config.path, of_encoder)))
    names, ignored = without_head(family.NAMES, family.IGNORED)
    weights = open_weights(headers, tensor_table(spec, names), ignored)
    for folder, table in tables.items():
        weights |= open_weights(read_headers(files.inside(folder)), table, ())
    return spec, weights


def _family(config: Config, headers: Headers, *, has_head: bool) -> ModuleType:
    """Return the module that knows this architecture."""
    family, model_type = remote.recognise(config, headers.tensors), config.values.get("model_type")
    if family is None:
        remote.refuse_unknown_code(config)
        if not isinstance(model_type, str) or model_type not in FAMILIES:
            raise config.error("model_type", model_type, f"one of {sorted(FAMILIES)}")
        family = FAMILIES[model_type]
    architectures = config.values.get("architectures")
    expected, kind = family.ARCHITECTURES[model_type], "with a classification head"
    if not has_head:
        expected, kind = f"{expected.removesuffix(HEAD)}Model", "without a head, as modules.json has one"
    if architectures is not None and architectures != [expected]:
        raise config.error("architectures", architectures, f"['{expected}'], a model {kind}")
    return family


def _check_length(files: ModelFiles, longest: int, template: PairTemplate) -> int:
    """Refuse a length that leaves no token for text; the tokenizers library would then cut nothing off at all."""
    if longest <= template.num_special:
        config = Config(files.folder / SETTINGS, {})
        raise config.error("max_seq_length", longest, f"more than the {template.num_special} special tokens of a pair")
    return longest


def _check_template(config: Config, spec: ModelSpec, template: PairTemplate) -> None:
    """Refuse special tokens that leave no position for text, or token types that the model has no row for."""
    if spec.usable_length <= template.num_special:
        expected = f"more than the {template.num_special} special tokens of a pair, {spec.first_position} rows unused"
        raise config.error("max_position_embeddings", spec.max_positions, expected)
    if max(spec.num_token_types, 1) <= max(template.types):
        expected = f"at least {max(template.types) + 1}, as the tokenizer gives types 0 to {max(template.types)}"
        raise config.error("type_vocab_size", spec.num_token_types, expected)


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
