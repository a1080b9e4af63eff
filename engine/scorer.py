"""Pairs to logits: a call tokenizes its pairs, lets them wait in the model's queue, and collects the results."""

import copy
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..loaders.checkpoint import Checkpoint
from ..loaders.spec import ModelSpec
from ..loaders.tokenizer import PairTemplate
from .errors import NonFiniteScoreError
from .inputs import Pair
from .queue import Call, Chunk
from .runner import Runner
from .tokenization import TokenBatch, TokenPair, lay_out, tokenize, tokenize_windows
from .workers import crew

# Pairs that are tokenized at once: few at first, so that there is soon something to compute. One chunk is computed
# while the next is tokenized: the ids of so many are in memory, whatever the length of the input.
FIRST_CHUNK = 64
CHUNK = 512


class Scorer:
    """A model that is ready to score pairs."""

    def __init__(
        self, checkpoint: Checkpoint, backend: str, dtype: str, matmul_precision: str, num_threads: int
    ) -> None:
        self.tokenizer = checkpoint.tokenizer
        arrange = functools.partial(_lay_out, template=self.tokenizer.template, spec=checkpoint.spec)
        self.runner: Runner[TokenPair] = Runner(checkpoint, arrange, backend, dtype, matmul_precision, num_threads)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Scorer":
        """Share the tokenizer, which never changes."""
        twin = Scorer.__new__(Scorer)
        twin.tokenizer, twin.runner = self.tokenizer, copy.deepcopy(self.runner, memo)
        return twin

    def logits(
        self,
        pairs: Sequence[Pair],
        max_length: int,
        batch_size: int,
        windows: bool,
        on_progress: Callable[[int], object],
    ) -> NDArray[Any]:
        """Return the logits of each pair: (N, labels), float32 (float64 when computed so).

        Identical pairs are computed once.

        Parameters
        ----------
        pairs : sequence of (str, str)
        max_length : int
            Longest pair in tokens.
        batch_size : int
            Most of these pairs in a shard.
        windows : bool
            Read all of a long passage, window by window, and take the largest logit; else truncate.
        on_progress : callable
            Is told how many more pairs are done.

        Raises
        ------
        NonFiniteScoreError
            When a logit is infinite or not a number; the message names the pair.
        BackendError
            When no thread can be started, or the program is about to end.
        """
        scoring = _Scoring(self, pairs, max_length, batch_size, windows)
        try:
            for step in scoring.steps(may_compute=True):
                step.chunk.wait()
                on_progress(scoring.collect(step))
        finally:
            scoring.cancel()
        on_progress(len(pairs) - scoring.num_distinct)
        return scoring.logits()

    async def alogits(self, pairs: Sequence[Pair], max_length: int, batch_size: int, windows: bool) -> NDArray[Any]:
        """Do as `logits`, without holding up the event loop; a cancelled call takes its pairs out of the queue."""
        import asyncio  # here: see `_end_of`

        scoring = _Scoring(self, pairs, max_length, batch_size, windows)
        steps = scoring.steps(may_compute=False)
        left = scoring.num_distinct
        try:
            while left:
                step = await asyncio.to_thread(next, steps)
                await _end_of(step.chunk)
                left -= scoring.collect(step)
        finally:
            scoring.cancel()
        return scoring.logits()

    def find_long(self, pairs: Sequence[Pair], max_length: int) -> list[int]:
        """Return the positions of the pairs that have more tokens than `max_length`."""
        budget = max_length - self.tokenizer.template.num_special
        found: list[int] = []
        for start in range(0, len(pairs), CHUNK):
            chunk = pairs[start : start + CHUNK]
            tokens = tokenize(chunk, self.tokenizer, max_length + 1, on_one_thread=crew().is_busy)
            found += [i for i, (first, second) in enumerate(tokens, start) if len(first) + len(second) > budget]
        return found


class Step(NamedTuple):
    """Some pairs of a call, which wait or are computed."""

    chunk: Chunk
    starts: NDArray[np.int64]  # of each pair, among the token pairs of the chunk
    first: int  # place of the first pair among the distinct ones


async def _end_of(chunk: Chunk) -> None:
    """Wait for a chunk without holding up the event loop."""
    import asyncio  # here, because it takes a while to import, and whoever awaits has done so

    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def tell() -> None:
        if not over.done():  # it may have been cancelled
            over.set_result(None)

    chunk.call_at_end(lambda: loop.call_soon_threadsafe(tell))
    await over
    chunk.wait()


class _Scoring:
    """A call on its way."""

    def __init__(self, scorer: Scorer, pairs: Sequence[Pair], max_length: int, batch_size: int, windows: bool) -> None:
        self._scorer = scorer
        self._pairs = pairs
        self._max_length = max_length
        self._windows = windows
        self._distinct = list(dict.fromkeys(pairs))
        self._result = np.empty((len(self._distinct), scorer.runner.spec.num_labels), scorer.runner.result_dtype)
        self._call = Call(batch_size)
        self._cancelled = False

    @property
    def num_distinct(self) -> int:
        """Number of pairs that are computed."""
        return len(self._distinct)

    def steps(self, may_compute: bool) -> Iterator[Step]:
        """Let chunk after chunk wait to be computed, always one more than has been waited for.

        With `may_compute`, this thread may compute a small call itself.
        """
        ahead: deque[Step] = deque()
        start, size = 0, FIRST_CHUNK
        while start < len(self._distinct):
            pairs = self._distinct[start : start + size]
            alone = may_compute and len(pairs) == len(self._distinct)
            ahead.append(self._submit(pairs, start, alone))
            start, size = start + size, CHUNK
            if len(ahead) > 1:
                yield ahead.popleft()
        yield from ahead

    def collect(self, step: Step) -> int:
        """Keep the logits of a step that is done, and return the number of its pairs."""
        count = len(step.starts)
        self._result[step.first : step.first + count] = np.maximum.reduceat(step.chunk.logits, step.starts, axis=0)
        return count

    def logits(self) -> NDArray[Any]:
        """Return the logits of all pairs."""
        row_of = {pair: row for row, pair in enumerate(self._distinct)}
        logits: NDArray[Any] = self._result[[row_of[pair] for pair in self._pairs]]
        _check_finite(logits, self._pairs)
        return logits

    def cancel(self) -> None:
        """Take out of the queue what has not begun."""
        self._cancelled = True
        if self._call.chunks:
            crew().cancel(self._scorer.runner.lane, self._call)

    def _submit(self, pairs: Sequence[Pair], start: int, alone: bool) -> Step:
        lane, threads = self._scorer.runner.lane, crew()
        with threads.let_tokenize(self._call):
            parts = self._tokenize(pairs)
        tokens = [token_pair for group in parts for token_pair in group]
        special = self._scorer.tokenizer.template.num_special
        lengths = [len(first) + len(second) + special for first, second in tokens]
        chunk = Chunk(tokens, lengths, np.empty((len(tokens), self._result.shape[1]), self._result.dtype))
        if not (alone and threads.compute_now(lane, self._call, chunk)):
            threads.submit(lane, self._call, chunk)
            if self._cancelled:  # by another thread, meanwhile
                self.cancel()
        return Step(chunk, np.cumsum([0, *map(len, parts[:-1])]), start)

    def _tokenize(self, pairs: Sequence[Pair]) -> list[list[TokenPair]]:
        """Return what is computed for each pair: one token pair, or several where the passage is read in windows."""
        tokenizer, max_length = self._scorer.tokenizer, self._max_length
        # The tokenizer's own threads would take the cores of those who compute.
        tokens = tokenize(pairs, tokenizer, max_length, on_one_thread=crew().is_busy)
        parts = [[token_pair] for token_pair in tokens]
        if self._windows:
            for i in self._scorer.find_long(pairs, max_length):
                parts[i] = tokenize_windows(pairs[i], tokenizer, max_length)
        return parts


def _lay_out(tokens: Sequence[TokenPair], *, template: PairTemplate, spec: ModelSpec) -> TokenBatch:
    return lay_out(tokens, template, spec)


def _check_finite(logits: NDArray[Any], pairs: Sequence[Pair]) -> None:
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        place = int(np.argmin(finite))
        raise NonFiniteScoreError(
            f"pair {place} {pairs[place]!r:.100}: found logits {logits[place].tolist()}, expected finite numbers;"
            " the model's weights are out of range"
        )
