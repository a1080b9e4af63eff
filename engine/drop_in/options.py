"""sentence-transformers' options that choose nothing here: each is honoured or refused by name, none ignored."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InputError, InputTypeError
from ..inputs import check_flag, check_text, show
from .deprecated import warn_once

logger = logging.getLogger("numbert")

DEVICES = {"auto": None, "cpu": "cpu", "cuda": "cuda", "cuda:0": "cuda"}
ATTENTION = ("eager", "sdpa", "flash_attention_2")  # ways to compute the same; ours is our own
TRUNCATION = "longest_first"  # the only way that numbert truncates


class NoModelCard:
    """Takes what sentence-transformers' evaluators would write into a model card; there is none to write it into."""

    def set_evaluation_metrics(self, evaluator: Any, metrics: Mapping[str, Any], *args: Any) -> None:
        """Accept the metrics of an evaluation."""


def backend_of_device(device: Any, backend: str) -> str:
    """Return the backend for a device: "cuda" for a GPU, else the one that was asked for.

    Raises
    ------
    InputError
        When the device is unknown, or is another than the backend's.
    """
    name = _name_of_device(device)
    if name == "cuda":
        if backend not in ("auto", "torch", "cuda"):
            raise InputError(
                f"device: found {show(device)} with backend {show(backend)}, expected one place; leave out one"
            )
        return "cuda"
    if name == "cpu" and backend == "cuda":
        raise InputError(
            f"device: found {show(device)} with backend 'cuda', expected one place; leave out one of the two"
        )
    return backend


def check_device(device: Any, own: str) -> None:
    """Accept None, the model's own device, and lists of it (threads do what sentence-transformers does by processes).

    Raises
    ------
    InputError
        When it is another device.
    """
    for name in device if isinstance(device, list | tuple) else [device]:
        if _name_of_device(name) not in (None, own):
            raise InputError(
                f"device: found {show(name)}, the model was loaded for {own!r}; leave it out, or load another"
            )


def _name_of_device(device: Any) -> str | None:
    """Return "cpu", "cuda", or None where there is no choice."""
    name = "auto" if device is None else _text_of(device)  # torch.device prints its name
    if name not in DEVICES:
        raise InputError(
            f"device: found {show(device)}, expected None, 'cpu' or 'cuda'; leave it out, or choose among several GPUs"
            " by CUDA_VISIBLE_DEVICES"
        )
    return DEVICES[name]


def check_unused(**options: Any) -> None:
    """Refuse options that would choose something that numbert does not have."""
    reasons = {
        "modules": "models are loaded from files, not built of torch modules",
        "model_card_data": "numbert writes no model cards",
    }
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name}: found {type(value).__name__}, expected None ({reasons[name]}); leave it out")


def check_trust(trust_remote_code: bool) -> None:
    """Accept the permission, and say that it is not used: no code of a model is ever run."""
    if check_flag(trust_remote_code, "trust_remote_code"):
        warn_once("trust_remote_code: numbert never runs a model's code; a model that needs it is refused.")


def dtype_from(model_kwargs: Mapping[str, Any] | None, dtype: str | None) -> str | None:
    """Read the options of transformers' models: a dtype, and ways to compute attention.

    Raises
    ------
    InputError
        When an option is none of these.
    """
    for name, value in _settings("model_kwargs", model_kwargs):
        if name in ("dtype", "torch_dtype"):
            asked = _text_of(value).removeprefix("torch.")
            if asked not in ("auto", "None"):  # both: numbert's default, which is float32 whatever the file holds
                dtype = asked
        elif name != "attn_implementation" or not (value is None or _text_of(value) in ATTENTION):
            raise InputError(f"model_kwargs[{name!r}]: found {show(value)}, expected only 'dtype'; leave it out")
    return dtype


def check_kept_modules(names: Any, dtype: str) -> None:
    """Refuse to keep some modules in float32 while others are computed in less.

    Raises
    ------
    InputError
        When modules are named and the dtype is not "float32" or "float64".
    """
    if dtype not in ("float32", "float64") and check_flag(names, "keep_in_fp32_modules"):
        raise InputError(
            f"keep_in_fp32_modules: found {show(names)} with dtype {dtype!r}, expected None: embeddings, attention,"
            " LayerNorm and head always stay float32, other modules cannot be chosen; leave it out"
        )


def num_labels_from(config_kwargs: Mapping[str, Any] | None, num_labels: int | None) -> int | None:
    """Read the options of transformers' configurations: the number of labels, and a dropout that scoring has not."""
    for name, value in _settings("config_kwargs", config_kwargs):
        if name == "num_labels":
            num_labels = value if num_labels is None else num_labels
        elif name != "classifier_dropout":  # acts in training only
            raise InputError(
                f"config_kwargs[{name!r}]: found {show(value)}, expected only 'num_labels'; edit config.json instead"
            )
    return num_labels


def max_length_from(processor_kwargs: Mapping[str, Any] | None, max_length: int | None) -> int | None:
    """Read the options of transformers' tokenizers: the longest pair."""
    for name, value in _settings("processor_kwargs", processor_kwargs):
        if name in ("model_max_length", "max_length"):
            max_length = value if max_length is None else max_length
        elif name not in ("use_fast", "padding_side") and (name, _text_of(value)) != ("truncation_side", "right"):
            # use_fast: there is no slow one; padding_side: there is no padding
            raise InputError(
                f"processor_kwargs[{name!r}]: found {show(value)}, expected only 'model_max_length'; leave it out"
            )
    return max_length


def max_length_of_call(processing_kwargs: Mapping[str, Any] | None) -> int | None:
    """Read ``processing_kwargs={"text": {"max_length": 256}}`` of one call.

    Raises
    ------
    InputError, InputTypeError
        When it asks for anything but a length (truncation is always "longest_first", padding never happens).
    """
    length = None
    for kind, settings in _settings("processing_kwargs", processing_kwargs):
        if kind not in ("text", "common"):
            raise InputError(
                f"processing_kwargs[{kind!r}]: found a setting for {kind!r}, expected 'text'; leave it out"
            )
        for name, value in _settings(f"processing_kwargs[{kind!r}]", settings):
            if name == "max_length":
                length = value
            elif name != "padding" and not (name == "truncation" and (value is True or _text_of(value) == TRUNCATION)):
                place = f"processing_kwargs[{kind!r}][{name!r}]"
                raise InputError(f"{place}: found {show(value)}, expected only 'max_length'; leave it out")
    return length


def _settings(place: str, given: Any) -> Iterable[tuple[str, Any]]:
    """Return the items of an optional dictionary."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise InputTypeError(f"{place}: found {type(given).__name__}, expected a dict; pass one")
    return [(check_text(name, f"{place}, a name"), value) for name, value in given.items()]


def _text_of(value: Any) -> str:
    """Return what a value prints, shortened; where it cannot be printed, the name of its type, which is no option."""
    try:
        return str(value)[:100]
    except Exception:
        return type(value).__name__
