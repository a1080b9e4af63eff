"""Show that cost grows with the number of pairs and no faster: time and memory from 10 to 10,000 pairs.

All sizes run in one process, in turns; medians count. The pairs of each size have the same mix of lengths. Markdown on
stdout, progress on stderr.

    python benchmarks/scaling.py --model MODEL
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from common import machine_lines, make_pairs, model_folder, positive, print_header, print_table, progress, spread
from numbert import CrossEncoder
from numbert.engine.cores import usable_cores

SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)
WORDS = 65  # of a passage: about 77 tokens a pair
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    """Read the arguments, time all sizes in turns, print."""
    arguments = _parse()
    facts = [*machine_lines(("numbert", "numpy", "numba")), f"threads: {arguments.threads}"]
    folder = model_folder(arguments.model)
    print_header(f"Scaling with {folder.name}", [*facts, f"rounds: {arguments.rounds}"])
    model = CrossEncoder(folder, num_threads=arguments.threads)
    pool = make_pairs(max(arguments.sizes), WORDS)
    words = [len(passage.split()) for _, passage in pool]
    jobs = {size: [pool[place] for place in spread(words, size)] for size in arguments.sizes}
    model.predict(jobs[min(jobs)])  # compiles
    runs: dict[int, list[tuple[float, float]]] = {size: [] for size in jobs}
    for number in range(arguments.rounds):
        progress(f"round {number + 1} of {arguments.rounds}")
        for size, pairs in jobs.items():
            runs[size].append(measure(model, pairs))
    rows = summarize(runs)
    columns = ("pairs", "median s", "pairs/s", "ms a pair", "deviation from the median", "peak MiB")
    print_table(columns, map(cells, rows))
    if arguments.json:
        result = {"benchmark": "scaling", "model": folder.name, "facts": facts, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub id (default: the one within numbert)")
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--sizes", type=positive, nargs="+", default=SIZES, help="numbers of pairs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results and the facts of the machine")
    return parser.parse_args()


def measure(model: CrossEncoder, pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """Score the pairs; return the seconds that it took and the largest size of the process meanwhile, in MiB."""
    _forget_peak()
    start = time.perf_counter()
    model.predict(pairs)
    return time.perf_counter() - start, _peak_memory()


def _forget_peak() -> None:
    """Let the peak begin anew with the memory that is in use; Linux only."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def _peak_memory() -> float:
    """Return the peak in MiB; NaN where the system has no peak that can begin anew."""
    if not CLEAR.exists():
        return float("nan")
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def summarize(runs: dict[int, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Return what is known of each size: medians, and how far its cost of a pair is from that of the middle size."""
    seconds = {size: statistics.median(time for time, _ in own) for size, own in runs.items()}
    middle = statistics.median(seconds[size] / size for size in seconds)
    return [
        {
            "pairs": size, "seconds": seconds[size], "deviation": seconds[size] / size / middle - 1,
            "peak_mib": statistics.median(memory for _, memory in own),
        }
        for size, own in runs.items()
    ]  # fmt: skip


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table."""
    size, seconds = row["pairs"], row["seconds"]
    return (
        f"{size}", f"{seconds:.3g}", f"{size / seconds:.0f}", f"{1e3 * seconds / size:.3f}", f"{row['deviation']:+.0%}",
        f"{row['peak_mib']:.0f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
