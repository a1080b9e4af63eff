"""One engine of concurrency.py, in a process of its own: it loads, then does what stdin says, and answers on stdout.

Started as ``python concurrency_child.py ENGINE``. Both ways, each line is a JSON object; the first that comes in says
what to load. Of numbert only the public interface is used, so that an earlier commit can be timed as well.
"""

import importlib
import itertools
import json
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Pairs = list[tuple[str, str]]
Logits = Any  # ndarray (N, labels)
Score = Callable[[Pairs], Logits]
BatchScore = Callable[[Pairs, int], Logits]  # with a batch size
# Turns of each graph and batch size, of which the best counts, by pairs of a request. For a request of another size
# what was best for the nearest below counts.
TRIALS = {1: 20, 10: 5, 30: 2}
BATCH_SIZES = (2, 4, 8, 16)  # small ones: they pad least
MEMORY_POINTS = 10


class Setting(NamedTuple):
    """A way in which an engine is set up."""

    name: str
    scores: Sequence[Score]  # a function for each model; callers take them in turns
    prepare: Callable[[], None] = lambda: None


def main() -> None:
    """Load the engine, then answer until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not come between the answers
    task = json.loads(sys.stdin.readline())
    pairs = [(first, second) for first, second in task["pairs"]]
    settings = {setting.name: setting for setting in LOADERS[sys.argv[1]](Path(task["model"]), task["threads"], pairs)}
    expected = as_rows(next(iter(settings.values())).scores[0](pairs))
    answer(answers, {"settings": list(settings), "logits": expected.tolist()})
    for line in sys.stdin:
        order = json.loads(line)
        setting = settings[order["setting"]]
        if "memory" in order:
            answer(answers, {"points": watch_memory(setting.scores[0], pairs, order["memory"], order["callers"])})
        else:
            answer(answers, run_cell(setting, pairs, expected, order))


def answer(stream: Any, content: Mapping[str, Any]) -> None:
    """Write one line."""
    print(json.dumps(content), file=stream, flush=True)


def run_cell(setting: Setting, pairs: Pairs, expected: Logits, order: Mapping[str, Any]) -> dict[str, Any]:
    """Let callers work through the requests, each taking the next when it has the scores of the last.

    After so many seconds no more are taken, except by callers that have had none.
    """
    requests = cut_requests(order["sizes"], len(pairs))
    texts = [[pairs[place] for place in places] for places in requests]
    setting.prepare()
    numbers, begin = itertools.count(), threading.Barrier(order["callers"])
    done: list[tuple[int, float, float, Logits]] = []  # request, begin, end, what came out

    def call(score: Score) -> None:
        begin.wait()
        enough = time.perf_counter() + order["seconds"]
        for turn in itertools.count():
            if turn and time.perf_counter() > enough:
                return
            number = next(numbers)
            if number >= len(texts):
                return
            start = time.perf_counter()
            logits = score(texts[number])
            done.append((number, start, time.perf_counter(), logits))

    processor = time.process_time()
    with ThreadPoolExecutor(order["callers"]) as pool:
        calls = [pool.submit(call, setting.scores[i % len(setting.scores)]) for i in range(order["callers"])]
        for future in calls:
            future.result()
    processor = time.process_time() - processor
    return {
        "begin": min(start for _, start, _, _ in done), "end": max(end for _, _, end, _ in done),
        "pairs": sum(len(requests[number]) for number, *_ in done), "processor": processor,
        "latencies": [end - start for _, start, end, _ in done],
        "difference": max(_difference(logits, expected[requests[number]]) for number, _, _, logits in done),
    }  # fmt: skip


def cut_requests(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Give each request the next places of the pairs; after the last pair comes the first."""
    ends = list(itertools.accumulate(sizes))
    return [[place % count for place in range(end - size, end)] for size, end in zip(sizes, ends, strict=True)]


def _difference(logits: Logits, expected: Logits) -> float:
    return float(np.abs(as_rows(logits) - expected).max())


def as_rows(logits: Logits) -> Logits:
    """Return an array (N, labels), also for models with one label."""
    return logits.reshape(len(logits), -1)


def watch_memory(score: Score, pairs: Pairs, count: int, callers: int) -> list[tuple[int, float]]:
    """Score passages that are cut at random; return (requests so far, MiB) at several points."""
    numbers, step = itertools.count(), math.ceil(count / MEMORY_POINTS)
    points: list[tuple[int, float]] = []

    def call(source: random.Random) -> None:
        while (number := next(numbers)) < count:
            if number % step == 0:
                points.append((number, resident_mebibytes()))
            question, passage = source.choice(pairs)
            words = passage.split()
            score([(question, " ".join(words[: source.randint(1, len(words))]))])

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, map(random.Random, range(callers))))
    return [*points, (count, resident_mebibytes())]


def resident_mebibytes() -> float:
    """Return the memory that this process has in use; NaN where the system does not tell (elsewhere than Linux)."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return float("nan")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def load_numbert(folder: Path, threads: int, pairs: Pairs) -> Iterator[Setting]:
    """Load numbert: one model, and two for the cell that has two."""
    library = importlib.import_module("numbert")
    print(f"numbert of {Path(library.__file__).resolve().parent}", file=sys.stderr, flush=True)
    first, second = (
        library.CrossEncoder(folder, num_threads=threads, activation_fn="identity", dtype="float32").predict
        for _ in range(2)
    )
    for size in TRIALS:  # compiles
        second(pairs[:size])
    yield Setting(_threads(threads), [first])
    yield Setting("two models", [first, second])


def load_onnx_runtime(folder: Path, threads: int, pairs: Pairs) -> Iterator[Setting]:
    """Load ONNX Runtime with one thread for each caller, and with all threads for each; graph and batch by trial."""
    graphs, common = importlib.import_module("graphs"), importlib.import_module("common")
    common.forget_own_folder()
    library = importlib.import_module("onnxruntime")
    models = {make.__name__: make(folder) for make in (graphs.float_graph, graphs.dynamo_graph, graphs.fused_graph)}
    config = json.loads(Path(folder, "config.json").read_text("utf-8"))
    tokenizer = graphs.load_tokenizer(folder, config["max_position_embeddings"])

    def scorer(model: bytes, session_threads: int) -> BatchScore:
        options = library.SessionOptions()
        options.intra_op_num_threads = session_threads
        session = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        run = graphs.GraphScorer(tokenizer, lambda feeds: session.run(None, feeds)[0], None, 1)
        return lambda pairs, batch_size: run(pairs, common.Setting(batch_size, split=False))

    for count in sorted({1, threads}):
        own = {name: scorer(model, count) for name, model in models.items()}
        yield Setting(_threads(count), [fastest_by_size(own, pairs, _threads(count))])


def load_sentence_transformers(folder: Path, threads: int, pairs: Pairs) -> Iterator[Setting]:
    """Load sentence-transformers, which computes with torch; the batch size by trial."""
    importlib.import_module("common").forget_own_folder()
    torch, library = importlib.import_module("torch"), importlib.import_module("sentence_transformers")
    model = library.CrossEncoder(
        str(folder), device="cpu", activation_fn=torch.nn.Identity(), model_kwargs={"dtype": "float32"}
    )

    def score(pairs: Pairs, batch_size: int) -> Logits:
        return model.predict(pairs, batch_size=batch_size, show_progress_bar=False)

    def prepare(count: int) -> Callable[[], None]:
        return lambda: torch.set_num_threads(count)

    for count in sorted({1, threads}):
        prepare(count)()
        fastest = fastest_by_size({"sentence-transformers": score}, pairs, _threads(count))
        yield Setting(_threads(count), [fastest], prepare(count))


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def fastest_by_size(variants: Mapping[str, BatchScore], pairs: Pairs, title: str) -> Score:
    """Return a function that scores each request with what a trial found fastest for a request of about its size."""
    best = {size: _fastest(variants, pairs[:size]) for size in TRIALS}
    chosen = ", ".join(f"{size} pairs: {name}, batch size {batch}" for size, (name, batch) in best.items())
    print(f"{title}: {chosen}", file=sys.stderr, flush=True)

    def score(pairs: Pairs) -> Logits:
        name, batch_size = best[max(size for size in TRIALS if size <= len(pairs))]
        return variants[name](pairs, batch_size)

    return score


def _fastest(variants: Mapping[str, BatchScore], pairs: Pairs) -> tuple[str, int]:
    sizes = sorted({min(size, len(pairs)) for size in BATCH_SIZES})
    seconds = dict.fromkeys(itertools.product(variants, sizes), math.inf)
    for _ in range(TRIALS[len(pairs)]):
        for name, batch_size in seconds:
            start = time.perf_counter()
            variants[name](pairs, batch_size)
            seconds[name, batch_size] = min(seconds[name, batch_size], time.perf_counter() - start)
    return min(seconds, key=seconds.__getitem__)


LOADERS = {
    "numbert": load_numbert,
    "before": load_numbert,
    "onnxruntime": load_onnx_runtime,
    "sentence-transformers": load_sentence_transformers,
}

if __name__ == "__main__":
    main()
