"""Compare a frozen model with the same one compiled by Numba: many pairs, single pairs, and the cost of one call.

Both compute in this process, in turns; medians count, and the median over rounds of the ratio within a round. A forward
pass of two tokens shows what the calls of kernels cost: it has as many as any other, and next to nothing to compute.
Markdown on stdout, progress on stderr.

    python benchmarks/frozen.py --model MODEL --dtype float32
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import machine_lines, make_pairs, model_folder, positive, print_header, print_table, progress
from numbert import CrossEncoder
from numbert.engine.cores import usable_cores
from numbert.engine.encoder import forward
from numbert.engine.tokenization import TokenBatch
from numbert.engine.tools.freeze import freeze

PAIRS, WORDS = 100, 65
REPEATED = 50  # calls in a turn of what takes less than a millisecond


def main() -> None:
    """Read the arguments, freeze, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub id (default: the one within numbert)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "int8"))
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results and the facts of the machine")
    arguments = parser.parse_args()
    folder = model_folder(arguments.model)
    facts = [
        *machine_lines(("numbert", "numpy", "numba")),
        f"threads: {arguments.threads}",
        f"dtype: {arguments.dtype}",
    ]
    print_header(f"{folder.name}, compiled and frozen", facts)
    with tempfile.TemporaryDirectory() as scratch:
        places = {"compiled": folder, "frozen": freeze(str(folder), Path(scratch, "frozen"), arguments.dtype)}
        models = {
            name: CrossEncoder(place, dtype=arguments.dtype, num_threads=arguments.threads)
            for name, place in places.items()
        }
        rows = measure(models, arguments.rounds)
    print_table(("what", "compiled, us", "frozen, us", "ratio"), map(cells, rows))
    if arguments.json:
        result = {"benchmark": "frozen", "model": folder.name, "facts": facts, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def measure(models: dict[str, CrossEncoder], rounds: int) -> list[dict[str, Any]]:
    """Time all jobs with both models in turns."""
    pairs = make_pairs(PAIRS, WORDS)
    calls = {name: _forward_of_two_tokens(model) for name, model in models.items()}
    jobs: dict[str, tuple[Callable[[str], Any], int]] = {
        f"{PAIRS} pairs": (lambda name: models[name].predict(pairs), 1),
        "one pair": (lambda name: models[name].predict(pairs[0]), REPEATED),
        "a forward pass of two tokens": (lambda name: calls[name](), REPEATED),
    }
    seconds: dict[str, dict[str, list[float]]] = {what: {name: [] for name in models} for what in jobs}
    assert (models["compiled"].predict(pairs) == models["frozen"].predict(pairs)).all()
    for number in range(-1, rounds):  # the first warms up
        progress(f"round {number + 1} of {rounds}")
        for what, (run, times) in jobs.items():
            for name in models:
                begin = time.perf_counter()
                for _ in range(times):
                    run(name)
                if number >= 0:
                    seconds[what][name].append((time.perf_counter() - begin) / times)
    return [{"what": what, "seconds": taken, "ratio": _ratio(taken)} for what, taken in seconds.items()]


def _forward_of_two_tokens(model: CrossEncoder) -> Callable[[], Any]:
    runner: Any = model._scorer.runner
    position = np.arange(2, dtype=np.int32) + model.spec.first_position
    batch = TokenBatch(np.ones(2, np.int32), np.zeros(2, np.int32), position, np.array([0, 2]))
    workspace = runner._ops.make_team(1)[0]
    return lambda: forward(runner.encoder, batch, runner._ops, workspace)


def _ratio(taken: dict[str, list[float]]) -> float:
    """Return how much faster the frozen model is."""
    return statistics.median(a / b for a, b in zip(taken["compiled"], taken["frozen"], strict=True))


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    times = [f"{statistics.median(row['seconds'][name]) * 1e6:.0f}" for name in ("compiled", "frozen")]
    return [row["what"], *times, f"{row['ratio']:.2f}"]


if __name__ == "__main__":
    main()
