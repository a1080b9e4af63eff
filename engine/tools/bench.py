"""How fast a model is on this machine: `numbert bench`. Comparisons with other engines are in benchmarks/.

Pairs are made here or given; every measurement is of `CrossEncoder.predict`, tokenization included.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ..cores import usable_cores
from ..cross_encoder import CrossEncoder
from ..errors import InputError
from ..inputs import Pair, check_count
from ..tokenization import tokenize
from .machine import load_average, processor_name
from .phases import Phase, profile, useful_flop_of_phases

WORDS = (
    "the a of and in to is was for on with by from at one two three first last old new small large long cold warm"
    " river town house school bridge market winter summer morning people water bread salt letter song book map train"
    " coast hill valley road door glass iron wool lake tower garden north south never often almost found made built"
    " gives keeps shows takes left moved opened closed carried measured"
).split()
QUERY_WORDS = 6
# What `CrossEncoder.describe` says that belongs beside a measurement.
DESCRIBED = (
    "folder",
    "num_layers",
    "hidden_size",
    "backend",
    "dtype",
    "matmul_precision",
    "threads",
    "instruction_set",
)
PEAK_CALLS = 40  # of the chains on each thread: a tenth of a second


class Report(NamedTuple):
    """What was measured."""

    facts: dict[str, Any]
    phases: list[Phase]  # empty when they were not asked for
    peak_gflops: float | None  # float32 multiply-adds of one thread while all compute; None without Numba


def make_pairs(count: int, words: int) -> list[Pair]:
    """Make pairs of a query and a passage that has half to one and a half times `words`; the same at every call."""
    check_count(count, "pairs", low=1)
    check_count(words, "words", low=1)
    source = random.Random(5)

    def text(size: float) -> str:
        return " ".join(source.choices(WORDS, k=max(round(size), 1)))

    return [(text(QUERY_WORDS), text(words * (0.5 + source.random()))) for _ in range(count)]


def bench(model: CrossEncoder, pairs: Sequence[Pair], batch_size: int, rounds: int, with_phases: bool) -> Report:
    """Score the pairs again and again and return how fast that was.

    Parameters
    ----------
    model : CrossEncoder
    pairs : sequence of (str, str)
        Those that occur more than once are left out: numbert would compute them once.
    batch_size : int
        Passed on to `predict`.
    rounds : int
        Timed calls, after one that is not.
    with_phases : bool
        Find out where the time goes, in as many calls more.

    Raises
    ------
    InputError
        When there are no pairs, a number is not positive, or a backend without kernels is to be profiled.
    """
    pairs = list(dict.fromkeys(pairs))
    check_count(rounds, "rounds", low=1)
    if not pairs:
        raise InputError("pairs: found none, expected at least one; give a file that has some, or none")
    load = load_average()  # before this program is a part of it

    def call() -> None:
        model.predict(pairs, batch_size=batch_size, prompt="", show_progress_bar=False)

    call()
    lengths = _token_lengths(model, pairs)
    flop = useful_flop_of_phases(model.spec, lengths)
    phases = profile(call, rounds, model._scorer.runner, flop) if with_phases else []
    seconds = [_duration(call) for _ in range(rounds)]
    facts = {**_describe(model, load), **_speed(seconds, lengths, sum(flop.values()))}
    chains = model._scorer.runner.peak
    if chains is None:
        return Report(facts, phases, None)
    peak = peak_gflops_of_a_thread(chains, model.num_threads)
    facts["peak_gflops_float32"] = round(peak * model.num_threads, 1)
    facts["share_of_float32_peak"] = round(facts["useful_gflops"] / (peak * model.num_threads), 3)
    return Report(facts, phases, peak)


def phase_table(report: Report) -> str:
    """Return the phases as a Markdown table; GFLOP/s and peak are those of one thread."""
    lines = [
        "| phase | ms of thread time | share | GFLOP/s of a thread | share of float32 peak |",
        "|---|---:|---:|---:|---:|",
    ]
    for phase in report.phases:
        rate = of_peak = ""
        if phase.gflops is not None and report.peak_gflops is not None:
            rate, of_peak = f"{phase.gflops:.1f}", f"{phase.gflops / report.peak_gflops:.0%}"
        lines.append(f"| {phase.name} | {1e3 * phase.seconds:.2f} | {phase.share:.1%} | {rate} | {of_peak} |")
    return "\n".join(lines)


def _duration(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _token_lengths(model: CrossEncoder, pairs: Sequence[Pair]) -> list[int]:
    tokenizer = model._scorer.tokenizer
    special = tokenizer.template.num_special
    return [len(first) + len(second) + special for first, second in tokenize(pairs, tokenizer, model.max_seq_length)]


def _describe(model: CrossEncoder, load: float | None) -> dict[str, Any]:
    described = model.describe()
    return {
        "processor": processor_name(),
        "usable_cores": usable_cores(),
        "load_average": load,
        **{key: described[key] for key in DESCRIBED},
    }


def _speed(seconds: Sequence[float], lengths: Sequence[int], flop: float) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "pairs": len(lengths),
        "tokens": sum(lengths),
        "shortest": min(lengths),
        "longest": max(lengths),
        "median_ms": round(1e3 * median, 2),
        "best_ms": round(1e3 * min(seconds), 2),
        "pairs_per_second": round(len(lengths) / median, 1),
        "tokens_per_second": round(sum(lengths) / median),
        "useful_gflops": round(flop / median / 1e9, 1),
    }


def peak_gflops_of_a_thread(peak: Any, num_threads: int) -> float:
    """Return what one thread can multiply and add while all do, and share clock, power and perhaps a core.

    `peak` is the backend's PEAK.
    """

    def rate(_: int) -> float:
        data = peak.start_values()
        seconds = statistics.median(_duration(lambda: peak.run_chains(data)) for _ in range(PEAK_CALLS))
        return float(peak.FLOP / seconds / 1e9)

    with ThreadPoolExecutor(num_threads) as threads:
        return statistics.mean(threads.map(rate, range(num_threads)))
