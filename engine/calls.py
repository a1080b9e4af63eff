"""What `predict` and `rank` do: check what was given, ask for logits, and make scores of them.

Each is a generator: it yields the one request that it has, is sent the logits, and returns the result. So the same
lines serve callers who wait and callers who are notified.
"""

import importlib
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from .activations import Activation, as_activation, softmax
from .drop_in import options
from .errors import BackendError, InputError, InputTypeError, NonFiniteScoreError
from .inputs import (
    Pair,
    check_count,
    check_documents,
    check_flag,
    check_pairs,
    check_query,
    check_text,
    check_threshold,
    show,
)


class Model(Protocol):
    """What a call asks of a `CrossEncoder`."""

    activation_fn: Activation

    @property
    def num_labels(self) -> int:
        """Number of logits of a pair."""

    @property
    def max_seq_length(self) -> int:
        """Longest pair in tokens."""

    @property
    def device(self) -> str:
        """Where scores are computed."""

    def _with_prompt(self, pairs: list[Pair], prompt: str | None, prompt_name: str | None) -> list[Pair]:
        """Put a prompt in front of each query."""

    def _length_of_call(self, processing_kwargs: Mapping[str, Any] | None) -> int:
        """Return the longest pair in tokens that a call allows."""


class Request(NamedTuple):
    """Pairs whose logits are asked for."""

    pairs: list[Pair]
    max_length: int  # longest pair in tokens
    batch_size: int  # most of them in a shard
    windows: bool = False  # read all of a long passage, window by window, and take the largest logit; else truncate


ScoringCall = Generator[Request, NDArray[Any], Any]


def finish(call: ScoringCall, logits: NDArray[Any]) -> Any:
    """Send a call the logits that it asked for, and return its result."""
    try:
        call.send(logits)
    except StopIteration as end:
        return end.value
    raise AssertionError("a call asks once")


def predicting(
    model: Model,
    inputs: Any,
    *,
    prompt_name: str | None = None,
    prompt: str | None = None,
    batch_size: int = 32,
    activation_fn: Any = None,
    apply_softmax: bool = False,
    convert_to_numpy: bool = True,
    convert_to_tensor: bool = False,
    device: Any = None,
    chunk_size: int | None = None,
    processing_kwargs: Mapping[str, Any] | None = None,
) -> ScoringCall:
    """Do what `CrossEncoder.predict` says."""
    _check_place(model, device, chunk_size)
    apply_softmax = check_flag(apply_softmax, "apply_softmax")
    convert_to_numpy = check_flag(convert_to_numpy, "convert_to_numpy")
    convert_to_tensor = check_flag(convert_to_tensor, "convert_to_tensor")
    pairs, single = check_pairs(inputs)
    max_length = model._length_of_call(processing_kwargs)
    pairs = model._with_prompt(pairs, prompt, prompt_name)
    activation = model.activation_fn if activation_fn is None else as_activation(activation_fn)
    logits = yield Request(pairs, max_length, check_count(batch_size, "batch_size", low=1))
    scores = _scores(logits, activation)
    if apply_softmax and scores.ndim > 1:
        scores = softmax(scores)
    _check_order(scores, pairs)
    result: Any = scores
    if convert_to_tensor:
        result = _torch().from_numpy(scores)
    elif not convert_to_numpy:
        result = list(scores)
    return result[0] if single else result


def ranking(
    model: Model,
    query: str,
    documents: Any,
    *,
    top_k: int | None = None,
    return_documents: bool = False,
    prompt_name: str | None = None,
    prompt: str | None = None,
    batch_size: int = 32,
    activation_fn: Any = None,
    device: Any = None,
    chunk_size: int | None = None,
    score_threshold: float | None = None,
    long_documents: str = "truncate",
) -> ScoringCall:
    """Do what `CrossEncoder.rank` says."""
    if model.num_labels != 1:
        raise InputError(
            "CrossEncoder.rank() only works for models with num_labels=1. "
            "Consider using CrossEncoder.predict() with input pairs instead."
        )
    _check_place(model, device, chunk_size)
    return_documents = check_flag(return_documents, "return_documents")
    threshold = check_threshold(score_threshold)
    long_documents = check_text(long_documents, "long_documents")
    if long_documents not in ("truncate", "windows"):
        raise InputError(f"long_documents: found {show(long_documents)}, expected 'truncate' or 'windows'; choose one")
    query = check_query(query)
    texts, given = check_documents(documents)
    limit = None if top_k is None else check_count(top_k, "top_k", low=0)
    activation = model.activation_fn if activation_fn is None else as_activation(activation_fn)
    pairs = model._with_prompt([(query, text) for text in texts], prompt, prompt_name)
    batch_size = check_count(batch_size, "batch_size", low=1)
    logits = yield Request(pairs, model.max_seq_length, batch_size, long_documents == "windows")
    scores = _scores(logits, activation)
    _check_order(scores, pairs)
    with np.errstate(over="ignore"):  # a threshold beyond float32 is above all scores
        kept = [i for i in range(len(texts)) if threshold is None or scores[i] >= threshold]
    order = sorted(kept, key=lambda i: (scores[i], logits[i, 0]), reverse=True)[:limit]
    results: list[dict[str, Any]] = [{"corpus_id": i, "score": float(scores[i])} for i in order]
    if return_documents:
        for result in results:
            result["text"] = given[result["corpus_id"]]
    return results


def _check_place(model: Model, device: Any, chunk_size: Any) -> None:
    options.check_device(device, model.device)
    if chunk_size is not None:
        check_count(chunk_size, "chunk_size", low=1)


def _torch() -> Any:
    """Import torch, which numbert itself never needs."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise BackendError("convert_to_tensor=True: torch is not installed; leave it out") from error


def _scores(logits: NDArray[Any], activation: Activation) -> NDArray[Any]:
    """Apply the activation to logits (N, labels); one label gives scores (N,)."""
    made = activation(logits.copy()) if len(logits) else logits  # a copy: it may work in place
    try:
        scores = np.asarray(made)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"activation_fn: made no array ({error}), expected shape {logits.shape}; correct it") from None
    if scores.dtype.kind not in "biuf":
        raise InputTypeError(f"activation_fn: made {scores.dtype}, expected real numbers; correct it")
    if scores.shape != logits.shape:
        raise InputError(
            f"activation_fn: made shape {scores.shape} of logits {logits.shape}, expected the same; correct it"
        )
    if scores.dtype != logits.dtype:
        with np.errstate(over="ignore"):  # beyond float32 is infinity
            scores = scores.astype(float32)
    if not len(logits):
        return np.empty(0, scores.dtype)
    return scores[:, 0] if scores.shape[1] == 1 else scores


def _check_order(scores: NDArray[Any], pairs: list[Pair]) -> None:
    """Refuse what an activation made of a pair if it is not a number: it has no place in a ranking."""
    wrong = np.isnan(scores)
    if wrong.any():
        place = int(np.argmax(wrong.reshape(len(pairs), -1).any(axis=1)))
        raise NonFiniteScoreError(
            f"pair {place} {show(pairs[place])}: found nan, expected a number; the logits are finite, so correct"
            " activation_fn"
        )
