"""What turns logits into scores: functions of an array of logits (B, labels)."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..loaders.errors import ConfigError
from .errors import InputError, InputTypeError
from .inputs import show

logger = logging.getLogger("numbert")
Array = NDArray[Any]
Activation = Callable[[Array], Any]


def identity(logits: Array) -> Array:
    """Return the logits."""
    return logits


def sigmoid(logits: Array) -> Array:
    """1 / (1 + e^-x); the logits' sign decides which form is used, so that exp never overflows."""
    decay = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, decay).astype(logits.dtype) / (1 + decay)


def tanh(logits: Array) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(logits)


def softmax(logits: Array) -> Array:
    """Probabilities over the labels of each pair."""
    with np.errstate(invalid="ignore"):  # infinities, which an activation may have made, become NaN: refused later
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


BY_NAME: dict[str, Activation] = {"identity": identity, "sigmoid": sigmoid, "tanh": tanh, "softmax": softmax}


def choose_activation(given: Any, saved: str | None, num_labels: int) -> Activation:
    """Return the activation: the caller's, else the one saved with the model, else sentence-transformers' default.

    Parameters
    ----------
    given : callable, str or None
        A function of an array, a name in `BY_NAME`, or a torch module or class that is known by its name (torch is not
        imported).
    saved : str or None
        Dotted path of a class from the model's configuration. It is looked up in a table, never imported.

    Raises
    ------
    ConfigError
        When the saved path is torch's, and the table does not have it.
    """
    if given is not None:
        return as_activation(given)
    if saved is not None:
        known = BY_NAME.get(saved.rpartition(".")[2].lower())
        if saved.startswith("torch."):
            if known is None:
                raise ConfigError(
                    f"activation_fn: found {saved!r}, expected one of {sorted(BY_NAME)}; pass activation_fn"
                )
            return known
        logger.warning(
            "Activation function path %r is not trusted, using default activation function instead; pass activation_fn",
            saved,
        )
    return sigmoid if num_labels == 1 else identity


def as_activation(given: Any) -> Activation:
    """Turn what a caller passes as activation into a function of an array.

    Raises
    ------
    InputError, InputTypeError
        When it is an unknown name, a torch module that the table does not have, or cannot be called.
    """
    kind = given if isinstance(given, type) else type(given)
    is_text = issubclass(type(given), str)
    if is_text or str(kind.__module__).startswith("torch."):
        name = str.__str__(given) if is_text else kind.__name__
        if name.lower() not in BY_NAME:
            raise InputError(
                f"activation_fn: found {show(name)}, expected one of {sorted(BY_NAME)} or a function of an array;"
                " pass one"
            )
        return BY_NAME[name.lower()]
    if not callable(given):
        raise InputTypeError(f"activation_fn: found {type(given).__name__}, expected a function of an array; pass one")
    function: Activation = given
    return function
