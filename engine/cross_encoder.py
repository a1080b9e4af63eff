"""Start here: `CrossEncoder`, with the interface of sentence-transformers' class of that name.

    calls         what predict and rank do, from what is given to what is returned
    inputs        what the caller gave becomes pairs of strings
    scorer        pairs -> logits
      tokenization    pairs -> token ids, truncated
      queue           which pairs are computed together
      workers         on which thread
      runner          the model, ready to compute them
        encoder         the forward pass
    activations   logits -> scores

drop_in holds what sentence-transformers' interface has besides.
"""

import copy
import dataclasses
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..loaders.checkpoint import Checkpoint, load_checkpoint
from ..loaders.spec import ModelSpec, head_in_words
from .activations import BY_NAME, Activation, choose_activation
from .calls import ScoringCall, finish, predicting, ranking
from .cores import usable_cores
from .drop_in import options
from .drop_in.deprecated import accept_old_call, accept_old_constructor, warn_once
from .drop_in.prompts import Prompts, check_prompts
from .errors import InputError, InputTypeError
from .frozen import open_packed
from .inputs import (
    Pair,
    check_count,
    check_flag,
    check_pairs,
    check_text,
    check_threads,
    describe,
    is_one_pair,
    show,
)
from .progress import show_bar
from .scorer import Scorer

if TYPE_CHECKING:
    from .drop_in.saving import Loaded

logger = logging.getLogger("numbert")
UNDESCRIBED = ("layers", "head", "without_bias")  # long; the head is told in words


class CrossEncoder:
    """Score and rank (query, passage) pairs with a cross-encoder.

    Parameters
    ----------
    model_name_or_path : str or path, optional
        A local folder, a model of the hub (``cross-encoder/ms-marco-MiniLM-L6-v2``; without an organization,
        ``cross-encoder/`` is put in front), or None for the small model that comes with numbert.
    device : {None, "cpu", "cuda"}
        Where to compute; None is the processor. "cuda" is an NVIDIA GPU, and needs numba-cuda: in a checkout,
        ``pip install '.[cuda]'``.
    prompts : dict of str, optional
        Texts that can be put in front of the query, by name. Default: those saved with the model.
    default_prompt_name : str, optional
        The prompt that is used when a call names none.
    cache_folder, revision, local_files_only, token
        For the hub, as in sentence-transformers. A model that is in the cache is used without a connection.
    trust_remote_code : bool
        Accepted and not used: a model's code is never run.
    model_kwargs : dict, optional
        Only "dtype" (or "torch_dtype") has a meaning here; see `dtype`.
    processor_kwargs : dict, optional
        Only "model_max_length" has a meaning here; see `max_length`.
    config_kwargs : dict, optional
        Only "num_labels" has a meaning here.
    modules, model_card_data : None
        Refused: there are no torch modules and no model cards.
    backend : {"auto", "cpu", "cuda", "reference"}
        "cpu" computes with Numba; "reference" with NumPy, slowly and readably. ("torch", sentence-transformers' word,
        means "auto".)
    num_labels : int, optional
        Must be the number that the checkpoint has: numbert never makes up a head.
    max_length : int, optional
        Longest pair in tokens, special tokens included; longer ones are truncated. Default: what the model was
        made for.
    activation_fn : callable or str, optional
        What turns logits into scores: a function of an array (B, labels), a name ("identity", "sigmoid", "tanh" or
        "softmax"), or the torch module of such a name. Default: the one saved with the model; if there is none,
        sigmoid for one label and identity for several.
    keep_in_fp32_modules : list of str, optional
        Accepted with dtype="float32", which keeps all of them so; refused with a lower one.
    dtype : {"float32", "bfloat16", "int8", "float64"}, optional
        Precision of the matrix products with weights; by default "float32", or for a frozen model that in which it was
        frozen. "bfloat16" rounds both sides to 8 significant bits; "int8" rounds weights to whole numbers from -127 to
        127 with a scale for each output, and activations with a scale for each token, as they come. Sums, attention,
        LayerNorm, embeddings and head stay float32. docs/performance.md has the speed of each and its error. "float64"
        is for checks, and needs backend="reference".
    matmul_precision : {"highest", "high"}
        How exact the products of float32 must be. "high" allows 16 significant bits of each factor, as torch's setting
        of this name does, where that is faster: on processors with AMX, as three products of bfloat16.
    num_threads : int, optional
        Threads that compute. Default: the cores that this process may use.

    Raises
    ------
    ModelNotFoundError, ConfigError, WeightsError, TokenizerError
        When the model cannot be found, or its files are not as they must be.
    InputError, InputTypeError
        When an argument has a value that cannot be honoured.

    Notes
    -----
    A pair's score has the same bits whatever the other pairs, their order, `batch_size` and the number of threads. One
    model may be used by any number of threads at once.

    Names of arguments that sentence-transformers has deprecated are accepted with its warnings.

    Examples
    --------
    >>> model = CrossEncoder()
    >>> query = "How many people live in Berlin?"
    >>> ranks = model.rank(query, ["Berlin is well known for its museums.", "Berlin has 3,520,031 inhabitants."])
    >>> [rank["corpus_id"] for rank in ranks]
    [1, 0]
    """

    _show_progress = staticmethod(show_bar)  # the command line has another way when its output goes to a file

    @accept_old_constructor
    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        modules: None = None,
        device: str | None = None,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        model_card_data: None = None,
        backend: str = "torch",
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Any = None,
        keep_in_fp32_modules: list[str] | None = None,
        dtype: str | None = None,
        matmul_precision: str = "highest",
        num_threads: int | None = None,
    ) -> None:
        backend = options.backend_of_device(device, check_text(backend, "backend"))
        options.check_trust(trust_remote_code)
        options.check_unused(modules=modules, model_card_data=model_card_data)
        dtype = options.dtype_from(model_kwargs, None if dtype is None else check_text(dtype, "dtype"))
        matmul_precision = check_text(matmul_precision, "matmul_precision")
        options.check_kept_modules(keep_in_fp32_modules, dtype or "float32")
        num_labels = options.num_labels_from(config_kwargs, num_labels)
        max_length = options.max_length_from(processor_kwargs, max_length)
        threads = usable_cores() if num_threads is None else check_threads(num_threads)
        with load_checkpoint(
            model_name_or_path, open_packed=open_packed,
            cache_folder=cache_folder, revision=revision, local_files_only=local_files_only, token=token,
        ) as checkpoint:  # fmt: skip
            if num_labels is not None and check_count(num_labels, "num_labels", low=1) != checkpoint.spec.num_labels:
                raise InputError(
                    f"num_labels: found {show(num_labels)}, the checkpoint has {checkpoint.spec.num_labels};"
                    " leave it out"
                )
            saved, labels = checkpoint.saved, checkpoint.spec.num_labels
            self.activation_fn: Activation = choose_activation(activation_fn, saved.activation, labels)
            self.prompts, self.default_prompt_name = check_prompts(
                saved.prompts if prompts is None else prompts,
                saved.default_prompt_name if default_prompt_name is None else default_prompt_name,
            )
            self.model_card_data = options.NoModelCard()
            self.model_path = checkpoint.folder
            self.config = SimpleNamespace(**{**checkpoint.config, "num_labels": checkpoint.spec.num_labels})
            self._loaded = None if checkpoint.frozen else _remember(checkpoint)
            self._pad_token = checkpoint.tokenizer.pad_token
            self._num_parameters = checkpoint.num_parameters
            self._stored_as = " ".join(checkpoint.stored_dtypes)
            self._num_special = checkpoint.tokenizer.template.num_special
            usable = checkpoint.spec.usable_length
            own_limit = min(checkpoint.tokenizer.max_length or usable, usable)
            self._max_length = own_limit if max_length is None else self._check_length(max_length, usable)
            dtype = dtype or (checkpoint.frozen.dtype if checkpoint.frozen else "float32")
            self._scorer = Scorer(checkpoint, backend, dtype, matmul_precision, threads)

    @property
    def spec(self) -> ModelSpec:
        """Sizes and rules of the model."""
        return self._scorer.runner.spec

    @property
    def num_labels(self) -> int:
        """Number of logits of a pair."""
        return self.spec.num_labels

    @property
    def num_threads(self) -> int:
        """Threads that compute."""
        return self._scorer.runner.num_threads

    @property
    def backend(self) -> str:
        """The backend that computes: "cpu", "cuda" or "reference"."""
        return self._scorer.runner.backend

    @property
    def dtype(self) -> str:
        """Precision of the products with weights: "float32", "bfloat16", "int8" or "float64"."""
        return self._scorer.runner.dtype

    @property
    def matmul_precision(self) -> str:
        """How exact products of float32 must be: "highest" or "high"."""
        return self._scorer.runner.matmul_precision

    @property
    def device(self) -> str:
        """Where scores are computed: "cpu" or "cuda"."""
        return "cuda" if self.backend == "cuda" else "cpu"

    @property
    def modalities(self) -> list[str]:
        """What a model reads: ["text"]."""
        return ["text"]

    def supports(self, modality: str) -> bool:
        """Tell whether the model reads this kind of input."""
        return modality == "text"

    def get_backend(self) -> str:
        """Return the backend that computes."""
        return self.backend

    def is_singular_input(self, inputs: Any) -> bool:
        """Tell whether `predict` takes this for one pair by itself."""
        return is_one_pair(inputs)

    @property
    def tokenizer(self) -> SimpleNamespace:
        """What integrations ask of a tokenizer: ``pad_token`` and ``model_max_length``. A copy: it sets nothing."""
        return SimpleNamespace(pad_token=self._pad_token, model_max_length=self.max_seq_length)

    @property
    def max_seq_length(self) -> int:
        """Longest pair in tokens; settable."""
        return self._max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._max_length = self._check_length(value, self.spec.usable_length)

    @property
    def max_length(self) -> int:
        """The former name of `max_seq_length`."""
        warn_once("The `max_length` property was renamed and is now deprecated. Please use `max_seq_length` instead.")
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        warn_once("The `max_length` property was renamed and is now deprecated. Please use `max_seq_length` instead.")
        self.max_seq_length = value

    @property
    def default_activation_function(self) -> Activation:
        """The former name of `activation_fn`."""
        warnings.warn(
            "The `default_activation_function` property was renamed and is now deprecated. "
            "Please use `activation_fn` instead.", DeprecationWarning, stacklevel=2,
        )  # fmt: skip
        return self.activation_fn

    def describe(self) -> dict[str, Any]:
        """Return what the model is and how it is computed on this machine, for people and programs."""
        return {
            "folder": str(self.model_path),
            "num_layers": self.spec.num_layers,
            **{name: value for name, value in dataclasses.asdict(self.spec).items() if name not in UNDESCRIBED},
            "head": head_in_words(self.spec.head),
            "parameters": self._num_parameters,
            "stored_as": self._stored_as,
            "max_length": self.max_seq_length,
            "activation": getattr(self.activation_fn, "__name__", show(self.activation_fn)),
            "backend": self.backend,
            "dtype": self.dtype,
            "matmul_precision": self.matmul_precision,
            "threads": self.num_threads,
            **self._scorer.runner.describe(),
        }

    @accept_old_call
    def predict(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,
        apply_softmax: bool = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        processing_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Score pairs.

        Parameters
        ----------
        inputs : one pair, or any iterable of pairs
            A pair is a list, tuple or NumPy array of two strings.
        prompt_name, prompt : str, optional
            A text to put in front of the first text of each pair, by its name in `prompts` or as it is.
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
        convert_to_tensor : bool
            True: return a torch tensor; torch must be installed.
        device : str, or a list of them
            The model's own is accepted; where to compute was chosen when the model was made.
        pool, chunk_size
            Accepted; see `start_multi_process_pool`.
        processing_kwargs : dict, optional
            ``{"text": {"max_length": 256}}`` truncates to another length, in this call.

        Returns
        -------
        ndarray of float32, shape (N,), or (N, num_labels) for several labels
            For one pair by itself, its float32 score or array (num_labels,). For no pairs, an array of shape (0,).

        Raises
        ------
        InputError, InputTypeError
            When an input is no pair of strings; the message names it, for example ``inputs[17][1]``.
        NonFiniteScoreError
            When the model computes infinity or NaN, or the activation NaN, which is neither more nor less than any
            other score. (Infinities have an order: an activation may give them.)
        BackendError
            When a tensor is asked for and torch is not installed.
        """
        call = predicting(
            self, inputs, prompt_name=prompt_name, prompt=prompt, batch_size=batch_size, activation_fn=activation_fn,
            apply_softmax=apply_softmax, convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor,
            device=device, chunk_size=chunk_size, processing_kwargs=processing_kwargs,
        )  # fmt: skip
        return self._finish(call, show_progress_bar)

    async def apredict(self, inputs: Any, **options: Any) -> Any:
        """Score pairs as `predict` does, without holding up the event loop.

        While the scores are computed, other tasks go on; any number of calls may wait at once. Cancelling a call takes
        its pairs out of the queue.

        Parameters
        ----------
        inputs, **options
            Those of `predict`, except for `show_progress_bar` and `pool`.
        """
        return await self._afinish(predicting(self, inputs, **options))

    @accept_old_call
    def rank(
        self,
        query: str,
        documents: Any,
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        score_threshold: float | None = None,
        long_documents: str = "truncate",
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
        prompt_name, prompt, batch_size, show_progress_bar, activation_fn, device, pool, chunk_size
            As for `predict`. ``activation_fn="identity"`` gives raw logits, ``"sigmoid"`` numbers from 0 to 1.
        score_threshold : float, optional
            Leave out passages with a lower score.
        long_documents : {"truncate", "windows"}
            What is done with a passage that is too long for the model: cut it off, or read all of it in overlapping
            windows and take the best of their scores. (`find_truncated` tells which those are.)

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
        call = ranking(
            self, query, documents, top_k=top_k, return_documents=return_documents, prompt_name=prompt_name,
            prompt=prompt, batch_size=batch_size, activation_fn=activation_fn, device=device, chunk_size=chunk_size,
            score_threshold=score_threshold, long_documents=long_documents,
        )  # fmt: skip
        ranks: list[dict[str, Any]] = self._finish(call, show_progress_bar)
        return ranks

    async def arank(self, query: str, documents: Any, **options: Any) -> list[dict[str, Any]]:
        """Rank passages as `rank` does, without holding up the event loop; see `apredict`.

        Parameters
        ----------
        query, documents, **options
            Those of `rank`, except for `show_progress_bar` and `pool`.
        """
        ranks: list[dict[str, Any]] = await self._afinish(ranking(self, query, documents, **options))
        return ranks

    def find_truncated(self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None) -> list[int]:
        """Return the positions of the pairs that are too long for the model, so that `predict` cuts something off.

        Parameters
        ----------
        inputs, prompt_name, prompt
            As for `predict`.
        """
        pairs = self._with_prompt(check_pairs(inputs)[0], prompt, prompt_name)
        return self._scorer.find_long(pairs, self.max_seq_length)

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: Any = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write the model into a folder that numbert and sentence-transformers load.

        Weights and tokenizer files are copied from the folder that was loaded; maximal length, activation and prompts
        are those of now.

        Parameters
        ----------
        path : str or path
        model_name, create_model_card, train_datasets
            Accepted; the card that the model came with is copied, none is made.
        safe_serialization : bool
            Must be True: pickles are not written.

        Raises
        ------
        InputError
            When pickled weights are asked for, or the activation is a function that has no name to be saved under.
        SaveError
            When the folder cannot be written, or the one that was loaded is not as it was. What stood there before
            still does.
        """
        if self._loaded is None:
            raise InputError(
                f"{self.model_path}: found a frozen model, expected one with weights as they were published; copy the"
                " folder, or save the model that it was made from"
            )
        if not check_flag(safe_serialization, "safe_serialization"):
            raise InputError("safe_serialization: found False, expected True; pickled weights are never written")
        from .drop_in.saving import TORCH_PATHS, save_folder  # here, as in `_remember`

        names = [name for name, function in BY_NAME.items() if function is self.activation_fn]
        if not names:
            raise InputError(
                f"activation_fn: found {show(self.activation_fn)}, expected one of {list(BY_NAME)} to be saved by name;"
                " set model.activation_fn first"
            )
        settings = {
            "activation_fn": TORCH_PATHS[names[0]],
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
        }
        try:
            target = Path(path)
        except TypeError:
            raise InputTypeError(f"path: found {describe(path)}, expected the name of a folder; pass one") from None
        save_folder(self.model_path, self._loaded, target, settings, self.max_seq_length)

    def save(self, path: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write the model into a folder; the same as `save_pretrained`."""
        self.save_pretrained(path, **kwargs)

    def start_multi_process_pool(self, target_devices: list[str] | None = None) -> dict[str, Any]:
        """Return an empty pool, which `predict` and `rank` accept.

        sentence-transformers needs processes to use several cores in Python; the threads of numbert use all cores of
        any call, share the weights, and need no pool. Scores are the same with and without.
        """
        options.check_device(target_devices, self.device)
        return {"input": None, "output": None, "processes": []}

    @staticmethod
    def stop_multi_process_pool(pool: dict[str, Any]) -> None:
        """Accept the end of a pool that holds nothing."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "CrossEncoder":
        """Copy the settings; the weights, which never change, are shared."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return twin

    def _with_prompt(self, pairs: list[Pair], prompt: str | None, prompt_name: str | None) -> list[Pair]:
        text = Prompts(self.prompts, self.default_prompt_name).choose(prompt, prompt_name)
        return [(text + query, passage) for query, passage in pairs] if text else pairs

    def _length_of_call(self, processing_kwargs: Mapping[str, Any] | None) -> int:
        length = options.max_length_of_call(processing_kwargs)
        return self.max_seq_length if length is None else self._check_length(length, self.spec.usable_length)

    def _finish(self, call: ScoringCall, show_progress_bar: bool | None) -> Any:
        """Compute what a call asks for, and return what it makes of it."""
        request = next(call)
        if show_progress_bar is None:
            show_progress_bar = logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG)
        if check_flag(show_progress_bar, "show_progress_bar"):
            with self._show_progress(len(request.pairs)) as on_progress:
                logits = self._scorer.logits(*request, on_progress)
        else:
            logits = self._scorer.logits(*request, lambda count: None)
        return finish(call, logits)

    async def _afinish(self, call: ScoringCall) -> Any:
        return finish(call, await self._scorer.alogits(*next(call)))

    def _check_length(self, max_length: Any, usable: int) -> int:
        length = check_count(max_length, "max_length", low=self._num_special + 1)
        if length > usable:
            raise InputError(f"max_length: found {show(length)}, the model has positions for {usable}; choose no more")
        return length


def _remember(checkpoint: Checkpoint) -> "Loaded":
    """Return what `save_pretrained` must know of a folder."""
    from .drop_in.saving import remember  # here: a frozen model is not saved, and what writes files is slow to import

    return remember(checkpoint)
