"""modules.json: of which modules sentence-transformers builds a model. Only one kind is computed here.

That kind is one Transformer, with transformers' own classification head, in the model's folder itself. A model with
further modules (pooling, dense layers) would score as if it had none, so it is refused.
"""

from typing import Any

from .errors import ConfigError, shown
from .files import ModelFiles
from .spec import Config, read_json

MODULES = "modules.json"
SETTINGS = "sentence_bert_config.json"  # of the Transformer, whatever its family
OTHER_SETTINGS = tuple(  # names that older versions gave to the same file
    f"sentence_{family}_config.json"
    for family in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
ADAPTER = "adapter_config.json"  # says that the weights of the folder are to be changed by others
TASK = "sequence-classification"
OUTPUT = {"method": "forward", "method_output_name": "logits"}
# Each setting of the Transformer, and the values with which it does what is done here.
KNOWN_SETTINGS: dict[str, tuple[Any, ...]] = {
    "transformer_task": (TASK,),
    "module_output_name": ("scores", None),
    "do_lower_case": (False, None),
    **dict.fromkeys(("processing_kwargs", "model_kwargs", "model_args", "processor_kwargs"), ({}, None)),
    **dict.fromkeys(("tokenizer_args", "config_kwargs", "config_args"), ({}, None)),
    **dict.fromkeys(("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"), (None,)),
    "unpad_inputs": (True, False, None),  # nothing is padded here
}


def read_modules(files: ModelFiles) -> int | None:
    """Check modules.json, where there is one, and return the longest pair in tokens that its Transformer is set to.

    Raises
    ------
    ConfigError
        When the modules are not exactly one Transformer in the folder itself, or it is set to do something else.
    """
    if ADAPTER in files:
        raise ConfigError(
            f"{files.folder / ADAPTER}: found an adapter, expected none, as numbert would leave it out; merge it into"
            " the model, with peft's merge_and_unload, and save that"
        )
    if MODULES not in files:
        return None
    for name in OTHER_SETTINGS:
        if name in files:
            raise ConfigError(
                f"{files.folder / name}: found settings under an old name, expected {SETTINGS}; rename it"
            )
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
    for name in config.values:
        if name in KNOWN_SETTINGS:
            config.require(name, None, KNOWN_SETTINGS[name], "all that numbert does with a text")
        elif name not in ("modality_config", "max_seq_length"):
            raise config.error(shown(name), config.values[name], "no such setting")
    texts = config.values.get("modality_config", {"text": OUTPUT})
    if not isinstance(texts, dict) or texts.get("text") != OUTPUT:
        raise config.error("modality_config", texts, f"{{'text': {OUTPUT}}}")
    if config.values.get("max_seq_length") is None:
        return None
    return config.integer("max_seq_length", high=1 << 20)
