"""Time many callers at once: numbert against ONNX Runtime, sentence-transformers, and an earlier commit of itself.

Each engine has a process of its own and computes while the others rest; the engines take turns within each cell, and
medians over rounds count. Callers are threads that send a request, wait for its scores, and send the next ("closed
loop"). A cell ends when its requests are done; after --seconds no more are taken, but what was begun is finished and
counts. Before anything is timed, logits must agree with numbert's; in each cell numbert's must be those of one bulk
call, bit for bit. Markdown on stdout, progress on stderr.

    python benchmarks/concurrency.py --model MODEL --json benchmarks/results/concurrency.json
    python benchmarks/concurrency.py --model MODEL --memory 100000
"""

import argparse
import contextlib
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import machine_lines, make_pairs, model_folder, positive, print_header, print_table, progress
from concurrency_engine import TOLERANCE, Engine, Turn, rate_of, run_together, take_turn
from numbert.engine.cores import usable_cores

PACKAGES = (
    "numbert", "numpy", "numba", "llvmlite", "tokenizers", "sentence-transformers", "transformers", "torch", "onnx",
    "onnxscript", "onnxruntime",
)  # fmt: skip
PEERS = ("onnxruntime", "sentence-transformers")
CALLERS = (1, 2, 4, 8, 16, 32, 64)
KINDS = ("1", "10", "mix")  # pairs of a request
PAIRS = 320  # distinct ones; requests go through them again and again, so that all cells and bulk have the same
BULK = PAIRS  # in one call: beginning and end of it weigh little, and none occurs twice, which would be computed once
WORDS = 55  # of a passage: about 67 tokens a pair
FEWEST_REQUESTS = {"1": 160, "10": 16, "mix": 16}  # of a cell; with more callers, one for each
LARGEST_OF_MIX = 100
SHARED_CALLERS = {"10 pairs, 8 callers a model": (8, [10] * 16), "bulk, 1 caller a model": (1, [BULK])}
MEMORY_CALLERS = 8
Cell = tuple[str, int]  # kind of requests, callers


def main() -> None:
    """Read the arguments, run, print."""
    arguments = _parse()
    header = list(machine_lines(PACKAGES))  # before the engines load the machine
    folder = model_folder(arguments.model)
    task = {"model": str(folder), "threads": arguments.threads, "pairs": make_pairs(PAIRS, arguments.words)}
    facts = [*header, *describe(arguments)]
    print_header(f"Many callers with {folder.name}", facts)
    with contextlib.ExitStack() as stack:
        result = watch_memory(arguments, task, stack) if arguments.memory else compare(arguments, task, stack)
    result = {"benchmark": "concurrency", "model": folder.name, "threads": arguments.threads, "facts": facts} | result
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub id of a BERT cross-encoder (default: the one within numbert)")
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--callers", type=positive, nargs="+", default=CALLERS)
    parser.add_argument("--requests", nargs="+", choices=KINDS, default=KINDS, help="pairs of a request; mix: 1 to 100")
    parser.add_argument(
        "--engines", nargs="*", choices=PEERS, default=list(PEERS), help="besides numbert; default: all"
    )
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="checkout of an earlier commit, timed as well")
    parser.add_argument(
        "--seconds", type=positive, default=6, help="no more requests are taken after these (default 6)"
    )
    parser.add_argument("--words", type=positive, default=WORDS, help="mean of a passage (default 55: ~67 tokens)")
    parser.add_argument("--memory", type=positive, metavar="N", help="only watch numbert's memory over N requests")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results and the facts of the machine")
    return parser.parse_args()


def describe(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what the header says besides processor and versions."""
    if arguments.memory:
        yield f"threads: {arguments.threads}, callers: {MEMORY_CALLERS}, a pair each, cut to a random length"
    else:
        yield f"threads: {arguments.threads}; peers also with 1 for each caller, and the faster of the two counts"
        fewest = ", ".join(f"{count} of {kind}" for kind, count in FEWEST_REQUESTS.items())
        yield f"requests of a cell: {fewest}, or one for each caller; no more are taken after {arguments.seconds} s"
        yield f"rounds: {arguments.rounds}; medians, also of the p50 and p99 of each round"


def watch_memory(arguments: argparse.Namespace, task: Mapping[str, Any], stack: contextlib.ExitStack) -> dict[str, Any]:
    """Print and return how much memory numbert has in use while it answers many requests."""
    engine = _start("numbert", task, stack)
    engine.tell({"setting": engine.settings[0], "memory": arguments.memory, "callers": MEMORY_CALLERS})
    points = engine.hear()["points"]
    print_table(("requests", "MiB in use"), [(str(count), f"{size:.1f}") for count, size in points])
    print(f"- from the first tenth to the end: {points[-1][1] - points[1][1]:+.1f} MiB\n", flush=True)
    return {"memory": [{"requests": count, "mib": size} for count, size in points]}


def _start(name: str, task: Mapping[str, Any], stack: contextlib.ExitStack, path: str | None = None) -> Engine:
    engine = Engine(name, task, path)
    stack.callback(engine.close)
    return engine


def compare(arguments: argparse.Namespace, task: Mapping[str, Any], stack: contextlib.ExitStack) -> dict[str, Any]:
    """Time all cells, print them, and return them."""
    engines = [_start("numbert", task, stack)]
    if arguments.before:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (path / "numbert").symlink_to(arguments.before.resolve(), target_is_directory=True)
        engines.append(_start("before", task, stack, str(path)))
    engines += [_start(name, task, stack) for name in arguments.engines]
    differences = check_agreement(engines)
    cells = [(kind, callers) for kind in arguments.requests for callers in arguments.callers]
    bulk, turns = time_cells(engines, cells, arguments.rounds, arguments.seconds)
    rows = [
        row_of(cell, name, own, turns[cell]["numbert"], bulk[cell[0]])
        for cell in cells
        for name, own in turns[cell].items()
    ]
    for kind in arguments.requests:
        print_kind(kind, [row for row in rows if row["requests"] == kind], statistics.median(bulk[kind]))
    shared = time_shared(engines[0], _start("numbert", task, stack), arguments.rounds)
    print_table(
        ("two models at once", "sum of rates / rate of one alone"),
        [(name, f"{own:.2f}") for name, own in shared.items()],
    )
    rates = {kind: statistics.median(own) for kind, own in bulk.items()}
    return {"differences": differences, "bulk": rates, "rows": rows, "shared": shared}


def check_agreement(engines: Sequence[Engine]) -> dict[str, float]:
    """Return the largest difference of each engine's logits to those of numbert, the first."""
    differences = {}
    for engine in engines[1:]:
        both = zip(engine.logits, engines[0].logits, strict=True)
        difference = max(abs(a - b) for own, exact in both for a, b in zip(own, exact, strict=True))
        if not difference <= TOLERANCE:
            sys.exit(
                f"{engine.name}: logits differ from numbert's by {difference:.2g}, expected at most {TOLERANCE:.2g};"
                " run `numbert verify` to see which of them is wrong"
            )
        differences[engine.name] = difference
    return differences


def time_cells(
    engines: Sequence[Engine], cells: Sequence[Cell], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], dict[Cell, dict[str, list[Turn]]]]:
    """Return numbert's rates of bulk calls, by kind of requests, and the turns of each engine, by cell and name.

    In the first round each engine has a turn with each of its settings; the fastest stays.
    """
    bulk: dict[str, list[float]] = {kind: [] for kind, _ in cells}
    turns: dict[Cell, dict[str, list[Turn]]] = {cell: {engine.name: [] for engine in engines} for cell in cells}
    for number in range(rounds):
        for kind, own in bulk.items():
            progress(f"round {number + 1} of {rounds}, requests of {kind}")
            own.append(take_turn(engines[0], engines[0].settings[0], 1, [BULK], seconds).rate)
            for cell in [cell for cell in cells if cell[0] == kind]:
                sizes = request_sizes(*cell)
                for engine in engines:
                    past = turns[cell][engine.name]
                    settings = [past[0].setting] if past else engine.settings[: 1 if engine.is_numbert else None]
                    trials = [take_turn(engine, setting, cell[1], sizes, seconds) for setting in settings]
                    past.append(max(trials, key=lambda turn: turn.rate))
    return bulk, turns


def request_sizes(kind: str, callers: int) -> list[int]:
    """Return the number of pairs of each request of a cell.

    Those of a mix are spread evenly on a logarithmic scale; large ones come first, so that at the end no caller is left
    alone with one while cores are idle, which is nothing that a server has.
    """
    count = max(FEWEST_REQUESTS[kind], callers)
    if kind != "mix":
        return [int(kind)] * count
    return [round(LARGEST_OF_MIX ** (1 - i / (count - 1))) for i in range(count)]


def time_shared(engine: Engine, other: Engine, rounds: int) -> dict[str, float]:
    """Return the sum of the rates of two models at once / the rate of one alone: in one process, and in two."""
    shares: dict[str, list[float]] = {}
    alone_setting, two_setting = engine.settings
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}, two models")
        for name, (callers, sizes) in SHARED_CALLERS.items():
            order = {"setting": alone_setting, "callers": callers, "sizes": sizes, "seconds": math.inf}
            twice = order | {"setting": two_setting, "callers": 2 * callers, "sizes": sizes * 2}
            alone = rate_of(*run_together([engine], order))
            shares.setdefault(f"one process; {name}", []).append(rate_of(*run_together([engine], twice)) / alone)
            shares.setdefault(f"two processes; {name}", []).append(
                rate_of(*run_together([engine, other], order)) / alone
            )
    return {name: statistics.median(own) for name, own in shares.items()}


def row_of(cell: Cell, name: str, turns: Sequence[Turn], ours: Sequence[Turn], bulk: Sequence[float]) -> dict[str, Any]:
    """Return what is known of an engine in a cell; ratios are medians of the ratios within a round."""
    return {
        "requests": cell[0], "callers": cell[1], "engine": name, "setting": turns[0].setting,
        "pairs_per_second": statistics.median(turn.rate for turn in turns),
        "share_of_bulk": statistics.median(turn.rate / own for turn, own in zip(turns, bulk, strict=True)),
        "processor_ms": 1e3 * statistics.median(turn.processor for turn in turns),
        "p50_ms": 1e3 * statistics.median(turn.p50 for turn in turns),
        "p99_ms": 1e3 * statistics.median(turn.p99 for turn in turns),
        "requests_of_a_round": statistics.median_low(turn.requests for turn in turns),
        "ratio": statistics.median(our.rate / turn.rate for our, turn in zip(ours, turns, strict=True)),
    }  # fmt: skip


def print_kind(kind: str, rows: Sequence[dict[str, Any]], bulk: float) -> None:
    """Print the cells with one kind of requests, and how numbert compares with the others."""
    print(f"### Requests of {kind} pairs: bulk `predict` of numbert {bulk:.0f} pairs/s\n")
    columns = ("engine", "setting", "callers", "pairs/s", "share of bulk", "processor ms a pair", "p50 ms", "p99 ms")
    print_table((*columns, "requests", "numbert / engine"), map(_cells, rows))
    print_table(
        ("callers", "share of bulk", "rate / fastest peer's", "processor time / a lone caller's", "rate / before",
         "p99 before / now"),
        _comparison(rows),
    )  # fmt: skip


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["engine"], row["setting"], str(row["callers"]), f"{row['pairs_per_second']:.1f}",
        f"{row['share_of_bulk']:.2f}", f"{row['processor_ms']:.2f}", f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}",
        str(row["requests_of_a_round"]), f"{row['ratio']:.2f}",
    )  # fmt: skip


def _comparison(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    ours = {row["callers"]: row for row in rows if row["engine"] == "numbert"}
    lone = ours[1]["processor_ms"] if 1 in ours else math.nan
    for callers, own in ours.items():
        others = {row["engine"]: row for row in rows if row["callers"] == callers and row is not own}
        before = others.pop("before", None)
        yield (
            str(callers),
            f"{own['share_of_bulk']:.2f}",
            f"{min(row['ratio'] for row in others.values()):.2f}" if others else "",
            f"{own['processor_ms'] / lone:.2f}",
            f"{before['ratio']:.2f}" if before else "",
            f"{before['p99_ms'] / own['p99_ms']:.1f}" if before else "",
        )


if __name__ == "__main__":
    main()
