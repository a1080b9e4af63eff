"""Start here: `CrossEncoder`, with the interface of sentence-transformers' class of that name.

inputs        what the caller gave becomes pairs of strings
scorer        pairs -> logits
  tokenization    pairs -> token ids, truncated
  batching        which pairs are computed together
  workers         on which thread
  encoder         the forward pass
activations   logits -> scores
"""

import contextlib
import dataclasses
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from ..loaders.checkpoint import load_checkpoint
from ..loaders.spec import ModelSpec
from .activations import Activation, as_activation, choose_activation, softmax
from .backend import describe_backend
from .errors import InputError
from .inputs import check_count, check_documents, check_pairs, check_query
from .scorer import Scorer
from .workers import usable_cores

logger = logging.getLogger("numbert")


class CrossEncoder:
    """Score and rank (query, passage) pairs with a cross-encoder.

    Parameters
    ----------
    model_name_or_path : str or path, optional
        A local folder, a model of the hub (``cross-encoder/ms-marco-MiniLM-L6-v2``; without an organization,
        ``cross-encoder/`` is put in front), or None for the small model that comes with numbert.
    device : {None, "cpu"}
        Where to compute.
    cache_folder, revision, local_files_only, token
        For the hub, as in sentence-transformers. A model that is in the cache is used without a connection.
    num_labels : int, optional
        Must be the number that the checkpoint has: numbert never makes up a head.
    max_length : int, optional
        Longest pair in tokens, special tokens included; longer ones are truncated. Default: what the model was
        made for.
    activation_fn, default_activation_function : callable or str, optional
        What turns logits into scores: a function of an array (B, labels), a name ("identity", "sigmoid", "tanh" or
        "softmax"), or the torch module of such a name. Default: the one saved with the model; if there is none,
        sigmoid for one label and identity for several.
    backend : {"auto", "cpu", "reference"}
        "cpu" computes with Numba; "reference" with NumPy, slowly and readably. ("torch" is accepted as "auto".)
    dtype : {"float32", "float64"}
        Precision of the computation; "float64" with the reference only.
    num_threads : int, optional
        Threads that compute. Default: the cores that this process may use.

    Raises
    ------
    ModelNotFoundError, ConfigError, WeightsError, TokenizerError
        When the model cannot be found, or its files are not as they must be.

    Notes
    -----
    A pair's score has the same bits whatever the other pairs, their order, `batch_size` and the number of threads. One
    model may be used by any number of threads at once.

    Examples
    --------
    >>> model = CrossEncoder()
    >>> query = "How many people live in Berlin?"
    >>> ranks = model.rank(query, ["Berlin is well known for its museums.", "Berlin has 3,520,031 inhabitants."])
    >>> [rank["corpus_id"] for rank in ranks]
    [1, 0]
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Any = None,
        default_activation_function: Any = None,
        backend: str = "auto",
        dtype: str = "float32",
        num_threads: int | None = None,
    ) -> None:
        if device not in (None, "cpu"):
            raise InputError(f"device: found {device!r}, expected None or 'cpu', all that is implemented; leave it out")
        threads = usable_cores() if num_threads is None else check_count(num_threads, "num_threads", low=1)
        checkpoint = load_checkpoint(
            model_name_or_path,
            cache_folder=cache_folder, revision=revision, local_files_only=local_files_only, token=token,
        )  # fmt: skip
        if num_labels not in (None, checkpoint.spec.num_labels):
            raise InputError(
                f"num_labels: found {num_labels}, the checkpoint has {checkpoint.spec.num_labels}; leave it out"
            )
        given = activation_fn if activation_fn is not None else default_activation_function
        self.activation_fn: Activation = choose_activation(given, checkpoint.activation, checkpoint.spec.num_labels)
        self.model_path = checkpoint.folder
        self._num_parameters = checkpoint.weights.num_parameters()
        self._stored_as = " ".join(checkpoint.weights.stored_dtypes())
        self._usable_length = checkpoint.spec.max_positions
        own_limit = checkpoint.tokenizer.max_length or self._usable_length
        self._num_special = checkpoint.tokenizer.template.num_special
        self.max_length = (
            self._check_length(max_length) if max_length is not None else min(own_limit, self._usable_length)
        )
        self._scorer = Scorer(checkpoint, backend, dtype, threads)

    @property
    def spec(self) -> ModelSpec:
        """Sizes and rules of the model."""
        return self._scorer.spec

    @property
    def num_labels(self) -> int:
        """Number of logits of a pair."""
        return self.spec.num_labels

    @property
    def num_threads(self) -> int:
        """Threads that compute."""
        return self._scorer.num_threads

    @property
    def backend(self) -> str:
        """The backend that computes: "cpu" or "reference"."""
        return self._scorer.backend

    def describe(self) -> dict[str, Any]:
        """Return what the model is and how it is computed on this machine, for people and programs."""
        return {
            "folder": str(self.model_path),
            **dataclasses.asdict(self.spec),
            "parameters": self._num_parameters,
            "stored_as": self._stored_as,
            "max_length": self.max_length,
            "activation": getattr(self.activation_fn, "__name__", repr(self.activation_fn)),
            "backend": self.backend,
            "dtype": self._scorer.dtype,
            "threads": self.num_threads,
            **describe_backend(self.backend),
        }

    def predict(
        self,
        inputs: Any,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,
        apply_softmax: bool = False,
        convert_to_numpy: bool = True,
    ) -> Any:
        """Score pairs.

        Parameters
        ----------
        inputs : one pair, or any iterable of pairs
            A pair is a list, tuple or NumPy array of two strings.
        batch_size : int
            The most pairs that one thread computes together. It has no influence on scores and little on speed.
        show_progress_bar : bool, optional
            Default: only when the logger "numbert" is at level INFO or DEBUG, as in sentence-transformers.
        activation_fn : callable or str, optional
            Instead of the model's, for this call.
        apply_softmax : bool
            Turn the scores of each pair into probabilities, when there are several labels.
        convert_to_numpy : bool
            False: return a list with one element for each pair.

        Returns
        -------
        ndarray of float32, shape (N,), or (N, num_labels) for several labels
            For one pair by itself, its float32 score or array (num_labels,). For no pairs, an array of shape (0,).

        Raises
        ------
        InputError, InputTypeError
            When an input is no pair of strings; the message names it, for example ``inputs[17][1]``.
        NonFiniteScoreError
            When the model computes infinity or NaN.
        """
        pairs, single = check_pairs(inputs)
        activation = self.activation_fn if activation_fn is None else as_activation(activation_fn)
        logits = self._logits(pairs, batch_size, show_progress_bar)
        scores = _scores(logits, activation)
        if apply_softmax and scores.ndim > 1:
            scores = softmax(scores)
        if single:
            return scores[0]
        return scores if convert_to_numpy else list(scores)

    def rank(
        self,
        query: str,
        documents: Any,
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,
    ) -> list[dict[str, Any]]:
        """Score passages for a query and sort them, best first.

        Parameters
        ----------
        query : str
        documents : iterable of str
        top_k : int, optional
            Return no more than so many.
        return_documents : bool
            Put the passage into each result as "text".
        batch_size, show_progress_bar, activation_fn
            As for `predict`.

        Returns
        -------
        list of dict
            {"corpus_id": position in documents, "score": float, "text": the passage}. Equal scores are put in the order
            of their logits (a sigmoid gives 1.0 to all large ones), equal logits in the order of the documents.

        Raises
        ------
        ValueError
            When the model has several labels.
        InputError, InputTypeError, NonFiniteScoreError
            As for `predict`; the place is ``query`` or ``documents[3]``.
        """
        if self.num_labels != 1:
            raise InputError(
                "CrossEncoder.rank() only works for models with num_labels=1. "
                "Consider using CrossEncoder.predict() with input pairs instead."
            )
        query = check_query(query)
        texts, given = check_documents(documents)
        limit = None if top_k is None else check_count(top_k, "top_k", low=0)
        activation = self.activation_fn if activation_fn is None else as_activation(activation_fn)
        logits = self._logits([(query, text) for text in texts], batch_size, show_progress_bar)
        scores = _scores(logits, activation)
        order = sorted(range(len(texts)), key=lambda i: (scores[i], logits[i, 0]), reverse=True)[:limit]
        results: list[dict[str, Any]] = [{"corpus_id": i, "score": float(scores[i])} for i in order]
        if return_documents:
            for result in results:
                result["text"] = given[result["corpus_id"]]
        return results

    def _logits(self, pairs: list[tuple[str, str]], batch_size: int, show_progress_bar: bool | None) -> NDArray[Any]:
        check_count(batch_size, "batch_size", low=1)
        if show_progress_bar is None:
            show_progress_bar = logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG)
        with _progress(len(pairs), show_progress_bar) as on_progress:
            return self._scorer.logits(pairs, self.max_length, batch_size, on_progress)

    def _check_length(self, max_length: Any) -> int:
        length = check_count(max_length, "max_length", low=self._num_special + 1)
        if length > self._usable_length:
            raise InputError(
                f"max_length: found {length}, the model has positions for {self._usable_length}; choose no more"
            )
        return length


def _scores(logits: NDArray[Any], activation: Activation) -> NDArray[Any]:
    """Apply the activation to logits (N, labels); one label gives scores (N,)."""
    scores = np.asarray(activation(logits)) if len(logits) else logits
    if scores.shape != logits.shape:
        raise InputError(
            f"activation_fn: made shape {scores.shape} of logits {logits.shape}, expected the same; correct it"
        )
    if scores.dtype != logits.dtype:
        scores = scores.astype(float32)
    if not len(logits):
        return np.empty(0, scores.dtype)
    return scores[:, 0] if scores.shape[1] == 1 else scores


@contextlib.contextmanager
def _progress(total: int, show: bool) -> Iterator[Callable[[int], object]]:
    """Give a function that is told how many more pairs are done."""
    if not show:
        yield lambda count: None
        return
    tqdm = importlib.import_module("huggingface_hub.utils").tqdm  # here, because it is slow to import
    with tqdm(total=total, desc="Pairs", unit="pair") as bar:
        yield bar.update
