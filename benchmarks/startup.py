"""Time what a program pays before its first score, and the memory that it needs: each in fresh processes.

The JIT cache is cold (an empty directory) in one run of numbert, warm in the next. Cold and warm, numbert and peer
take turns. Files are in the system's cache in all runs: one run of each is thrown away first. Markdown on stdout,
progress on stderr.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import machine_lines, make_pairs, model_folder, positive, print_header, print_table, progress
from numbert.engine.cores import usable_cores

CHILD = Path(__file__).with_name("startup_child.py")
PACKAGES = ("numbert", "numpy", "numba", "llvmlite", "tokenizers", "sentence-transformers", "transformers", "torch")
PEER = "sentence_transformers"
WORDS = 65  # of a passage: about 77 tokens a pair
Run = dict[str, Any]


def main() -> None:
    """Run the processes in turns and print their medians."""
    arguments = _parse()
    folder = model_folder(arguments.model)
    facts = [f"model: {folder.name}", f"threads: {arguments.threads}", f"processes of each kind: {arguments.repeats}"]
    print_header("Start and memory", [*machine_lines(PACKAGES), *facts])
    task = {"model": str(folder), "threads": arguments.threads, "pairs": make_pairs(100, WORDS)}
    measured: dict[str, list[Run]] = {}
    for number in range(arguments.repeats + 1):
        progress(f"round {number} of {arguments.repeats}")
        runs = one_round(task, with_peer=arguments.peers and _peer_is_installed())
        if number:  # the first only brings files into memory
            for name, run in runs.items():
                measured.setdefault(name, []).append(run)
    print_import_table(measured)
    print_score_table(measured)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub id of a BERT cross-encoder (default: the one within numbert)")
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--peers", action="store_true", help="compare with sentence-transformers")
    return parser.parse_args()


def _peer_is_installed() -> bool:
    found = importlib.util.find_spec(PEER) is not None
    if not found:
        progress(f"left out: {PEER} is not installed")
    return found


def one_round(task: Run, with_peer: bool) -> dict[str, Run]:
    """Run one process of each kind; in the names, before the comma stands the library."""
    only_import = task | {"pairs": []}
    with tempfile.TemporaryDirectory() as cache:
        runs = {
            "numpy, import": run_child("numpy", only_import, cache),
            "numbert, import": run_child("numbert", only_import, cache),
            "numbert, cold JIT cache": run_child("numbert", task, cache),
            "numbert, warm JIT cache": run_child("numbert", task, cache),
        }
        if with_peer:
            runs[f"{PEER}, import"] = run_child(PEER, only_import, cache)
            runs[f"{PEER}, score"] = run_child(PEER, task, cache)
    return runs


def run_child(library: str, task: Run, cache: str) -> Run:
    """Start a fresh process and return what it measured; -P keeps our folders from its path of imports."""
    environment = os.environ | {"NUMBERT_CACHE_DIR": cache}
    command = [sys.executable, "-P", str(CHILD), library]
    done = subprocess.run(command, input=json.dumps(task), env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{library}: the process ended with code {done.returncode}")
    result: Run = json.loads(done.stdout.splitlines()[-1])
    return result


def print_import_table(measured: dict[str, list[Run]]) -> None:
    """Print what the import statements cost, beyond that of NumPy."""
    rows = [
        (
            f"import {library}",
            _milliseconds(runs, "import") if library != "numpy" else "",
            _mebibytes(runs),
            ", ".join(runs[0]["imported"]) or "none",
        )
        for library, runs in _of_kind(measured, imports=True)
    ]
    print_table(("statement", "ms beyond `import numpy`", "peak MiB", "heavy packages imported"), rows)


def print_score_table(measured: dict[str, list[Run]]) -> None:
    """Print what the first score costs, from the import of NumPy on, and the peak memory after 100 pairs."""
    parts = ("import", "load", "first", "total")
    rows = [
        (name, *(_milliseconds(runs, part) for part in parts), _mebibytes(runs))
        for name, runs in _of_kind(measured, imports=False)
    ]
    columns = ("process", "import, ms", "load, ms", "first score, ms", "all with NumPy, ms", "peak MiB, 100 pairs")
    print_table(columns, rows)


def _of_kind(measured: dict[str, list[Run]], imports: bool) -> Iterator[tuple[str, list[Run]]]:
    for name, runs in measured.items():
        library, _, what = name.partition(", ")
        if (what == "import") == imports:
            yield (library if imports else name), runs


def _milliseconds(runs: list[Run], part: str) -> str:
    return f"{1e3 * statistics.median(run[part] for run in runs):.1f}"


def _mebibytes(runs: list[Run]) -> str:
    return f"{statistics.median(run['memory'] for run in runs) / 2**20:.0f}"


if __name__ == "__main__":
    main()
