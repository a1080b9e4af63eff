"""Families whose folders bring code of their own. It is not run: what it computes is known here.

They are recognised by keys of config.json and names of tensors together: keys alone are those of other families too
(JinaBERT says that it is a "bert"), and names say nothing of rules.
"""

from collections.abc import Collection
from types import ModuleType

from . import gte, gte_remote, jina_bert, jina_xlm
from .errors import ConfigError, WeightsError
from .spec import Config

MODULES = (jina_bert, jina_xlm, gte, gte_remote)
OTHER_SIGN = "bert.encoder.layer.0.attention.self.layer_norm_q.weight"  # of jina-bert-v2-qk-post-norm


def recognise(config: Config, tensors: Collection[str]) -> ModuleType | None:
    """Return the module of the family that a folder is of, by its config.json and the names of its tensors.

    Raises
    ------
    WeightsError
        When it is of a family that is known not to be implemented.
    """
    if _is_there(OTHER_SIGN, tensors):
        raise WeightsError(
            f"{config.path.parent}: found tensor {OTHER_SIGN}, a norm of queries as in jina-bert-v2-qk-post-norm,"
            " expected none, as such norms are not implemented; choose another model"
        )
    for module in MODULES:
        # a list, as a type of model read from a file may be anything
        of_type = config.values.get("model_type") in list(module.ARCHITECTURES)
        has_keys = all(config.values.get(key) == value for key, value in module.KEYS.items())
        if of_type and has_keys and _is_there(module.SIGN, tensors):
            return module
    return None


def refuse_unknown_code(config: Config) -> None:
    """Refuse a folder that brings code of its own, and say whose code is known.

    Raises
    ------
    ConfigError
        When there is such code.
    """
    if "auto_map" not in config.values:
        return
    known = "; ".join(_describe(module) for module in MODULES)
    raise ConfigError(
        f"{config.path}: auto_map: the model brings its own code, which is never run; expected a family that is known"
        f" without it, by keys and a tensor: {known}. Choose another model"
    )


def _describe(module: ModuleType) -> str:
    kinds = " or ".join(repr(kind) for kind in module.ARCHITECTURES)
    keys = "".join(f", {key} {value!r}" for key, value in module.KEYS.items())
    return f"model_type {kinds}{keys}, {module.SIGN}"


def _is_there(sign: str, tensors: Collection[str]) -> bool:
    """Tell whether a tensor is there; the file of an encoder without a head lacks the first word of its name."""
    return sign in tensors or sign.partition(".")[2] in tensors
