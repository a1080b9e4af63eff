"""Time what a program pays before its first score, and the memory that it needs: each in fresh processes.

All kinds take turns, and what they took is counted from the start of the process, beyond what one takes in the same
round that imports NumPy and tokenizers and ends: every engine here needs those. numbert is measured frozen, with a warm
JIT cache, and with a cold one (an empty directory). Files are in the system's memory in all runs: one round is thrown
away first. Markdown on stdout, progress on stderr.

    python benchmarks/startup.py --model MODEL --peers
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from common import machine_lines, make_pairs, model_folder, positive, print_header, print_table, progress
from numbert.engine.cores import usable_cores

HERE = Path(__file__).resolve().parent
PACKAGES = ("numbert", "numpy", "numba", "llvmlite", "tokenizers", "onnxruntime", "sentence-transformers", "torch")
BASELINE = "NumPy and tokenizers"
GRAPH = """
import pathlib, sys, graphs
pathlib.Path(sys.argv[2]).write_bytes(graphs.float_graph(pathlib.Path(sys.argv[1])))
"""
WORDS = 65  # of a passage: about 77 tokens a pair
Run = dict[str, Any]


class Kind(NamedTuple):
    """A kind of process."""

    name: str
    library: str  # that is imported
    model: Path  # folder or file
    cache: Path | None = None  # of numbert's kernels


def main() -> None:
    """Run the processes in turns and print their medians."""
    arguments = _parse()
    folder = model_folder(arguments.model)
    facts = [f"model: {folder.name}", f"threads: {arguments.threads}", f"processes of each kind: {arguments.repeats}"]
    print_header("Start and memory", [*machine_lines(PACKAGES), *facts])
    task = {"threads": arguments.threads, "folder": str(folder), "pairs": make_pairs(100, WORDS)}
    measured: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        kinds = make_kinds(folder, Path(scratch), arguments.peers)
        for number in range(arguments.repeats + 1):
            progress(f"round {number} of {arguments.repeats}")
            with tempfile.TemporaryDirectory() as cold:
                runs = {kind.name: run_child(kind, task, kind.cache or Path(cold)) for kind in kinds}
            if number:  # the first brings files into memory, and fills the warm cache
                for name, run in runs.items():
                    run["beyond"] = run["whole"] - runs[BASELINE]["whole"]
                    measured.setdefault(name, []).append(run)
    print_results(measured)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub id of a BERT cross-encoder (default: the one within numbert)")
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--peers", action="store_true", help="compare with ONNX Runtime and sentence-transformers")
    return parser.parse_args()


def make_kinds(folder: Path, scratch: Path, with_peers: bool) -> list[Kind]:
    """Freeze the model, write its graph, and list the kinds of processes."""
    frozen, graph = scratch / "frozen", scratch / "model.onnx"
    _run([sys.executable, "-P", "-m", "numbert", "freeze", folder, frozen])
    kinds = [
        Kind(BASELINE, "tokenizers", folder),
        Kind("numbert, frozen", "numbert", frozen),
        Kind("numbert, warm JIT cache", "numbert", folder, scratch / "cache"),
        Kind("numbert, cold JIT cache", "numbert", folder),
    ]
    if with_peers and _is_installed("onnxruntime"):
        _run([sys.executable, "-c", GRAPH, folder, graph])
        kinds.append(Kind("ONNX Runtime", "onnxruntime", graph))
    if with_peers and _is_installed("sentence_transformers"):
        kinds.append(Kind("sentence-transformers", "sentence_transformers", folder))
    return kinds


def _run(command: list[Any]) -> None:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[:4]} ended with code {done.returncode}: {done.stderr[-1000:]}")


def _is_installed(library: str) -> bool:
    found = importlib.util.find_spec(library) is not None
    if not found:
        progress(f"left out: {library} is not installed")
    return found


def run_child(kind: Kind, task: Run, cache: Path) -> Run:
    """Start a fresh process and return what it measured; -P keeps our folders from its path of imports."""
    environment = os.environ | {"NUMBERT_CACHE_DIR": str(cache)}
    command = [sys.executable, "-P", str(HERE / "startup_child.py"), kind.library]
    text = json.dumps(task | {"model": str(kind.model)})
    start = time.perf_counter()  # a clock of the whole machine, which the process reads too
    done = subprocess.run(command, input=text, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{kind.name}: the process ended with code {done.returncode}")
    result: Run = json.loads(done.stdout.splitlines()[-1])
    return result | {"whole": result["end"] - start}


def print_results(measured: dict[str, list[Run]]) -> None:
    """Print what the first score costs, and the peak memory with it and after 100 pairs."""
    alone = measured.pop(BASELINE)
    rows = [
        (
            name,
            *(_milliseconds(runs, part) for part in ("beyond", "import", "load", "first")),
            *(_mebibytes(runs, part) for part in ("peak", "peak_of_all")),
            ", ".join(runs[0]["imported"]) or "none",
        )
        for name, runs in measured.items()
    ]
    print(f"{BASELINE} alone: {_milliseconds(alone, 'whole')} ms, {_mebibytes(alone, 'peak')} MiB.\n")
    columns = (
        "process", "start to first score, beyond those, ms", "import, ms", "load, ms", "first score, ms",
        "peak MiB, first score", "peak MiB, 100 pairs", "heavy packages imported",
    )  # fmt: skip
    print_table(columns, rows)


def _milliseconds(runs: list[Run], part: str) -> str:
    return f"{1e3 * statistics.median(run[part] for run in runs):.1f}"


def _mebibytes(runs: list[Run], part: str) -> str:
    return f"{statistics.median(run[part] for run in runs) / 2**20:.0f}"


if __name__ == "__main__":
    main()
