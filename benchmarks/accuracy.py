"""What each precision costs in accuracy: numbert's logits and rankings against those of sentence-transformers, float32.

The pairs are those of a retrieval run with judgements, in the form of the Cranfield files: queries.jsonl {id, text},
docs.jsonl {id, title, text}, bm25_top50.jsonl {query, docs}, qrels.jsonl {query, doc, gain}. Markdown on stdout.

    python benchmarks/accuracy.py FOLDER MODEL [MODEL ...]
"""

import argparse
import importlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import forget_own_folder, machine_lines, model_folder, positive, print_header, print_table, progress
from engines import PRECISIONS
from numbert import CrossEncoder
from numpy.typing import NDArray

PACKAGES = ("numbert", "numpy", "numba", "sentence-transformers", "transformers", "torch")
CUTOFF = 10  # of nDCG


class Run(NamedTuple):
    """What is ranked for one query."""

    query: str
    passages: list[str]
    gains: list[float]  # of each passage
    ideal: float  # DCG of the best order of all judged documents, retrieved or not


def main() -> None:
    """Read the arguments, score, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with the run and its judgements")
    parser.add_argument("models", nargs="+", help="folders or hub ids")
    parser.add_argument("--queries", type=positive, help="only so many, evenly spread (default: all)")
    arguments = parser.parse_args()
    forget_own_folder()
    runs = read_runs(arguments.folder)
    if arguments.queries:
        runs = runs[:: max(len(runs) // arguments.queries, 1)][: arguments.queries]
    pairs = [(run.query, passage) for run in runs for passage in run.passages]
    print_header(
        "Accuracy of each precision",
        [*machine_lines(PACKAGES), f"{len(runs)} queries, {len(pairs)} pairs of {arguments.folder.name}"],
    )
    columns = ("model", "dtype", "max logit diff.", "RMS logit diff.", "Kendall tau", "nDCG@10", "change")
    rows = [row for name in arguments.models for row in compare(name, runs, pairs)]
    print_table(columns, rows)


def compare(name: str, runs: Sequence[Run], pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, ...]]:
    """Score the pairs with sentence-transformers and with numbert in each precision; yield rows of the table."""
    folder = model_folder(name)
    progress(f"{folder.name}: sentence-transformers")
    library, torch = importlib.import_module("sentence_transformers"), importlib.import_module("torch")
    peer = library.CrossEncoder(
        str(folder), device="cpu", activation_fn=torch.nn.Identity(), model_kwargs={"dtype": "float32"}
    )
    exact = peer.predict(list(pairs), batch_size=8, show_progress_bar=False)
    yield folder.name, "sentence-transformers", "0", "0", "1", f"{mean_ndcg(runs, exact):.4f}", ""
    for precision in PRECISIONS:
        progress(f"{folder.name}: {precision}")
        logits = CrossEncoder(folder, activation_fn="identity", dtype=precision).predict(pairs)
        difference = logits.astype(np.float64) - exact
        yield (
            folder.name,
            precision,
            f"{np.abs(difference).max():.2g}",
            f"{np.sqrt(np.square(difference).mean()):.2g}",
            f"{mean_tau(runs, logits, exact):.4f}",
            f"{mean_ndcg(runs, logits):.4f}",
            f"{mean_ndcg(runs, logits) - mean_ndcg(runs, exact):+.4f}",
        )


def read_runs(folder: Path) -> list[Run]:
    """Read the queries with what was retrieved for them."""

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]

    gains: dict[str, dict[str, float]] = defaultdict(dict)
    for judgement in lines("qrels.jsonl"):
        gains[judgement["query"]][judgement["doc"]] = judgement["gain"]
    texts = {doc["id"]: f"{doc['title']}. {doc['text']}" for doc in lines("docs.jsonl")}
    queries = {query["id"]: query["text"] for query in lines("queries.jsonl")}
    return [
        Run(
            queries[run["query"]],
            [texts[doc] for doc in run["docs"]],
            [gains[run["query"]].get(doc, 0.0) for doc in run["docs"]],
            dcg(sorted(gains[run["query"]].values(), reverse=True)),
        )
        for run in lines("bm25_top50.jsonl")
    ]


def split(runs: Sequence[Run], scores: NDArray[Any]) -> list[NDArray[Any]]:
    """Cut the scores of all pairs into those of each run."""
    return np.split(scores, np.cumsum([len(run.passages) for run in runs])[:-1])


def dcg(gains: Sequence[float]) -> float:
    """Discounted cumulative gain of the first CUTOFF: the sum of gain / log2(place + 1)."""
    return float(sum(gain / np.log2(place + 2) for place, gain in enumerate(gains[:CUTOFF])))


def mean_ndcg(runs: Sequence[Run], scores: NDArray[Any]) -> float:
    """Return the mean over runs of the DCG of the ranking as a share of the best possible."""
    values = []
    for run, own in zip(runs, split(runs, scores), strict=True):
        ranked = [run.gains[place] for place in np.argsort(-own, kind="stable")]
        values.append(dcg(ranked) / run.ideal if run.ideal else 0.0)
    return float(np.mean(values))


def mean_tau(runs: Sequence[Run], scores: NDArray[Any], others: NDArray[Any]) -> float:
    """Return the mean over runs of Kendall's tau of both rankings."""
    return float(np.mean([kendall_tau(*both) for both in zip(split(runs, scores), split(runs, others), strict=True)]))


def kendall_tau(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Pairs in the same order less pairs in another, as a share of all pairs; a tie counts as neither."""
    first, second = np.triu_indices(len(a), 1)
    return float(np.mean(np.sign(a[first] - a[second]) * np.sign(b[first] - b[second])))


if __name__ == "__main__":
    main()
