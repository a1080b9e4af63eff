"""Time numbert against sentence-transformers, ONNX Runtime and OpenVINO on the same pairs.

All engines that are installed run in this process, with the same number of threads, in turns (A B C A B C ...), each
with the batch size that a short trial found fastest for it; tokenization is part of the time. Before anything is
timed, the logits of every engine must agree with numbert's. Markdown on stdout, progress on stderr.

    python benchmarks/rerank.py --model MODEL --threads 2 --json benchmarks/results/rerank.json
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    LENGTHS,
    Pairs,
    Setting,
    forget_own_folder,
    machine_lines,
    make_pairs,
    positive,
    print_header,
    print_table,
    progress,
    spread,
)
from engines import PRECISIONS, Engine, load_engines
from graphs import Logits
from machine import processor_features, restart_with_avx2
from numbert.engine.cores import usable_cores
from numbert.engine.tokenization import tokenize
from numbert.engine.tools.bench import peak_gflops_of_a_thread
from numbert.engine.tools.phases import useful_flop
from numbert.kernels.cpu import peak as chains
from numbert.kernels.cpu.isa import ISA
from numbert.loaders.checkpoint import Checkpoint, load_checkpoint
from random_base import RANDOM, open_model
from timing import BATCH_SIZES, TRIALS, Job, Timing, time_job

PACKAGES = (
    "numbert", "numpy", "numba", "llvmlite", "tokenizers", "sentence-transformers", "transformers", "torch", "onnx",
    "onnxruntime", "openvino",
)  # fmt: skip
# How far the logits of an engine may be from numbert's in float32: what is not the same work is not compared.
TOLERANCES = {
    "float32": 1e-3,  # two orders of sums, seen: 2e-5
    "bfloat16": 0.5,  # 8 bits of each factor, logits of -10 to 10; seen: 0.1
    "int8": 5.0,  # 7 bits, and one scale for a whole activation in some engines; seen: 1 to 3. Catches wrong inputs
}
PAIRS = 100  # from which each job takes some
PAIRS_IN_A_TURN = 30  # a job of fewer is called several times in a turn (ten at most): short times vary more


def main() -> None:
    """Read the arguments, check, time, print."""
    arguments = _parse()
    if arguments.isa:
        restart_with_avx2()
    _pin_threads(arguments.threads)
    forget_own_folder()
    header = list(machine_lines(PACKAGES))  # before this program loads the machine itself
    with open_model(arguments.model) as folder:
        result = run(arguments, load_checkpoint(folder), header)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--model",
        help=f"folder or hub id of a cross-encoder, or one of {', '.join(RANDOM)}: shapes of base models with random"
        " weights (default: the model within numbert)",
    )
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--words", type=positive, default=65, help="mean words of a passage (default 65: ~77 tokens)")
    parser.add_argument(
        "--lengths", choices=LENGTHS, default="similar", help="mixed: 10 to 512 tokens; long: 1,000 to 2,000"
    )
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="default: all")
    parser.add_argument("--pairs", nargs="+", type=_pairs, default=[100, 10, 1], help="of each job (default 100 10 1)")
    parser.add_argument(
        "--batch-sizes", nargs="+", type=positive, default=BATCH_SIZES, help="that are tried (default 1 to 32)"
    )
    parser.add_argument("--trials", type=positive, default=TRIALS, help=f"of each setting (default {TRIALS})")
    parser.add_argument("--isa", choices=("avx2",), help="compute as on a processor with AVX2 and no more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results and the facts of the machine")
    return parser.parse_args()


def _pairs(text: str) -> int:
    value = positive(text)
    if value > PAIRS:
        raise argparse.ArgumentTypeError(f"found {value}, expected 1 to {PAIRS}")
    return value


def _pin_threads(threads: int) -> None:
    """Tell the libraries that are not imported yet; each engine is also told by its own setting."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"


def run(arguments: argparse.Namespace, checkpoint: Checkpoint, header: list[str]) -> dict[str, Any]:
    """Check and time everything, print it, and return what was found and on which machine."""
    usable = checkpoint.spec.usable_length
    max_length = min(checkpoint.tokenizer.max_length or usable, usable)
    pairs = make_pairs(PAIRS, arguments.words, arguments.lengths)
    lengths = pair_lengths(pairs, checkpoint, max_length)
    peak = peak_gflops_of_a_thread(chains, arguments.threads)
    facts = [*header, *describe(arguments, peak, lengths)]
    print_header(f"Reranking with {checkpoint.folder.name}", facts)
    engines = load_engines(checkpoint.folder, arguments.threads, max_length, arguments.precision)
    used = sorted({place for size in arguments.pairs for place in spread(lengths, size)})
    size = max(size for size in (1, *arguments.batch_sizes) if size <= 8)  # larger ones pad long pairs beyond memory
    differences = check_agreement(engines, [pairs[place] for place in used], size)
    wanted = [engine for engine in engines if engine.precision in arguments.precision]
    wanted.sort(key=lambda engine: PRECISIONS.index(engine.precision))
    jobs = []
    for size in arguments.pairs:
        places = spread(lengths, size)
        work = sum(useful_flop(checkpoint.spec, lengths[place]) for place in places) / 1e9
        tokens = sum(lengths[place] for place in places)
        print(f"### {size} pair{'s' * (size > 1)}: {tokens} tokens, {work:.3g} useful GFLOP\n", flush=True)
        job = Job([pairs[place] for place in places], calls=min(10, max(1, PAIRS_IN_A_TURN // size)))
        timings = time_job(wanted, job, arguments.rounds, arguments.batch_sizes, arguments.trials)
        rows = list(results(wanted, timings, differences))
        print_results(rows, size, work, arguments.threads * peak)
        jobs.append({"pairs": size, "tokens": tokens, "gflop": work, "engines": rows})
    return {
        "benchmark": "rerank", "model": checkpoint.folder.name, "threads": arguments.threads, "facts": facts,
        "features": processor_features(), "isa": ISA.name, "peak_gflops_of_a_core": peak, "jobs": jobs,
    }  # fmt: skip


def describe(arguments: argparse.Namespace, peak: float, lengths: Sequence[int]) -> Iterator[str]:
    """Yield what the header says besides processor and versions."""
    yield f"processor features: {', '.join(processor_features())}"
    yield f"threads of every engine: {arguments.threads}"
    yield f"instruction set of numbert: {ISA.name}; measured peak of a core: {peak:.0f} GFLOP/s in float32"
    if arguments.isa:
        yield (
            "forced to AVX2: numbert, OpenVINO, torch's bfloat16 (oneDNN). Not forced: ONNX Runtime, which has no such"
            " switch, and torch's int8 (FBGEMM). On AMD torch's float32 (MKL) takes as long as without"
        )
    yield f"pairs: {min(lengths)} to {max(lengths)} tokens, mean {np.mean(lengths):.0f}"
    yield (
        f"rounds: {arguments.rounds}; ratio: median over rounds of the engine's time / the time of numbert in the same"
        " precision"
    )


def pair_lengths(pairs: Pairs, checkpoint: Checkpoint, max_length: int) -> list[int]:
    """Count the tokens of each pair, special ones included."""
    special = checkpoint.tokenizer.template.num_special
    return [len(first) + len(second) + special for first, second in tokenize(pairs, checkpoint.tokenizer, max_length)]


def check_agreement(engines: Sequence[Engine], pairs: Pairs, batch_size: int) -> dict[str, float]:
    """Return the largest difference of each engine's logits to those of numbert in float32, the first engine.

    Raises
    ------
    SystemExit
        When an engine differs by more than its precision explains.
    """
    progress("comparing logits")
    exact, *others = (engine.score(pairs, Setting(batch_size, split=False)) for engine in engines)
    differences = {engines[0].name: 0.0}
    for engine, logits in zip(engines[1:], others, strict=True):
        difference, allowed = largest_difference(exact, logits), TOLERANCES[engine.precision]
        differences[engine.name] = difference
        if not difference <= allowed:
            sys.exit(
                f"{engine.name}: logits differ from numbert's by {difference:.2g}, expected at most {allowed:.2g};"
                " run `numbert verify` to see which of them is wrong"
            )
    return differences


def largest_difference(a: Logits, b: Logits) -> float:
    """Return max |a - b|; infinity when the shapes differ."""
    return float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")


def results(
    engines: Sequence[Engine], timings: Sequence[Timing], differences: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield what is known of each engine; "ratio" is None where numbert does not have the engine's precision."""
    ours: dict[str, Timing] = {}
    for engine, timing in zip(engines, timings, strict=True):
        if engine.name.startswith("numbert"):
            ours.setdefault(engine.precision, timing)
    for engine, timing in zip(engines, timings, strict=True):
        base = ours.get(engine.precision)
        yield {
            "engine": engine.name, "precision": engine.precision, "setting": str(timing.setting),
            "median_ms": 1e3 * timing.median, "best_ms": 1e3 * min(timing.seconds),
            "ratio": timing.ratio_to(base) if base else None, "difference": differences[engine.name],
            "disturbed": timing.is_disturbed,
        }  # fmt: skip


def print_results(rows: Sequence[dict[str, Any]], size: int, work: float, peak: float) -> None:
    """Print the table of a job, the fastest peer of each precision, and which times not to trust."""
    columns = ("engine", "precision", "batch size", "median ms", "best ms", "pairs/s", "useful GFLOP/s")
    print_table(
        (*columns, "share of peak", "ratio", "max logit diff."), (_cells(row, size, work, peak) for row in rows)
    )
    for precision in dict.fromkeys(row["precision"] for row in rows):
        peers = [row for row in rows if row["precision"] == precision and not row["engine"].startswith("numbert")]
        if peers and peers[0]["ratio"] is not None:
            fastest = min(peers, key=lambda row: float(row["ratio"]))
            print(f"- {precision}: fastest peer / numbert = {fastest['ratio']:.2f} ({fastest['engine']})")
    for row in rows:
        if row["disturbed"]:
            print(f"- disturbed: median of {row['engine']} is far above its best; run again on a quiet machine")
    print(flush=True)


def _cells(row: dict[str, Any], size: int, work: float, peak: float) -> tuple[str, ...]:
    seconds = row["median_ms"] / 1e3
    return (
        row["engine"], row["precision"], row["setting"], f"{row['median_ms']:.1f}", f"{row['best_ms']:.1f}",
        f"{size / seconds:.0f}", f"{work / seconds:.0f}",
        f"{work / seconds / peak:.0%}" if row["precision"] == "float32" else "",
        f"{row['ratio']:.2f}" if row["ratio"] is not None else "", f"{row['difference']:.1g}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
