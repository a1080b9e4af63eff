"""Pairs to logits: tokenize, form shards, run them on the threads, put the results in order."""

import contextlib
import queue
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..loaders.checkpoint import Checkpoint
from .backend import choose_backend, choose_precision, describe_backend
from .batching import make_shards, team_size
from .encoder import forward, pack
from .errors import BackendError, InputError, NonFiniteScoreError
from .inputs import Pair
from .tokenization import TokenBatch, TokenPair, lay_out, tokenize, tokenize_windows
from .workers import Workers

# Pairs that are tokenized at once: the ids of so many are in memory, whatever the length of the input.
CHUNK = 512


class Scorer:
    """A model that is ready to compute, on a backend and a number of threads."""

    def __init__(
        self, checkpoint: Checkpoint, backend: str, dtype: str, matmul_precision: str, num_threads: int
    ) -> None:
        self.spec = checkpoint.spec
        self.tokenizer = checkpoint.tokenizer
        self.backend, self._ops = choose_backend(backend, dtype)
        self.dtype, self.matmul_precision = dtype, matmul_precision
        precision = choose_precision(self.backend, dtype, matmul_precision)
        self._workers = Workers(num_threads)
        self._encoder = pack(checkpoint.spec, checkpoint.weights, self._ops, precision, self._workers.map)
        self._teams: dict[int, queue.SimpleQueue[list[Any]]] = defaultdict(queue.SimpleQueue)  # idle ones, by size

    def __getstate__(self) -> dict[str, Any]:
        """Keep weights and tokenizer; threads, buffers and the backend's module are made anew."""
        if self.backend == "cuda":
            raise BackendError("a model in GPU memory cannot be pickled; load it from its folder in the other process")
        kept = {name: value for name, value in vars(self).items() if name not in ("_ops", "_workers", "_teams")}
        return {
            **kept,
            "num_threads": self.num_threads,
            "packed_for": describe_backend(self.backend)["instruction_set"],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        num_threads, packed_for = state.pop("num_threads"), state.pop("packed_for")
        self.__dict__.update(state)
        if packed_for != describe_backend(self.backend)["instruction_set"]:
            raise BackendError(
                f"the pickled model was packed for {packed_for}, this process computes with"
                f" {describe_backend(self.backend)['instruction_set']}; load the model from its folder"
            )
        _, self._ops = choose_backend(self.backend, self.dtype)
        self._workers = Workers(num_threads)
        self._teams = defaultdict(queue.SimpleQueue)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Scorer":
        """Share the weights, which never change."""
        twin = Scorer.__new__(Scorer)
        vars(twin).update(vars(self), _workers=Workers(self.num_threads), _teams=defaultdict(queue.SimpleQueue))
        return twin

    @property
    def _logit_dtype(self) -> str:
        """Sums are float32 at least, whatever is multiplied."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def num_threads(self) -> int:
        """Threads that compute."""
        return self._workers.num_threads

    def logits(
        self,
        pairs: Sequence[Pair],
        max_length: int,
        batch_size: int,
        on_progress: Callable[[int], object],
        windows: bool = False,
    ) -> NDArray[Any]:
        """Return the logits of each pair: (N, labels), float32 (float64 when computed so).

        Identical pairs are computed once.

        Parameters
        ----------
        pairs : sequence of (str, str)
        max_length : int
            Longest pair in tokens.
        batch_size : int
            Most pairs in a shard.
        on_progress : callable
            Is told how many more pairs are done.
        windows : bool
            Read all of a long passage, window by window, and take the largest logit; else truncate.

        Raises
        ------
        NonFiniteScoreError
            When a logit is infinite or not a number; the message names the pair.
        """
        distinct = list(dict.fromkeys(pairs))
        result = np.empty((len(distinct), self.spec.num_labels), self._logit_dtype)
        for start in range(0, len(distinct), CHUNK):
            chunk = distinct[start : start + CHUNK]
            parts = self._tokenize(chunk, max_length, windows)
            flat = [part for group in parts for part in group]
            logits = self._token_logits(flat, batch_size)
            first = np.cumsum([0, *map(len, parts[:-1])])
            result[start : start + len(chunk)] = np.maximum.reduceat(logits, first, axis=0)
            on_progress(len(chunk))
        row_of = {pair: row for row, pair in enumerate(distinct)}
        logits = result[[row_of[pair] for pair in pairs]]
        on_progress(len(pairs) - len(distinct))
        _check_finite(logits, pairs)
        return logits

    def find_long(self, pairs: Sequence[Pair], max_length: int) -> list[int]:
        """Return the positions of the pairs that have more tokens than `max_length`."""
        budget = max_length - self.tokenizer.template.num_special
        tokens = tokenize(pairs, self.tokenizer, max_length + 1)
        return [i for i, (first, second) in enumerate(tokens) if len(first) + len(second) > budget]

    def _tokenize(self, pairs: Sequence[Pair], max_length: int, windows: bool) -> list[list[TokenPair]]:
        """Return what is computed for each pair: one token pair, or several where the passage is read in windows."""
        parts = [[token_pair] for token_pair in tokenize(pairs, self.tokenizer, max_length)]
        if windows:
            for i in self.find_long(pairs, max_length):
                parts[i] = tokenize_windows(pairs[i], self.tokenizer, max_length)
        return parts

    def _token_logits(self, tokens: Sequence[TokenPair], batch_size: int) -> NDArray[Any]:
        """Form shards, run them on the threads, and return the logits in the order given."""
        special = self.tokenizer.template.num_special
        lengths = [len(first) + len(second) + special for first, second in tokens]
        size = team_size(lengths, self.num_threads, batch_size, self._ops.LARGEST_SHARD)
        if size > 1 and self._ops.SHARES_SHARDS:
            return self._run_as_team(self._lay_out(tokens), size)
        shards = make_shards(lengths, self.num_threads, batch_size, self._ops.LARGEST_SHARD)

        def run(shard: list[int]) -> NDArray[Any]:
            batch = self._lay_out([tokens[position] for position in shard])
            with self._team(1) as (workspace,):
                return forward(self._encoder, batch, self._ops, workspace)

        result = np.empty((len(tokens), self.spec.num_labels), self._logit_dtype)
        for shard, logits in zip(shards, self._workers.map(run, shards), strict=True):
            result[shard] = logits
        return result

    def _run_as_team(self, batch: TokenBatch, size: int) -> NDArray[Any]:
        """Run the forward pass on several threads that share the rows of one batch."""
        failures: list[BaseException] = []  # the first is the cause; members that waited for that one fail after it
        with self._team(size) as members:

            def run(workspace: Any) -> NDArray[Any]:
                try:
                    return forward(self._encoder, batch, self._ops, workspace)
                except BaseException as error:
                    failures.append(error)
                    workspace.leave()
                    raise

            try:
                return np.concatenate(self._workers.map_together(run, members))
            except BaseException as error:
                cause = failures[0] if failures else error
                members[0].leave()  # for a member that has not begun, and now never will
                raise cause from None

    @contextlib.contextmanager
    def _team(self, size: int) -> Iterator[list[Any]]:
        """Lend the workspaces of a team that nobody else uses meanwhile; those that met an error are not used again."""
        try:
            team = self._teams[size].get_nowait()
        except queue.Empty:
            team = self._ops.make_team(size)
        yield team
        self._teams[size].put(team)

    def _lay_out(self, tokens: Sequence[TokenPair]) -> TokenBatch:
        batch = lay_out(tokens, self.tokenizer.template, self.spec)
        self._check(batch)
        return batch

    def _check(self, batch: TokenBatch) -> None:
        """Prove that no lookup can leave its table: kernels do not check, and would read foreign memory."""
        limits = (
            ("token id", batch.ids, self.spec.vocab_size),
            ("token type", batch.type_ids, max(self.spec.num_token_types, 1)),
            ("position", batch.position_ids, self.spec.max_positions),
        )
        for what, values, limit in limits:
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= limit:
                found = low if low < 0 else high
                raise InputError(
                    f"{what}: found {found}, the model has rows for 0 to {limit - 1}; the tokenizer is of another model"
                )


def _check_finite(logits: NDArray[Any], pairs: Sequence[Pair]) -> None:
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        place = int(np.argmin(finite))
        raise NonFiniteScoreError(
            f"pair {place} {pairs[place]!r:.100}: found logits {logits[place].tolist()}, expected finite numbers;"
            " the model's weights are out of range"
        )
