"""Attack numbert with hostile files and inputs, in worker processes; print counts, and every promise that was broken.

    python tests/fuzz/run.py --seconds 120
    python tests/fuzz/run.py --cases 100000 --jobs 2 --seed 7
    python tests/fuzz/run.py --case config:7000012        one case, in a worker of its own
    python tests/fuzz/run.py --known                      only the cases that were wrong once

The exit status is 1 when any case failed.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # PYTHONSAFEPATH may have kept the first off

import known  # noqa: E402
from mutate_folder import KINDS  # noqa: E402

HANG = 20.0  # seconds
CASES_OF_WORKER = 2000  # then a new one takes over, so that a slow leak is no failure of the case that meets the limit
SHOWN = 3  # cases of each failure
SHARES = dict.fromkeys(KINDS, 1) | {"tokenizer": 3, "config": 2, "weights": 2, "inputs": 1.2}


class Result(NamedTuple):
    """What became of a case."""

    case: str
    outcome: str
    what: str
    seconds: float


class Worker:
    """A process that runs cases; it is started again when it has died."""

    def __init__(self, folder: Path, log: IO[bytes]) -> None:
        self.log = log
        environment = {
            **os.environ,
            "TOKENIZERS_PARALLELISM": "false",
            "OPENBLAS_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        folder.mkdir(exist_ok=True)
        command = [sys.executable, str(HERE / "worker.py"), str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=folder
        )

    def run(self, case: str, limit: float) -> Result:
        """Run a case; a signal and a hang are results too."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        begin = time.monotonic()
        try:
            self.process.stdin.write(f"{case}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return Result(case, "BROKEN", "the worker ended before the case began", 0.0)
        ready, _, _ = select.select([self.process.stdout], [], [], limit)
        line = self.process.stdout.readline() if ready else b""
        seconds = time.monotonic() - begin
        if line:
            answer = json.loads(line)
            return Result(answer["case"], answer["outcome"], answer["what"], seconds)
        if not ready:
            self.stop()
            return Result(case, "FAILED", f"hang: more than {limit:.0f} s", seconds)
        return Result(case, "FAILED", f"signal: the process ended with {self.process.wait()}", seconds)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


class Fuzzer:
    """Hands cases to workers and counts what becomes of them."""

    def __init__(self, cases: Iterator[str], until: float, work: Path, hang: float) -> None:
        self.cases, self.until, self.work, self.hang = cases, until, work, hang
        self.lock, self.warming = threading.Lock(), threading.Lock()
        self.results: list[Result] = []

    def next_case(self) -> str | None:
        """Return the next case, or None when cases or time have run out."""
        with self.lock:
            return next(self.cases, None) if time.monotonic() < self.until else None

    def serve(self, number: int) -> None:
        """Run cases until there are no more."""
        worker, done = None, 0
        with (self.work / f"log{number}").open("wb") as log:
            while (case := self.next_case()) is not None:
                if worker is None or worker.process.poll() is not None or done % CASES_OF_WORKER == 0:
                    if worker is not None:
                        worker.stop()
                    worker = Worker(self.work / str(number), log)
                    self.warm_up(worker)
                result = worker.run(case, self.hang)
                done += 1
                with self.lock:
                    self.results.append(result)
            if worker is not None:
                worker.stop()

    def warm_up(self, worker: Worker) -> None:
        """Wait until a worker is ready; one by one, so that the next finds the kernels that this one compiled."""
        with self.warming:
            result = worker.run("known:sound-narrow", 600)
        if result.outcome != "right":
            log = Path(worker.log.name).read_text(errors="replace")[-2000:]
            raise RuntimeError(f"a worker cannot run the case that nothing is wrong with: {result.what}\n{log}")


def all_cases(seed: int, total: int | None, kinds: list[str] | None) -> Iterator[str]:
    """Name the known cases, then ever more of each kind, in proportion to its share."""
    if kinds is None:
        yield from (f"known:{name}" for name in known.CASES)
    shares = {kind: share for kind, share in SHARES.items() if kinds is None or kind in kinds}
    credit, count = dict.fromkeys(shares, 0.0), dict.fromkeys(shares, 0)
    for _ in range(total) if total is not None else itertools.count():
        for kind, share in shares.items():
            credit[kind] += share
        kind = max(credit, key=lambda kind: credit[kind])
        credit[kind] -= sum(shares.values())
        yield f"{kind}:{seed * 10_000_000 + count[kind]}"
        count[kind] += 1


def report(results: list[Result], seconds: float) -> int:
    """Print counts by kind and outcome, then each kind of failure once; return how many cases failed."""
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    failures: dict[str, list[Result]] = collections.defaultdict(list)
    for result in results:
        table[result.case.partition(":")[0]][result.outcome] += 1
        if result.outcome in ("FAILED", "BROKEN"):
            failures[signature(result)].append(result)
    for kind, outcomes in sorted(table.items()):
        print(f"{kind}: {sum(outcomes.values())}")
        for outcome, count in outcomes.most_common():
            print(f"    {count:7}  {outcome}")
    print(f"{len(results)} cases in {seconds:.0f} s, {len(results) / max(seconds, 1e-9):.0f} a second")
    slowest = max(results, key=lambda result: result.seconds, default=None)
    if slowest:
        print(f"slowest: {slowest.case} {slowest.seconds:.1f} s")
    for name, cases in sorted(failures.items(), key=lambda item: -len(item[1])):
        print(f"\n{len(cases)} x {name}")
        for result in cases[:SHOWN]:
            print(f"    python tests/fuzz/run.py --case {result.case}\n    {result.what}")
    return sum(map(len, failures.values()))


def signature(result: Result) -> str:
    """Name a failure so that the same one is shown once, whatever its numbers are."""
    first = result.what.partition("\n")[0]
    if first.startswith(("hang", "signal")):
        return f"{first} ({result.case.partition(':')[0]})"
    return re.sub(r"\[[^]]*\]|-?[0-9.]+(e[-+]?[0-9]+)?", "N", first)[:160]


def main() -> int:
    """Read the command line, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--cases", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hang", type=float, default=HANG, help="seconds after which a case hangs")
    parser.add_argument("--case", metavar="KIND:SEED", action="append")
    parser.add_argument("--known", action="store_true")
    parser.add_argument("--kinds", nargs="*", choices=SHARES, help="only these")
    given = parser.parse_args()
    cases = iter(given.case) if given.case else all_cases(given.seed, 0 if given.known else given.cases, given.kinds)
    begin = time.monotonic()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="numbert-fuzz-") as work:
        fuzzer = Fuzzer(cases, begin + given.seconds, Path(work), given.hang)
        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(fuzzer.serve, range(given.jobs)))  # a list, so that what one raises is raised here
    return 1 if report(fuzzer.results, time.monotonic() - begin) else 0


if __name__ == "__main__":
    sys.exit(main())
