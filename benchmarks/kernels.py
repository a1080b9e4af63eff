"""Check each CPU kernel against the NumPy reference, then time it on one core.

Products are shown as a share of the peak that peak.py measures in the same round; peak and kernels take turns, and the
share is the median over the rounds. Markdown on stdout, progress on stderr.

    python benchmarks/kernels.py
"""

import argparse
import math
import statistics
import sys
import time

from common import machine_lines, positive, print_header, print_table, progress
from kernel_cases import Case, all_cases
from numbert.kernels.cpu.isa import ISA, TILE_ROWS, TILE_WIDTH

TOLERANCE = 2e-5  # to the reference in float64; all results are of size 1 (those of exp between 0 and 1)
SAMPLE_SECONDS = 0.01  # a kernel is called so often that a sample takes about this long


def main() -> None:
    """Check everything, then time everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=positive, default=30)
    rounds = parser.parse_args().rounds
    header = [*machine_lines(("numbert", "numpy", "numba", "llvmlite")), "threads: 1", f"rounds: {rounds}"]
    print_header("Kernels", [*header, f"instruction set: {ISA.name}, tile {TILE_ROWS} x {TILE_WIDTH}"])
    cases = all_cases()
    errors = [check(case) for case in cases]
    rates = time_cases(cases, rounds)
    print_results(cases, errors, rates)


def check(case: Case) -> float:
    """Return the error of a kernel, or stop the program when it is too large."""
    error = case.error()
    if not error <= TOLERANCE:
        sys.exit(f"{case.name}: differs from the reference by {error:.2g}, allowed {TOLERANCE:.2g}")
    return error


def time_cases(cases: list[Case], rounds: int) -> list[list[float]]:
    """Return for each case its units per second in each round."""
    calls = [math.ceil(SAMPLE_SECONDS / _sample(case, 1)) for case in cases]  # all are compiled and warm by now
    rates: list[list[float]] = [[] for _ in cases]
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for case, count, results in zip(cases, calls, rates, strict=True):
            results.append(case.work * count / _sample(case, count))
    return rates


def _sample(case: Case, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        case.run()
    return time.perf_counter() - start


def print_results(cases: list[Case], errors: list[float], rates: list[list[float]]) -> None:
    """Print one table for products and one for what is counted in elements; the peak is the first case."""
    for unit in ("FLOP", "elements"):
        columns = ["kernel", f"median G{unit}/s", f"best G{unit}/s", "max error"]
        rows = []
        for case, error, rate in zip(cases, errors, rates, strict=True):
            if case.unit == unit:
                shares = (own / limit for own, limit in zip(rate, rates[0], strict=True))
                row = [case.name, f"{statistics.median(rate) / 1e9:.3g}", f"{max(rate) / 1e9:.3g}", f"{error:.1g}"]
                rows.append(row + [f"{statistics.median(shares):.0%}"] * (unit == "FLOP"))
        print_table(columns + ["share of peak"] * (unit == "FLOP"), rows)


if __name__ == "__main__":
    main()
