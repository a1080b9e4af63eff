"""Time numbert against sentence-transformers, ONNX Runtime and OpenVINO on the same pairs.

All engines that are installed run in this process, with the same number of threads, in turns (A B C A B C ...), each
with the batch size that a short trial found fastest for it; tokenization is part of the time. Before anything is
timed, the logits of every engine must agree with numbert's float32 as far as its precision allows. Markdown on stdout,
progress on stderr.

    python benchmarks/rerank.py --model MODEL --threads 2
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from common import (
    Pairs,
    forget_own_folder,
    machine_lines,
    make_pairs,
    model_folder,
    positive,
    print_header,
    print_table,
    progress,
    vector_features,
)
from engines import PRECISIONS, Engine, Logits, Setting, load_engines
from numbert.engine.bench import peak_gflops_of_a_thread
from numbert.engine.phases import useful_flop
from numbert.engine.tokenization import tokenize
from numbert.engine.workers import usable_cores
from numbert.kernels.cpu.isa import ISA
from numbert.loaders.checkpoint import Checkpoint, load_checkpoint

PACKAGES = (
    "numbert", "numpy", "numba", "llvmlite", "tokenizers", "sentence-transformers", "transformers", "torch", "onnx",
    "onnxruntime", "openvino",
)  # fmt: skip
# Largest difference to numbert's float32 logits that is still the same work: rounding to bfloat16 and int8 was seen to
# move logits by 0.1 and 0.8; another computation would miss by what logits differ among each other, about 10.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "int8": 3.0}
BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # small ones too: they pad least
TRIALS = 3  # turns of each setting before the rounds; the first ones also warm up
DISTURBED = 1.25  # times its best that an engine's median may be; a quiet machine shows 1.1
PAUSE = 0.05  # seconds before each turn: the threads of some engines spin for a while after a call


class Job(NamedTuple):
    """Pairs that are scored in one call."""

    pairs: Pairs
    calls: int  # calls in one turn, of which the median counts: short ones vary more


class Result(NamedTuple):
    """What an engine did in a job."""

    setting: Setting
    seconds: list[float]  # of each round


def main() -> None:
    """Read the arguments, check, time, print."""
    arguments = _parse()
    _pin_threads(arguments.threads)
    forget_own_folder()
    header = list(machine_lines(PACKAGES))  # before this program loads the machine itself
    peak = peak_gflops_of_a_thread(arguments.threads)
    checkpoint = load_checkpoint(model_folder(arguments.model))
    max_length = min(checkpoint.tokenizer.max_length or checkpoint.spec.max_positions, checkpoint.spec.max_positions)
    pairs = make_pairs(100, arguments.words, arguments.lengths)
    lengths = pair_lengths(pairs, checkpoint, max_length)
    print_header(
        f"Reranking with {checkpoint.folder.name}",
        [
            *header,
            f"threads of every engine: {arguments.threads}",
            f"instruction set of numbert: {ISA.name}; of the processor: {' '.join(vector_features())}",
            f"measured peak of a thread while all compute: {peak:.0f} GFLOP/s of float32 multiply-adds",
            f"pairs: {min(lengths)} to {max(lengths)} tokens, mean {np.mean(lengths):.0f}",
            f"rounds: {arguments.rounds}; ratio: median over rounds of the engine's time / numbert's at that precision",
        ],
    )
    engines = [
        engine
        for engine in load_engines(checkpoint.folder, arguments.threads, max_length)
        if engine.precision in arguments.precision
    ]
    differences = check_agreement(engines, pairs)
    for size, calls in ((100, 1), (10, 3), (1, 10)):
        places = spread(lengths, size)
        job = Job([pairs[place] for place in places], calls)
        work = sum(useful_flop(checkpoint.spec, lengths[place]) for place in places) / 1e9
        tokens = sum(lengths[place] for place in places)
        print(f"### {size} pair{'s' * (size > 1)}: {tokens} tokens, {work:.3g} useful GFLOP\n", flush=True)
        results = time_job(engines, job, arguments.rounds)
        print_table(
            (
                "engine",
                "batch size",
                "median ms",
                "best ms",
                "pairs/s",
                "useful GFLOP/s",
                "share of peak",
                "ratio",
                "max logit diff.",
            ),
            _rows(engines, results, size, work, arguments.threads * peak, differences),
        )
        warn_of_disturbance(engines, results)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub id of a BERT cross-encoder (default: the one within numbert)")
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="default: all")
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--words", type=positive, default=65, help="mean words of a passage (default 65: ~77 tokens)")
    parser.add_argument("--lengths", choices=("similar", "mixed"), default="similar", help="mixed: 10 to 512 tokens")
    return parser.parse_args()


def _pin_threads(threads: int) -> None:
    """Tell the libraries that are not imported yet; each engine is also told by its own setting."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"


def pair_lengths(pairs: Pairs, checkpoint: Checkpoint, max_length: int) -> list[int]:
    """Count the tokens of each pair, special ones included."""
    special = checkpoint.tokenizer.template.num_special
    return [len(first) + len(second) + special for first, second in tokenize(pairs, checkpoint.tokenizer, max_length)]


def spread(lengths: Sequence[int], count: int) -> list[int]:
    """Choose so many pairs that stand for all: evenly spaced in the order of lengths; one is the median."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return sorted(order[(2 * i + 1) * len(order) // (2 * count)] for i in range(count))


def check_agreement(engines: Sequence[Engine], pairs: Pairs) -> list[float]:
    """Return the largest difference of each engine's logits to those of the first, numbert's.

    Raises
    ------
    SystemExit
        When an engine differs by more than TOLERANCE: what is not the same work is not compared.
    """
    progress("comparing logits")
    first, *others = (engine.score(pairs, Setting(8, split=False)) for engine in engines)
    differences = [0.0]
    for engine, logits in zip(engines[1:], others, strict=True):
        differences.append(largest_difference(first, logits))
        allowed = TOLERANCE[engine.precision]
        if not differences[-1] <= allowed:
            sys.exit(f"{engine.name}: logits differ from {engines[0].name} by {differences[-1]:.2g}, allowed {allowed}")
    return differences


def largest_difference(a: Logits, b: Logits) -> float:
    """Return max |a - b|; infinity when the shapes differ."""
    return float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")


def time_job(engines: Sequence[Engine], job: Job, rounds: int) -> list[Result]:
    """Find each engine's setting, then let the engines take turns."""
    results = [Result(setting, []) for setting in fastest_settings(engines, job)]
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}, pairs: {len(job.pairs)}")
        for engine, result in zip(engines, results, strict=True):
            result.seconds.append(_turn(engine, job, result.setting))
    return results


def fastest_settings(engines: Sequence[Engine], job: Job) -> list[Setting]:
    """Try all settings in turns, engine after engine, TRIALS times; the best turn of each counts."""
    times = [dict.fromkeys(_settings(engine, len(job.pairs)), math.inf) for engine in engines]
    for _ in range(TRIALS):
        for engine, own in zip(engines, times, strict=True):
            for setting in own:
                own[setting] = min(own[setting], _turn(engine, job, setting))
    for engine, own in zip(engines, times, strict=True):
        progress(f"{engine.name}: " + ", ".join(f"[{setting}] {1e3 * best:.1f} ms" for setting, best in own.items()))
    return [min(own, key=own.__getitem__) for own in times]


def _settings(engine: Engine, pairs: int) -> list[Setting]:
    """List the settings that can make a difference for so many pairs."""
    sizes = sorted({min(size, pairs) for size in BATCH_SIZES})
    shared = [Setting(size, split=False) for size in sizes]
    split = [Setting(size, split=True) for size in sizes if size < pairs]
    return shared + split if engine.can_split else shared


def warn_of_disturbance(engines: Sequence[Engine], results: Sequence[Result]) -> None:
    """Say so where other work took cores away: it delays engines whose threads wait for each other the most."""
    for engine, result in zip(engines, results, strict=True):
        median, best = statistics.median(result.seconds), min(result.seconds)
        if median > DISTURBED * best:
            print(
                f"Disturbed: median of {engine.name} is {median / best:.2f} x its best. Run again on a quiet machine.\n"
            )


def _turn(engine: Engine, job: Job, setting: Setting) -> float:
    time.sleep(PAUSE)
    seconds = []
    for _ in range(job.calls):
        start = time.perf_counter()
        engine.score(job.pairs, setting)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _rows(
    engines: Sequence[Engine],
    results: Sequence[Result],
    size: int,
    work: float,
    peak_of_all: float,
    differences: Sequence[float],
) -> Iterator[tuple[str, ...]]:
    first = {engine.precision: result for engine, result in reversed(list(zip(engines, results, strict=True)))}
    for engine, result, difference in zip(engines, results, differences, strict=True):
        median = statistics.median(result.seconds)
        pairs_of_rounds = zip(result.seconds, first[engine.precision].seconds, strict=True)
        yield (
            engine.name,
            str(result.setting),
            f"{1e3 * median:.1f}",
            f"{1e3 * min(result.seconds):.1f}",
            f"{size / median:.0f}",
            f"{work / median:.0f}",
            f"{work / median / peak_of_all:.0%}" if engine.precision == "float32" else "",
            f"{statistics.median(own / numbert for own, numbert in pairs_of_rounds):.2f}",
            f"{difference:.1g}",
        )


if __name__ == "__main__":
    main()
