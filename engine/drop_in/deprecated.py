"""Names and forms of arguments that sentence-transformers has deprecated: accepted, with its warnings."""

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from ..inputs import show

logger = logging.getLogger("numbert")
F = TypeVar("F", bound=Callable[..., Any])

OLD_CONSTRUCTOR_NAMES = {
    "model_name": "model_name_or_path",
    "automodel_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "tokenizer_kwargs": "processor_kwargs",
    "config_args": "config_kwargs",
    "cache_dir": "cache_folder",
    "default_activation_function": "activation_fn",
}
OLD_POSITIONS = ("num_labels", "max_length", "activation_fn", "device")  # after the model's name, before version 5.4
OLD_CALL_NAMES = {"sentences": "inputs", "activation_fct": "activation_fn"}
END = "It will be removed in a future version."


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning the first time that it is due."""
    logger.warning(message)


def accept_old_constructor(function: F) -> F:
    """Translate old names and positional arguments of the constructor; where both are given, the new name wins."""

    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        for name, value in zip(OLD_POSITIONS, args[1:], strict=False):
            logger.warning(
                "Passing `%s` as a positional argument to CrossEncoder is deprecated. "
                "Please use `%s=%s` as a keyword argument instead.", name, name, show(value),
            )  # fmt: skip
            kwargs.setdefault(name, value)
        if len(args) > 1 + len(OLD_POSITIONS):
            raise TypeError(
                f"CrossEncoder() takes at most {1 + len(OLD_POSITIONS)} positional arguments, got {len(args)}"
            )
        for old, new in OLD_CONSTRUCTOR_NAMES.items():
            if old in kwargs:
                value = kwargs.pop(old)
                warn_once(
                    f"The CrossEncoder `{old}` argument was renamed and is now deprecated. Please use `{new}` instead."
                )
                kwargs.setdefault(new, value)
        if "classifier_dropout" in kwargs:
            value = kwargs.pop("classifier_dropout")
            instead = f"`config_kwargs={{'classifier_dropout': {show(value)}}}`"
            logger.warning(
                "The CrossEncoder `classifier_dropout` argument is deprecated. Please use %s instead.", instead
            )
            kwargs["config_kwargs"] = {**(kwargs.get("config_kwargs") or {}), "classifier_dropout": value}
        function(self, *args[:1], **kwargs)

    return wrapper  # type: ignore[return-value]  # it also takes the old forms


def accept_old_call(function: F) -> F:
    """Translate old names of arguments of `predict` and `rank`, and drop those that have no meaning any more."""
    method = function.__name__
    dropped = {
        "num_workers": f"The CrossEncoder.{method} `num_workers` argument is deprecated and has no effect. {END}"
    }
    if method == "rank":
        dropped["apply_softmax"] = (
            "The CrossEncoder.rank `apply_softmax` argument is deprecated and has no effect, as "
            f"`rank` only supports models with `num_labels=1`. {END}"
        )
        for name in ("convert_to_numpy", "convert_to_tensor"):
            dropped[name] = (
                f"The CrossEncoder.rank `{name}` argument is deprecated and has no effect, as "
                f"`rank` always returns Python floats. {END}"
            )

    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        for old, new in OLD_CALL_NAMES.items():
            if old in kwargs:
                value = kwargs.pop(old)
                warn_once(f"The `{old}` argument was renamed and is now deprecated. Please use `{new}` instead.")
                kwargs.setdefault(new, value)
        for name, message in dropped.items():
            if name in kwargs:
                del kwargs[name]
                warn_once(message)
        return function(self, *args, **kwargs)

    return wrapper  # type: ignore[return-value]  # it also takes the old forms
