"""Let calls fail in new processes that import numbert, load a model and score, with an empty or a filled kernel cache.

    python tests/faults/process.py --points 40 --seed 1

The import of numbert and its real kernels, which run.py has behind it, are what is met here. Each process is followed
by one on the same kernel cache without a fault: it must give the right score.
"""

# ruff: noqa: T201, E402 - it prints what it finds
import argparse
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
from faults.inject import ERRORS_OF, Point, count, fault

LONGEST = 120  # seconds, of which compiling on a busy machine takes some
PAIR = ("How many people?", "Seven people live here.")


def score() -> str:
    from numbert import CrossEncoder

    return CrossEncoder(num_threads=2).predict(PAIR).tobytes().hex()


def be_child(what: str) -> None:
    """Score while something fails, or count the calls; print the score, or the error's class."""
    # How the libraries themselves are imported and begin is not what is tried.
    importlib.import_module("tokenizers")
    importlib.import_module("numba").njit(lambda x: x)(1)

    if what == "count":
        with count() as calls:
            score()
        print(json.dumps(calls))
        return
    if what == "nothing":
        print(score())
        return
    seam, number, error, how_long = what.split()
    try:
        with fault(Point(seam, int(number), error, how_long == "lasting")):
            found = score()
    except BaseException as problem:
        from numbert.loaders.errors import NumbertError

        if not isinstance(problem, NumbertError | MemoryError):
            raise
        found = type(problem).__name__
    print(found)


def start(what: str, cache: Path) -> str:
    """Return what a process prints, or how it ended."""
    result = subprocess.run(
        [sys.executable, __file__, "--child", what], capture_output=True, text=True, timeout=LONGEST, check=False,
        env={**os.environ, "NUMBERT_CACHE_DIR": str(cache)},
    )  # fmt: skip
    return result.stdout.strip() if result.returncode == 0 else f"BAD {result.returncode}: {result.stderr[-1500:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=40, help="with each of the two caches")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        be_child(arguments.child)
        return
    print(f"seed {arguments.seed}")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        filled = Path(folder, "filled")
        for kind in ("empty", "filled"):
            calls = json.loads(start("count", filled))
            expected = start("nothing", filled)
            points = [
                Point(seam, number, error, lasting)
                for seam, most in calls.items()
                for number in range(1, most + 1)
                for error in ERRORS_OF[seam]
                for lasting in (False, True)
            ]
            chosen = random.Random(arguments.seed).sample(points, min(arguments.points, len(points)))
            ends = Counter[str]()
            for point in chosen:
                cache = Path(folder, "cache")
                if kind == "filled":
                    shutil.copytree(filled, cache)
                found = start(str(point), cache)
                again = start("nothing", cache)
                right = found == expected or (found.endswith("Error") and found.isidentifier())
                end = "BAD" if not right or again != expected else "right" if found == expected else found
                if end == "BAD":
                    bad += 1
                    print(f"BAD {kind} cache: {point}: {found}; afterwards {again}, expected {expected}", flush=True)
                ends[end] += 1
                shutil.rmtree(cache, ignore_errors=True)
            print(
                f"{kind} cache: {dict(calls)} calls, {ends.total()} of {len(points)} points: {dict(ends)}", flush=True
            )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
