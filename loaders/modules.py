"""modules.json: of which modules sentence-transformers builds a model. Only one kind is computed here.

That kind is one Transformer, with transformers' own classification head, in the model's folder itself. A model with
further modules (pooling, dense layers) would score as if it had none, so it is refused.
"""

from typing import Any

from .errors import ConfigError
from .files import ModelFiles
from .spec import Config, read_json

MODULES = "modules.json"
SETTINGS = "sentence_bert_config.json"  # of the Transformer, whatever its family
TASK = "sequence-classification"


def read_modules(files: ModelFiles) -> int | None:
    """Check modules.json, where there is one, and return the longest pair in tokens that its Transformer is set to.

    Raises
    ------
    ConfigError
        When the modules are not exactly one Transformer in the folder itself, or it is set to do something else.
    """
    if MODULES not in files:
        return None
    path, modules = files.folder / MODULES, read_json(files, MODULES)
    kinds = [_kind(module) for module in modules] if isinstance(modules, list) else [f"a JSON {type(modules).__name__}"]
    if kinds != ["Transformer"]:
        raise ConfigError(
            f"{path}: found modules {', '.join(kinds) or 'of none'}, expected exactly one Transformer, as numbert"
            " computes no others and would leave them out; choose another model"
        )
    place = modules[0].get("path", "")
    if place not in ("", "."):
        raise ConfigError(
            f"{path}: path: found {place!r:.100}, expected '', the folder itself; name that folder as the model"
        )
    return _read_settings(Config.read_if_there(files, SETTINGS))


def _kind(module: Any) -> str:
    """Return the name of a module's class, without the package that it comes from."""
    kind = module.get("type") if isinstance(module, dict) else None
    if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
        return f"{kind!r:.100}"
    return kind.rpartition(".")[2][:100]


def _read_settings(config: Config) -> int | None:
    config.require("transformer_task", TASK, (TASK,), "only a head of transformers' own makes scores here")
    config.require("do_lower_case", False, (False,), "texts are given to the tokenizer as they are")
    if config.values.get("max_seq_length") is None:
        return None
    return config.integer("max_seq_length", high=1 << 20)
