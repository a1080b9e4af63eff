"""Pairs to logits: tokenize, form shards, run them on the threads, put the results in order."""

import queue
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..loaders.checkpoint import Checkpoint
from .backend import choose_backend
from .batching import make_shards
from .encoder import forward, pack
from .errors import InputError, NonFiniteScoreError
from .inputs import Pair
from .tokenization import TokenBatch, lay_out, tokenize
from .workers import Workers

# Pairs that are tokenized at once: the ids of so many are in memory, whatever the length of the input.
CHUNK = 2048


class Scorer:
    """A model that is ready to compute, on a backend and a number of threads."""

    def __init__(self, checkpoint: Checkpoint, backend: str, dtype: str, num_threads: int) -> None:
        self.spec = checkpoint.spec
        self.tokenizer = checkpoint.tokenizer
        self.backend, self._ops = choose_backend(backend, dtype)
        self.dtype = dtype
        self._encoder = pack(checkpoint.spec, checkpoint.weights, self._ops, dtype)
        self._workers = Workers(num_threads)
        self._workspaces: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @property
    def num_threads(self) -> int:
        """Threads that compute."""
        return self._workers.num_threads

    def logits(
        self, pairs: Sequence[Pair], max_length: int, batch_size: int, on_progress: Callable[[int], object]
    ) -> NDArray[Any]:
        """Return the logits of each pair: (N, labels), float32 (float64 when computed so).

        `on_progress` is told how many more pairs are done. Identical pairs are computed once.

        Raises
        ------
        NonFiniteScoreError
            When a logit is infinite or not a number; the message names the pair.
        """
        distinct = list(dict.fromkeys(pairs))
        result = np.empty((len(distinct), self.spec.num_labels), self.dtype)
        for start in range(0, len(distinct), CHUNK):
            chunk = distinct[start : start + CHUNK]
            result[start : start + len(chunk)] = self._chunk_logits(chunk, max_length, batch_size, on_progress)
        row_of = {pair: row for row, pair in enumerate(distinct)}
        logits = result[[row_of[pair] for pair in pairs]]
        on_progress(len(pairs) - len(distinct))
        _check_finite(logits, pairs)
        return logits

    def _chunk_logits(
        self, pairs: Sequence[Pair], max_length: int, batch_size: int, on_progress: Callable[[int], object]
    ) -> NDArray[Any]:
        tokens = tokenize(pairs, self.tokenizer, max_length)
        special = self.tokenizer.template.num_special
        lengths = [len(first) + len(second) + special for first, second in tokens]
        shards = make_shards(lengths, self.num_threads, batch_size)

        def run(shard: list[int]) -> NDArray[Any]:
            batch = lay_out([tokens[position] for position in shard], self.tokenizer.template)
            logits = self._run(batch)
            on_progress(len(shard))
            return logits

        result = np.empty((len(pairs), self.spec.num_labels), self.dtype)
        for shard, logits in zip(shards, self._workers.map(run, shards), strict=True):
            result[shard] = logits
        return result

    def _run(self, batch: TokenBatch) -> NDArray[Any]:
        """Run the forward pass on the calling thread, with a workspace that no other thread uses meanwhile."""
        self._check(batch)
        try:
            workspace = self._workspaces.get_nowait()
        except queue.Empty:
            workspace = self._ops.Workspace()
        try:
            return forward(self._encoder, batch, self._ops, workspace)
        finally:
            self._workspaces.put(workspace)

    def _check(self, batch: TokenBatch) -> None:
        """Prove that no lookup can leave its table: kernels do not check, and would read foreign memory."""
        limits = (
            ("token id", batch.ids, self.spec.vocab_size),
            ("token type", batch.type_ids, self.spec.num_token_types),
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
