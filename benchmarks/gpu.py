"""Time numbert on a GPU against sentence-transformers with torch on the same GPU, and against the estimate.

Both run in this process in turns, each with the batch size that a short trial found fastest for it; tokenization is
part of the time. Before anything is timed, the logits must agree with those of numbert on the CPU.

    pip install 'numbert[cuda]'         and, to compare, torch for CUDA and sentence-transformers
    python benchmarks/gpu.py --model cross-encoder/ms-marco-MiniLM-L6-v2
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from common import Setting, forget_own_folder, machine_lines, make_pairs, positive, print_header, print_table, progress
from engines import Engine, Mode, numbert_engine, sentence_transformers_engines
from numbert import BackendError
from numbert.engine.cores import usable_cores
from numbert.engine.tools.phases import useful_flop
from numbert.loaders.checkpoint import load_checkpoint
from random_base import open_model
from rerank import TOLERANCES, largest_difference, pair_lengths
from timing import Job, time_job

PACKAGES = ("numbert", "numba", "numba-cuda", "torch", "sentence-transformers", "transformers")
PRECISIONS = ("float32", "bfloat16")
BATCH_SIZES = (32, 128, 512)


def main() -> None:
    """Check, time and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub id, or random-base (default: the model that comes with numbert)")
    parser.add_argument("--pairs", type=positive, nargs="+", default=[1000, 100, 10, 1], metavar="N")
    parser.add_argument("--words", type=positive, default=60, help="of the average passage (default: 60)")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results and the facts of the machine")
    arguments = parser.parse_args()
    forget_own_folder()
    with open_model(arguments.model) as folder:
        result = run(arguments, folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Check and time everything, print it, and return it."""
    checkpoint = load_checkpoint(folder)
    max_length = min(checkpoint.tokenizer.max_length or checkpoint.spec.max_positions, checkpoint.spec.max_positions)
    pairs = make_pairs(max(arguments.pairs), arguments.words)
    lengths = pair_lengths(pairs, checkpoint, max_length)
    engines = load_engines(folder, max_length)
    facts = [*machine_lines(PACKAGES), f"GPU: {describe_gpu()}", f"mean length: {sum(lengths) / len(pairs):.0f} tokens"]
    print_header(f"Reranking on a GPU with {folder.name}", facts)
    differences = check_agreement(engines, folder, max_length, pairs[:100])
    jobs = []
    for size in arguments.pairs:
        work = sum(useful_flop(checkpoint.spec, length) for length in lengths[:size]) / 1e12
        timings = time_job(engines, Job(pairs[:size], calls=3), arguments.rounds, BATCH_SIZES)
        rows = [
            {
                "engine": engine.name, "batch_size": timing.setting.batch_size, "median_ms": 1e3 * timing.median,
                "us_a_pair": 1e6 * timing.median / size, "useful_tflops": work / timing.median,
                "difference": differences[engine.name],
            }
            for engine, timing in zip(engines, timings, strict=True)
        ]  # fmt: skip
        print(f"### {size} pair{'s' * (size > 1)}\n")
        print_table(tuple(rows[0]), [tuple(_cell(value) for value in row.values()) for row in rows])
        jobs.append({"pairs": size, "engines": rows})
    return {"benchmark": "gpu", "model": folder.name, "facts": facts, "jobs": jobs}


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def load_engines(folder: Path, max_length: int) -> list[Engine]:
    """Load numbert in both precisions, and torch where it is installed with a GPU."""
    engines = []
    for precision in PRECISIONS:
        mode = Mode(f"numbert {precision}", precision, {"device": "cuda", "dtype": precision})
        try:
            engines.append(numbert_engine(folder, usable_cores(), max_length, mode))
        except BackendError as error:
            progress(f"left out: {mode.name}: {error}")
    if not engines:
        sys.exit("no GPU that numbert can use: nothing to time")
    try:
        engines += sentence_transformers_engines(folder, usable_cores(), max_length, PRECISIONS, device="cuda")
    except (ImportError, RuntimeError, AssertionError) as error:  # not installed, or made without CUDA
        progress(f"left out: torch: {error}")
    return engines


def check_agreement(engines: list[Engine], folder: Path, max_length: int, pairs: Any) -> dict[str, float]:
    """Return each engine's largest difference to the logits of numbert's CPU kernels in float32."""
    cpu = numbert_engine(folder, usable_cores(), max_length, Mode("CPU", "float32", {"device": "cpu"}))
    exact = cpu.score(pairs, Setting(32, split=False))
    differences = {}
    for engine in engines:
        differences[engine.name] = largest_difference(exact, engine.score(pairs, Setting(32, split=False)))
        if not differences[engine.name] <= TOLERANCES[engine.precision]:
            sys.exit(f"{engine.name}: logits differ from the CPU's by {differences[engine.name]:.2g}: not compared")
    return differences


def describe_gpu() -> str:
    """Return name and compute capability."""
    from numba import cuda

    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, compute capability {'.'.join(map(str, device.compute_capability))}"


if __name__ == "__main__":
    main()
