"""The processes of concurrency.py, seen from the one that started them: an engine each, which is told what to run."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import progress

CHILD = Path(__file__).with_name("concurrency_child.py")
TOLERANCE = 1e-3  # between engines in float32: two orders of sums, seen: 2e-5. What is not the same is not compared
PAUSE = 0.2  # seconds before each cell: the threads of some engines spin for a while after a call


class Turn(NamedTuple):
    """What came out of a cell, of one engine in one round."""

    setting: str
    rate: float  # pairs a second
    processor: float  # seconds for a pair
    p50: float  # seconds
    p99: float
    requests: int


class Engine:
    """An engine in a process of its own.

    Parameters
    ----------
    name : str
        "numbert", "before" (an earlier numbert), or a peer.
    task : dict
        What the process is told first.
    path : str, optional
        Folder in which it finds the package numbert, instead of where this process finds it.
    """

    def __init__(self, name: str, task: Mapping[str, Any], path: str | None = None) -> None:
        progress(f"loading {name}")
        self.name = name
        self.is_numbert = name in ("numbert", "before")
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | ({"PYTHONPATH": path} if path else {}),
        )  # fmt: skip
        self.tell(task)
        ready = self.hear()
        self.logits: list[list[float]] = ready["logits"]
        self.settings: list[str] = ready["settings"]

    def tell(self, order: Mapping[str, Any]) -> None:
        """Send an order."""
        assert self.process.stdin
        print(json.dumps(order), file=self.process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        """Wait for the answer; end when there is none, or when it holds other scores than before."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: the process ended with code {self.process.wait()}, expected an answer; see above")
        reply: dict[str, Any] = json.loads(line)
        allowed = 0.0 if self.is_numbert else TOLERANCE
        if not reply.get("difference", 0.0) <= allowed:
            sys.exit(
                f"{self.name}: scores of callers at once differ from those of one call by {reply['difference']:.2g},"
                f" expected at most {allowed:.2g}"
            )
        return reply

    def close(self) -> None:
        """End the process, by ending what it reads."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def take_turn(engine: Engine, setting: str, callers: int, sizes: Sequence[int], seconds: float) -> Turn:
    """Let an engine run a cell."""
    order = {"setting": setting, "callers": callers, "sizes": sizes, "seconds": seconds}
    (reply,) = run_together([engine], order)
    latencies = sorted(reply["latencies"])
    p50, p99 = (latencies[math.ceil(share * len(latencies)) - 1] for share in (0.5, 0.99))
    return Turn(setting, rate_of(reply), reply["processor"] / reply["pairs"], p50, p99, len(latencies))


def rate_of(*replies: Mapping[str, Any]) -> float:
    """Return all pairs / the time from the first begin to the last end."""
    seconds = max(reply["end"] for reply in replies) - min(reply["begin"] for reply in replies)
    return float(sum(reply["pairs"] for reply in replies) / seconds)


def run_together(engines: Sequence[Engine], order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Let engines run a cell at the same time; return their answers."""
    time.sleep(PAUSE)
    for engine in engines:
        engine.tell(order)
    return [engine.hear() for engine in engines]
