"""Let everything fail that a scenario asks the system for, one call after the other.

python tests/faults/run.py [--scenario load] [--point "stat 3 EIO once"]
"""

# ruff: noqa: T201, E402 - it prints what it finds
import argparse
import faulthandler
import gc
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
from faults.inject import Point
from faults.scenarios import SCENARIOS, BadEndError, Scenario, expected_of, points_of, try_point

LONGEST = 20  # seconds; whoever waits longer is ended, with a trace of all threads


def run(scenario: Scenario, only: str | None) -> int:
    """Try the points of a scenario; return how many ended badly."""
    begin = time.monotonic()
    calls, points = points_of(scenario)
    expected = expected_of(scenario)
    gc.collect()
    gc.freeze()  # what the modules hold need not be looked through again at each point
    outcomes: dict[str, Counter[str]] = {}
    bad = 0
    for point in points:
        if only is None or str(point) == only:
            ended = _try(scenario, point, expected)
            bad += ended == "BAD"
            outcomes.setdefault(point.seam, Counter())[ended] += 1
    total = sum(counter.total() for counter in outcomes.values())
    print(f"{scenario.name}: {total} points, {bad} bad ends, {time.monotonic() - begin:.0f} s")
    for seam, counter in outcomes.items():
        print(f"    {seam:10} {calls[seam]:4} calls {counter.total():5} points  {dict(counter.most_common())}")
    sys.stdout.flush()
    return bad


def _try(scenario: Scenario, point: Point, expected: object) -> str:
    print(f"\r{scenario.name}: {point}      ", end="", file=sys.stderr, flush=True)
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    try:
        return try_point(scenario, point, expected)
    except BadEndError as error:
        print(f"BAD {scenario.name}: {point}: {error}", flush=True)
        if error.__cause__ is not None:
            frame = traceback.extract_tb(error.__cause__.__traceback__)
            print("     " + " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frame)), flush=True)
        return "BAD"
    finally:
        faulthandler.cancel_dump_traceback_later()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scenario", choices=[kind.name for kind in SCENARIOS], action="append")
    parser.add_argument("--point", help="only this one, as it is printed")
    arguments = parser.parse_args()
    bad = 0
    for number, kind in enumerate(SCENARIOS):
        if not arguments.scenario or kind.name in arguments.scenario:
            with tempfile.TemporaryDirectory() as folder:
                bad += run(kind(Path(folder, str(number))), arguments.point)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
