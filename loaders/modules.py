"""modules.json: of which modules sentence-transformers builds a model.

Two kinds are computed here: one Transformer with transformers' own classification head, and an encoder without a head,
behind which a Pooling and further modules make the scores (modular_head.py). Any other would be left out, so it is
refused.
"""

from typing import Any, NamedTuple

from .errors import ConfigError, shown
from .files import ModelFiles, is_plain
from .spec import Config, read_json

MODULES = "modules.json"
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"  # of the whole model
SETTINGS = "sentence_bert_config.json"  # of the Transformer, whatever its family
OTHER_SETTINGS = tuple(  # names that older versions gave to the same file
    f"sentence_{family}_config.json"
    for family in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
ADAPTER = "adapter_config.json"  # says that the weights of the folder are to be changed by others
MOST_MODULES = 64  # published ones have up to five
CONFIG, WEIGHTS = "config.json", "model.safetensors"
FILES_OF = {  # each module behind the Transformer, and what must be in its folder
    "Pooling": (CONFIG,),
    "Dense": (CONFIG, WEIGHTS),
    "LayerNorm": (CONFIG, WEIGHTS),
    "Normalize": (),
}


class Task(NamedTuple):
    """What the Transformer is there for, as its settings say it."""

    name: str
    output: str  # of transformers' model
    feature: str  # the name under which the next module finds it

    @property
    def modality_config(self) -> dict[str, Any]:
        """The only kind of input: text."""
        return {"text": {"method": "forward", "method_output_name": self.output}}


WITH_HEAD = Task("sequence-classification", "logits", "scores")
WITHOUT_HEAD = Task("feature-extraction", "last_hidden_state", "token_embeddings")
# Each setting of the Transformer, and the values with which it does what is done here.
KNOWN_SETTINGS: dict[str, tuple[Any, ...]] = {
    "do_lower_case": (False, None),
    **dict.fromkeys(("processing_kwargs", "model_kwargs", "model_args", "processor_kwargs"), ({}, None)),
    **dict.fromkeys(("tokenizer_args", "config_kwargs", "config_args"), ({}, None)),
    **dict.fromkeys(("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"), (None,)),
    "unpad_inputs": (True, False, None),  # nothing is padded here
}


class Module(NamedTuple):
    """A module behind the Transformer."""

    kind: str
    folder: str


class Chain(NamedTuple):
    """What sentence-transformers runs one after the other."""

    listed: Any = None  # the content of modules.json
    behind: tuple[Module, ...] = ()  # the Transformer; none: that has a classification head
    longest: int | None = None  # pair in tokens that the Transformer is set to

    @property
    def task(self) -> Task:
        """What the Transformer is there for."""
        return WITHOUT_HEAD if self.behind else WITH_HEAD


def read_modules(files: ModelFiles) -> Chain:
    """Check modules.json, where there is one, and the settings of its Transformer.

    Raises
    ------
    ConfigError
        When the modules are neither one Transformer in the folder itself, nor that with a Pooling and others behind it,
        or it is set to do something else.
    """
    if ADAPTER in files:
        raise ConfigError(
            f"{files.folder / ADAPTER}: found an adapter, expected none, as numbert would leave it out; merge it into"
            " the model, with peft's merge_and_unload, and save that"
        )
    if MODULES not in files:
        return Chain()
    for name in OTHER_SETTINGS:
        if name in files:
            raise ConfigError(
                f"{files.folder / name}: found settings under an old name, expected {SETTINGS}; rename it"
            )
    listed = read_json(files, MODULES)
    chain = Chain(listed, _behind(Config(files.folder / MODULES, {}), listed))
    if chain.behind:
        newer = Config.read_if_there(files, SENTENCE_TRANSFORMERS)
        newer.require("model_type", None, ("CrossEncoder",), "sentence-transformers builds no other model's modules")
    return chain._replace(longest=_read_settings(Config.read_if_there(files, SETTINGS), chain.task))


def module_files(files: ModelFiles) -> dict[str, tuple[str, ...]]:
    """Return what modules.json asks for in each folder; nothing where it is not one that `read_modules` accepts."""
    try:
        chain = _behind(Config(files.folder / MODULES, {}), read_json(files, MODULES)) if MODULES in files else ()
    except ConfigError:
        return {}
    return {module.folder: FILES_OF[module.kind] for module in chain}


def _behind(config: Config, listed: Any) -> tuple[Module, ...]:
    """Return the modules behind the Transformer."""
    if isinstance(listed, list) and len(listed) > MOST_MODULES:
        raise ConfigError(
            f"{config.path}: found {len(listed)} modules, expected at most {MOST_MODULES}; choose another model"
        )
    modules = listed if isinstance(listed, list) else [listed]
    kinds = [_kind(module) for module in modules]
    understood = kinds == ["Transformer"] or (kinds[:2] == ["Transformer", "Pooling"] and len(kinds) > 2)
    if not isinstance(listed, list) or not understood or not set(kinds[2:]) <= set(FILES_OF) - {"Pooling"}:
        found = ", ".join(kinds) or "of none" if isinstance(listed, list) else f"a JSON {type(listed).__name__}"
        raise ConfigError(
            f"{config.path}: found modules {found}, expected a Transformer alone, or a Transformer, a Pooling, and then"
            " Dense, LayerNorm or Normalize, as numbert computes no others and would leave them out; choose another"
            " model"
        )
    if modules[0].get("path", "") not in ("", "."):
        raise config.error("path", modules[0]["path"], "'', the folder itself, for the Transformer")
    # Of two modules with one name, sentence-transformers leaves one out.
    for key, taken in (("name", [modules[0].get("name")]), ("path", [])):
        for i, module in enumerate(modules[1:], 1):
            value = module.get(key)
            if not isinstance(value, str) or not is_plain(value) or value in taken:
                raise config.error(f"[{i}]: {key}", value, "a plain name that no other module has")
            taken.append(value)
    return tuple(Module(kind, module["path"]) for kind, module in zip(kinds[1:], modules[1:], strict=True))


def _kind(module: Any) -> str:
    """Return the name of a module's class, without the package that it comes from."""
    kind = module.get("type") if isinstance(module, dict) else None
    if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
        return f"{kind!r:.100}"
    return shown(kind.rpartition(".")[2][:100])


def _read_settings(config: Config, task: Task) -> int | None:
    known = {**KNOWN_SETTINGS, "transformer_task": (task.name,), "module_output_name": (task.feature, None)}
    known["modality_config"] = (task.modality_config,)
    for name in config.values:
        if name in known:
            config.require(name, None, known[name], "all that numbert does with a text")
        elif name != "max_seq_length":
            raise config.error(shown(name), config.values[name], "no such setting")
    if config.values.get("max_seq_length") is None:
        return None
    return config.integer("max_seq_length", high=1 << 20)
