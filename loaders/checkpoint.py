"""Start here: a model's name becomes a checkpoint, all of whose files have been checked.

    source        name -> folder
    spec, bert    config.json -> ModelSpec, and the tensors that it promises
    tensors       safetensors -> weights under canonical names
    tokenizer     tokenizer.json or vocab.txt -> token ids of a text

No file is a pickle, none runs code, none is fetched from elsewhere than the hub.
"""

import os
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from . import bert
from .errors import ConfigError
from .source import find_folder
from .spec import Config, ModelSpec
from .tensors import Weights, open_weights
from .tokenizer import PairTemplate, PairTokenizer, load_tokenizer

FAMILIES: dict[str, ModuleType] = {"bert": bert}  # by model_type


class Checkpoint(NamedTuple):
    """Everything that was read from a model's folder."""

    folder: Path
    spec: ModelSpec
    weights: Weights
    tokenizer: PairTokenizer
    activation: str | None  # dotted path of the torch class that turns logits into scores; None when not given
    config: dict[str, Any]


def load_checkpoint(name: str | os.PathLike[str] | None, **hub_options: Any) -> Checkpoint:
    """Find, read and check a model. `name` and `hub_options` are those of `source.find_folder`.

    Raises
    ------
    ModelNotFoundError, ConfigError, WeightsError, TokenizerError
        When anything is not as it must be; nothing is guessed, nothing initialised at random.
    """
    folder = find_folder(name, **hub_options)
    config = Config.read(folder / "config.json")
    family = _family(config)
    spec: ModelSpec = family.read_spec(config)
    weights = open_weights(folder, family.tensor_table(spec), family.IGNORED)
    tokenizer = load_tokenizer(folder, spec.vocab_size)
    _check_template(config, spec, tokenizer.template)
    return Checkpoint(folder, spec, weights, tokenizer, _activation_path(folder, config), config.values)


def _family(config: Config) -> ModuleType:
    """Return the module that knows this architecture."""
    if "auto_map" in config.values:
        raise ConfigError(
            f"{config.path}: auto_map: the model brings its own code, which is never run; choose another model"
        )
    model_type = config.values.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise config.error("model_type", model_type, f"one of {sorted(FAMILIES)}")
    family = FAMILIES[model_type]
    architectures = config.values.get("architectures")
    if architectures is not None and architectures != [family.ARCHITECTURE]:
        raise config.error(
            "architectures", architectures, f"['{family.ARCHITECTURE}'], a model with a classification head"
        )
    return family


def _check_template(config: Config, spec: ModelSpec, template: PairTemplate) -> None:
    """Refuse special tokens that leave no position for text, or token types that the model has no row for."""
    if spec.max_positions <= template.num_special:
        expected = f"more than the {template.num_special} special tokens of a pair"
        raise config.error("max_position_embeddings", spec.max_positions, expected)
    if spec.num_token_types <= max(template.types):
        expected = f"at least {max(template.types) + 1}, as the tokenizer gives types 0 to {max(template.types)}"
        raise config.error("type_vocab_size", spec.num_token_types, expected)


def _activation_path(folder: Path, config: Config) -> str | None:
    """Return the activation that the model's author saved; the three places are those of sentence-transformers."""
    newer = folder / "config_sentence_transformers.json"
    places = [
        (newer, Config.read(newer).values.get("activation_fn") if newer.is_file() else None),
        (config.path, _nested(config, "sentence_transformers").get("activation_fn")),
        (config.path, config.values.get("sbert_ce_default_activation_function")),
    ]
    for path, value in places:
        if value is not None:
            if not isinstance(value, str):
                raise ConfigError(
                    f"{path}: activation: found {value!r}, expected the dotted path of a class; correct the file"
                )
            return value
    return None


def _nested(config: Config, key: str) -> dict[str, Any]:
    value = config.values.get(key, {})
    if not isinstance(value, dict):
        raise config.error(key, value, "an object")
    return value
