"""Run cases that are named on standard input, one line each, and answer each by a line of JSON.

    python tests/fuzz/worker.py FOLDER [GIGABYTES]

A process of its own, because a case may end it, and with little address space, so that a memory bomb is seen.
"""

import gc
import json
import os
import resource
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # PYTHONSAFEPATH may have kept the first off


def main() -> None:
    """Answer until standard input ends."""
    folder, gigabytes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4
    warnings.simplefilter("error")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's prints must not look like answers
    import inputs
    import known
    from case import open_files, run_case
    from numbert.loaders import files
    from verdict import Failed

    files.CLOCK_TICK = 0  # nobody else writes to the files of a case: they need not have been there for a moment
    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    for name in known.CASES:  # every kernel is compiled, or read from the cache, before a case is timed
        if name.startswith("sound-"):
            run_case("known", name, folder / "case")
    inputs.warm_up()
    gc.collect()
    gc.freeze()  # what lives now stays: it need not be looked through after each case
    open_at_first = open_files()
    for line in sys.stdin:
        kind, _, seed = line.strip().partition(":")
        try:
            outcome, what = run_case(kind, seed, folder / "case")
            if open_files() > open_at_first:
                raise Failed(f"leak: {open_files() - open_at_first} files were left open\n    {what}")
        except Failed as error:
            outcome, what = "FAILED", str(error)
        except Exception as error:  # of the fuzzer itself: never to be taken for a result
            outcome, what = "BROKEN", f"{type(error).__name__}: {error}"
        print(json.dumps({"case": line.strip(), "outcome": outcome, "what": what}), file=answers, flush=True)


if __name__ == "__main__":
    main()
