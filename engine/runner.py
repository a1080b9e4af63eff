"""Tokens to rows: a model that is ready to compute, on a backend and some of the threads of this process.

It knows neither texts nor scores: pairs are laid out by whoever made it, and what comes back is a row for each.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from ..loaders.checkpoint import Checkpoint
from ..loaders.spec import ModelSpec
from . import frozen
from .backend import Backend, Blocks, choose_backend, choose_precision
from .encoder import Encoder, forward
from .errors import BackendError, InputError
from .tokenization import TokenBatch
from .workers import Lane, crew

Item = TypeVar("Item")  # whose tokens get a row of their own: a pair


class Runner(Generic[Item]):
    """A model in the form in which a backend computes with it, and its lane in the queue.

    Parameters
    ----------
    checkpoint : Checkpoint
    lay_out : callable
        Brings items end to end. It must be one that can be pickled, and hold no reference to this object.
    backend, dtype, matmul_precision : str
        See `choose_backend` and `choose_precision`.
    num_threads : int
        Threads that may compute it at once.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        lay_out: Callable[[Sequence[Item]], TokenBatch],
        backend: str,
        dtype: str,
        matmul_precision: str,
        num_threads: int,
    ) -> None:
        self.spec = checkpoint.spec
        self.dtype, self.matmul_precision = dtype, matmul_precision
        self._ops: Blocks
        if checkpoint.frozen is None:
            self.backend, self._ops, self.encoder = _pack(checkpoint, backend, dtype, matmul_precision, num_threads)
        else:
            choose_precision(matmul_precision, dtype, lowers_float32=False)
            self.backend = frozen.NAME
            self._ops, self.encoder = frozen.load_frozen(checkpoint, checkpoint.frozen, backend, dtype)
        self._lay_out = lay_out
        self.lane = self._make_lane(num_threads)

    def _make_lane(self, num_threads: int) -> Lane:
        # Without a reference to this object: a model that is deleted is gone at once.
        return Lane(
            functools.partial(_lay_out, lay_out=self._lay_out, spec=self.spec),
            functools.partial(_forward, encoder=self.encoder, ops=self._ops),
            self._ops.make_team,
            num_threads=min(num_threads, self._ops.MOST_WORKERS or num_threads),
            largest=self._ops.LARGEST_SHARD,
            shares=self._ops.SHARES_SHARDS,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Keep the weights; the queue, buffers and the backend's module are made anew."""
        if not self._ops.PICKLES:
            raise BackendError("a model in GPU memory cannot be pickled; load it from its folder in the other process")
        kept = {name: value for name, value in vars(self).items() if name not in ("_ops", "lane")}
        return {
            **kept,
            "num_threads": self.lane.num_threads,
            "packed_for": self._ops.describe()["instruction_set"],
            "library": getattr(self._ops, "place", None),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        num_threads, packed_for, library = (state.pop(name) for name in ("num_threads", "packed_for", "library"))
        self.__dict__.update(state)
        if library is None:
            _, self._ops = choose_backend(self.backend, self.dtype)
        else:
            self._ops = frozen.reopen(library, self.dtype, self.encoder)
        here = self._ops.describe()["instruction_set"]
        if packed_for != here:
            raise BackendError(
                f"the pickled model was packed for {packed_for}, this process computes with {here}; load the model from"
                " its folder"
            )
        self.lane = self._make_lane(num_threads)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Runner[Item]":
        """Share the weights, which never change."""
        twin: Runner[Item] = Runner.__new__(Runner)
        vars(twin).update(vars(self))
        twin.lane = twin._make_lane(self.lane.num_threads)
        return twin

    @property
    def num_threads(self) -> int:
        """Threads that may compute this model at once: what was asked for, and no more than this process has."""
        return min(self.lane.num_threads, crew().size)

    @property
    def result_dtype(self) -> str:
        """The dtype of rows: sums are float32 at least."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def peak(self) -> Any:
        """The backend's PEAK."""
        return self._ops.PEAK

    def describe(self) -> dict[str, str]:
        """Return what the backend chose for this machine."""
        return self._ops.describe()


def _pack(
    checkpoint: Checkpoint, backend: str, dtype: str, matmul_precision: str, num_threads: int
) -> tuple[str, Backend, Encoder]:
    """Choose a backend, and bring the weights into its form."""
    from .assembly import assemble  # here: a frozen model is assembled already

    name, ops = choose_backend(backend, dtype)
    precision = choose_precision(matmul_precision, dtype, lowers_float32=ops.LOWERS_FLOAT32)
    do_all = functools.partial(_map, num_threads)
    try:
        return name, ops, assemble(checkpoint.spec, checkpoint.weights, ops, precision, do_all)
    except NotImplementedError as error:
        raise BackendError(
            f"backend {name!r}: found a model that needs {error}, expected one without; use another backend"
        ) from error


def _map(num_threads: int, function: Callable[[int], Any], numbers: Sequence[int]) -> list[Any]:
    """Apply a function to numbers on some threads, and on this one where the system starts none."""
    with ThreadPoolExecutor(num_threads) as threads:
        futures: list[Future[Any]] = []
        with contextlib.suppress(RuntimeError):  # no more threads
            futures.extend(threads.submit(function, number) for number in numbers)
        return [future.result() for future in futures] + [function(number) for number in numbers[len(futures) :]]


def _forward(batch: TokenBatch, workspace: Any, *, encoder: Encoder, ops: Blocks) -> NDArray[Any]:
    return forward(encoder, batch, ops, workspace)


def _lay_out(items: Sequence[Item], *, lay_out: Callable[[Sequence[Item]], TokenBatch], spec: ModelSpec) -> TokenBatch:
    batch = lay_out(items)
    _check(batch, spec)
    return batch


def _check(batch: TokenBatch, spec: ModelSpec) -> None:
    """Prove that no lookup can leave its table: kernels do not check, and would read foreign memory."""
    limits = (
        ("token id", batch.ids, spec.vocab_size),
        ("token type", batch.type_ids, max(spec.num_token_types, 1)),
        ("position", batch.position_ids, spec.max_positions),
    )
    for what, values, limit in limits:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= limit:
            found = low if low < 0 else high
            raise InputError(
                f"{what}: found {found}, the model has rows for 0 to {limit - 1}; the tokenizer is of another model"
            )
