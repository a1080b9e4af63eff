"""Where the time of a call goes: a stopwatch round every kernel, set from outside and taken off again.

The kernels themselves are not touched. While `stopwatches` is active, the names under which the blocks call their
kernels, and the scorer its few functions, lead to wrappers that note how long each call took. Kernels that the head
calls count as the head. A kernel that is unknown here is reported under its own name.
"""

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...loaders.names import tensors_of_head
from ...loaders.spec import LinearStep, ModelSpec
from .. import runner, scorer
from ..encoder import POOLED_ROWS
from ..errors import InputError
from ..runner import Runner

FORWARD = "forward"  # all of a forward pass: the kernels in it, and what lies between them
BETWEEN = "Python between the kernels"
REST = "everything else"
# The phase of each kernel and of each function of the scorer, in the order in which a pair meets them.
PHASES = {
    "tokenize": "tokenize",
    "lay_out": "batching",
    "embed": "embedding",
    "linear_rows": "embedding projection",
    "normalize_rows": "embedding projection",
    "convolve_rows": "convolution, residual, norm",
    "add_rows": "convolution, residual, norm",
    "project_heads": "query, key, value projection",
    "attend": "attention",
    "linear_residual_norm": "output, residual, norm",
    "feed_forward": "feed-forward, residual, norm",
    "head": "head",
    "pool_rows": "head",
    "activate_rows": "head",
    "shorten_rows": "head",
}
NOT_TIMED = {
    "isa",
    "arrive",
    "await_arrivals",
}  # of what the blocks call: no kernel, and what members of a team wait for
# Where the functions stand that are no kernels: under names that are looked up when they are called
FUNCTIONS = {"tokenize": scorer, "lay_out": scorer, FORWARD: runner}


class Phase(NamedTuple):
    """What a part of the work took, in the mean of the calls."""

    name: str
    seconds: float  # of all threads together
    share: float  # of the time that the threads had: threads x duration of the call
    gflops: float | None  # useful GFLOP/s of one thread; None where little or nothing is multiplied


class Stopwatch:
    """Notes of how long calls took, made by any number of threads."""

    def __init__(self) -> None:
        self._notes: list[tuple[str, float]] = []  # appending is atomic: no lock, and no thread waits for another
        self._now = threading.local()  # whether this thread is inside of something that is timed

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and notes its time under this name.

        What it calls is not noted, but in a forward pass.
        """

        def timed(*arguments: Any, **named: Any) -> Any:
            if getattr(self._now, "inside", False):
                return function(*arguments, **named)
            start = time.perf_counter()
            self._now.inside = name != FORWARD
            try:
                result = function(*arguments, **named)
            finally:
                self._now.inside = False
            self._notes.append((name, time.perf_counter() - start))
            return result

        return timed

    def seconds(self) -> Counter[str]:
        """Return the sum of thread time under each name."""
        sums: Counter[str] = Counter()
        for name, seconds in self._notes:
            sums[name] += seconds  # type: ignore[assignment]  # a Counter counts in fractions as well
        return sums


@contextlib.contextmanager
def stopwatches(model: Runner[Any]) -> Iterator[Stopwatch]:
    """Time every kernel that a model calls while the context lasts.

    The kernels must have been compiled before for whatever is computed within: a kernel that is compiled here could
    meet a wrapper in the place of another kernel.

    Raises
    ------
    InputError
        When the backend has no kernels.
    """
    ops: Any = model._ops
    if not hasattr(ops, "KERNELS"):
        raise InputError(f"profile: found backend {model.backend!r}, expected one whose kernels are timed; take 'cpu'")
    places = [(ops.KERNELS, name) for name in vars(ops.KERNELS) if name not in NOT_TIMED]
    places += [(ops, "head"), *((module, name) for name, module in FUNCTIONS.items())]
    before = [getattr(place, name) for place, name in places]
    watch = Stopwatch()
    try:
        for (place, name), function in zip(places, before, strict=True):
            setattr(place, name, watch.wrap(name, function))
        yield watch
    finally:
        for (place, name), function in zip(places, before, strict=True):
            setattr(place, name, function)


def profile(call: Callable[[], object], rounds: int, model: Runner[Any], flop: dict[str, float]) -> list[Phase]:
    """Repeat a call and return its phases, the sum of which is all the time that the threads had.

    (Or more: the calling thread tokenizes while they compute.)

    Parameters
    ----------
    call : callable
        Computes scores, and has done so once, so that all kernels are compiled.
    rounds : int
    model : Runner
        That `call` computes with.
    flop : dict
        Operations of each phase that has any, in one call.
    """
    with stopwatches(model) as watch:
        start = time.perf_counter()
        for _ in range(rounds):
            call()
        available = model.num_threads * (time.perf_counter() - start)
    by_name = watch.seconds()
    forward = by_name.pop(FORWARD)
    sums = dict.fromkeys(PHASES.values(), 0.0)
    for name, seconds in by_name.items():
        phase = PHASES.get(name, name)
        sums[phase] = sums.get(phase, 0.0) + seconds
    kernels = sum(seconds for name, seconds in by_name.items() if name not in FUNCTIONS)
    sums[BETWEEN] = forward - kernels
    sums[REST] = max(available - sum(sums.values()), 0.0)
    available = sum(sums.values())
    return [_phase(name, seconds, rounds, available, flop) for name, seconds in sums.items() if seconds]


def _phase(name: str, seconds: float, rounds: int, available: float, flop: dict[str, float]) -> Phase:
    gflops = flop[name] * rounds / seconds / 1e9 if name in flop else None
    return Phase(name, seconds / rounds, seconds / available, gflops)


# ---- operations


def useful_flop_of_phases(spec: ModelSpec, lengths: Sequence[int]) -> dict[str, float]:
    """Count the operations that the logits of pairs of these lengths need, phase by phase.

    No padding, and in the last layer only the rows that are pooled where that suffices: all tokens need keys and values
    there, those rows the rest. A multiplication and an addition are two operations; what is done to single elements
    (softmax, GELU, normalization) is not counted.
    """
    c, f = spec.hidden_size, spec.intermediate_size
    tokens, pairs = sum(lengths), len(lengths)
    last = pairs if spec.pooling in POOLED_ROWS else tokens
    rows = (spec.num_layers - 1) * tokens + last  # rows of all layers that are computed as a whole
    flop = {
        PHASES["project_heads"]: 2.0 * c * c * (rows + 2 * spec.num_layers * tokens),
        # A query meets each key and its value, and where contents meet distances a row of each table
        PHASES["attend"]: 2.0 * (2 + _distance_tables(spec)) * c * sum(_keys_seen(spec, length) for length in lengths),
        PHASES["linear_residual_norm"]: 2.0 * c * c * rows,
        PHASES["feed_forward"]: 2.0 * (3 if spec.gated else 2) * c * f * rows,
        PHASES["head"]: 2.0 * pairs * sum(math.prod(shape) for shape in _products_of_head(spec)),
    }
    if spec.projection is not None:
        flop[PHASES["linear_rows"]] = 2.0 * spec.embedding_size * c * tokens
    if spec.convolution is not None:
        flop[PHASES["convolve_rows"]] = 2.0 * c * c // spec.convolution.groups * spec.convolution.width * tokens
    return flop


def _distance_tables(spec: ModelSpec) -> int:
    return 0 if spec.distance_rows is None else len(spec.distance_rows.kinds)


def _keys_seen(spec: ModelSpec, length: int) -> int:
    """Count, over all layers, the keys that each query of a pair of this length is compared with."""
    seen = 0
    for number, rule in enumerate(spec.layers):
        before, after = rule.reach or (length, length)
        place = np.arange(length)
        keys = np.minimum(place + after + 1, length) - np.maximum(place - before, 0)
        pick = POOLED_ROWS.get(spec.pooling) if number == spec.num_layers - 1 else None
        seen += int(keys.sum() if pick is None else keys[pick(np.array([0, length]))].sum())
    return seen


def _products_of_head(spec: ModelSpec) -> Iterator[tuple[int, int]]:
    for step in tensors_of_head(spec.head):
        if isinstance(step, LinearStep):
            yield step.outputs, step.inputs


def useful_flop(spec: ModelSpec, length: int) -> float:
    """Count the operations that the logits of one pair of this length need."""
    return sum(useful_flop_of_phases(spec, [length]).values())
