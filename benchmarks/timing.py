"""Time engines in turns, each at the setting that a short trial found fastest for it."""

import math
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from common import Pairs, Setting, progress
from engines import Engine

BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # small ones too: they pad least
TRIALS = 3  # turns of a setting before the rounds; the first ones also warm up
HOPELESS = 1.5  # times its engine's best trial that a setting may take and be tried again
DISTURBED = 1.25  # times its best that an engine's median may be; a quiet machine shows 1.1
PAUSE = 0.05  # seconds before each turn: the threads of some engines spin for a while after a call


class Job(NamedTuple):
    """Pairs that are scored in one call."""

    pairs: Pairs
    calls: int  # calls in one turn, of which the median counts: short ones vary more


class Timing(NamedTuple):
    """What an engine needed for a job."""

    setting: Setting
    seconds: list[float]  # of each round

    @property
    def median(self) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.seconds)

    @property
    def is_disturbed(self) -> bool:
        """Tell whether other work took cores away: it delays engines whose threads wait for each other the most."""
        return self.median > DISTURBED * min(self.seconds)

    def ratio_to(self, other: "Timing") -> float:
        """Return how many times as long as the other: the median over rounds of the ratio within a round."""
        return statistics.median(own / base for own, base in zip(self.seconds, other.seconds, strict=True))


def time_job(
    engines: Sequence[Engine],
    job: Job,
    rounds: int,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    trials: int = TRIALS,
) -> list[Timing]:
    """Find each engine's setting, then let the engines take turns."""
    timings = [Timing(setting, []) for setting in fastest_settings(engines, job, batch_sizes, trials)]
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}, pairs: {len(job.pairs)}")
        for engine, timing in zip(engines, timings, strict=True):
            timing.seconds.append(_turn(engine, job, timing.setting))
    return timings


def fastest_settings(engines: Sequence[Engine], job: Job, batch_sizes: Sequence[int], trials: int) -> list[Setting]:
    """Try the settings in turns, engine after engine, so many times; the best turn of each counts."""
    times = [dict.fromkeys(_settings(engine, len(job.pairs), batch_sizes), math.inf) for engine in engines]
    for _ in range(trials):
        for engine, own in zip(engines, times, strict=True):
            best = min(own.values())
            for setting in own:
                if own[setting] <= HOPELESS * best:
                    own[setting] = min(own[setting], _turn(engine, job, setting))
    for engine, own in zip(engines, times, strict=True):
        progress(f"{engine.name}: " + ", ".join(f"[{setting}] {1e3 * best:.1f} ms" for setting, best in own.items()))
    return [min(own, key=own.__getitem__) for own in times]


def _settings(engine: Engine, pairs: int, batch_sizes: Sequence[int]) -> list[Setting]:
    """List the settings that can make a difference for so many pairs."""
    sizes = sorted({min(size, pairs) for size in batch_sizes})
    shared = [Setting(size, split=False) for size in sizes]
    split = [Setting(size, split=True) for size in sizes if size < pairs]
    return shared + split if engine.can_split else shared


def _turn(engine: Engine, job: Job, setting: Setting) -> float:
    time.sleep(PAUSE)
    seconds = []
    for _ in range(job.calls):
        start = time.perf_counter()
        engine.score(job.pairs, setting)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
