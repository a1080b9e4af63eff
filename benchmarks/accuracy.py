"""Show what each precision costs in accuracy: logits, rankings, and the quality of the rankings.

Each model reranks the 50 passages that BM25 found for each query of the Cranfield collection. The exact scores are
those of transformers in float32, or of numbert's own float64 reference, which takes a second for each pair with a
MiniLM of 6 layers: ask for a few queries then. Markdown on stdout, progress on stderr.

    python benchmarks/accuracy.py MODEL [MODEL ...] --eval FOLDER
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import (
    Pairs,
    Setting,
    forget_own_folder,
    machine_lines,
    model_folder,
    positive,
    print_header,
    print_table,
    progress,
)
from engines import MODES, PRECISIONS, numbert_engine, sentence_transformers_engines, supported_modes
from graphs import Logits
from numbert import CrossEncoder
from numbert.engine.cores import usable_cores
from ranking import kendall_tau, ndcg

PACKAGES = ("numbert", "numpy", "numba", "sentence-transformers", "transformers", "torch")
SETTING = Setting(16, split=False)
COLUMNS = (
    "model", "computed with", "max logit diff.", "RMS logit diff.", "Kendall's tau", "nDCG@10", "change of nDCG@10",
)  # fmt: skip


class Topic(NamedTuple):
    """A query, what BM25 found for it, and what people judged."""

    query: str
    documents: list[str]  # their ids
    gains: dict[str, float]  # of each judged document


def main() -> None:
    """Read the arguments, score, compare, print."""
    arguments = _parse()
    forget_own_folder()
    topics, texts = read_collection(arguments.eval / "cranfield")
    topics = topics[: arguments.queries]
    pairs = [(topic.query, texts[document]) for topic in topics for document in topic.documents]
    facts = [
        *machine_lines(PACKAGES),
        f"Cranfield: {len(topics)} queries, {len(pairs)} pairs",
        f"exact scores: {arguments.reference}",
    ]
    print_header("Accuracy", facts)
    rows = [row for name in arguments.models for row in compare(name, arguments, topics, pairs)]
    print_table(COLUMNS, map(cells, rows))
    if arguments.json:
        result = {"benchmark": "accuracy", "facts": facts, "queries": len(topics), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders or hub ids of models with one label")
    parser.add_argument("--eval", type=Path, required=True, metavar="FOLDER", help="holds cranfield/*.jsonl")
    parser.add_argument("--queries", type=positive, help="use the first so many (default: all 225)")
    parser.add_argument("--reference", choices=("transformers", "numbert"), default="transformers")
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results and the facts of the machine")
    return parser.parse_args()


def read_collection(folder: Path) -> tuple[list[Topic], dict[str, str]]:
    """Return the queries with what BM25 found for them, and the text of each document."""
    gains: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for judgement in _lines(folder / "qrels.jsonl"):
        gains[judgement["query"]][judgement["doc"]] = judgement["gain"]
    queries = {line["id"]: line["text"] for line in _lines(folder / "queries.jsonl")}
    texts = {line["id"]: f"{line['title']}. {line['text']}" for line in _lines(folder / "docs.jsonl")}
    found = _lines(folder / "bm25_top50.jsonl")
    return [Topic(queries[line["query"]], line["docs"], gains[line["query"]]) for line in found], texts


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        sys.exit(f"{path}: cannot be read ({error.strerror}), expected the collection; give its folder with --eval")
    return map(json.loads, text.splitlines())


def compare(name: str, arguments: argparse.Namespace, topics: Sequence[Topic], pairs: Pairs) -> Iterator[Any]:
    """Yield a row for the exact scores of a model, and one for each mode that numbert has."""
    folder = model_folder(name)
    model = CrossEncoder(folder)
    if model.num_labels != 1:
        sys.exit(f"{name}: found {model.num_labels} labels, expected 1 to rank by; give another model")
    progress(f"{folder.name}: {arguments.reference}")
    exact = exact_logits(folder, arguments, model.max_seq_length, pairs)
    base = mean_ndcg(exact, topics)
    yield {"model": folder.name, "mode": f"{arguments.reference} (exact)", "ndcg": base}
    for mode in supported_modes(folder, PRECISIONS):
        progress(f"{folder.name}: {mode.name}")
        engine = numbert_engine(folder, arguments.threads, model.max_seq_length, mode)
        logits = engine.score(pairs, SETTING).ravel()
        error, quality = logits - exact, mean_ndcg(logits, topics)
        yield {
            "model": folder.name, "mode": mode.name, "max": float(np.abs(error).max()),
            "rms": float(np.sqrt(np.mean(error**2))), "tau": mean_tau(logits, exact, topics), "ndcg": quality,
            "ndcg_change": quality - base,
        }  # fmt: skip


def exact_logits(folder: Path, arguments: argparse.Namespace, max_length: int, pairs: Pairs) -> Logits:
    """Return the logits (N,) that the others are compared with."""
    if arguments.reference == "transformers":
        (engine,) = sentence_transformers_engines(folder, arguments.threads, max_length, ("float32",))
        return engine.score(pairs, SETTING).ravel()
    exact = MODES[0]._replace(arguments={"backend": "reference", "dtype": "float64"})
    return numbert_engine(folder, arguments.threads, max_length, exact).score(pairs, SETTING).ravel()


def mean_ndcg(logits: Logits, topics: Sequence[Topic]) -> float:
    """Return the mean over queries of nDCG@10; equal logits keep the order of BM25."""
    values = []
    for topic, own in zip(topics, _by_topic(logits, topics), strict=True):
        order = np.argsort(-own, kind="stable")
        values.append(ndcg([topic.documents[place] for place in order], topic.gains))
    return float(np.mean(values))


def mean_tau(a: Logits, b: Logits, topics: Sequence[Topic]) -> float:
    """Return the mean over queries of Kendall's tau."""
    columns = zip(_by_topic(a, topics), _by_topic(b, topics), strict=True)
    return float(np.mean([kendall_tau(own, other) for own, other in columns]))


def _by_topic(logits: Logits, topics: Sequence[Topic]) -> list[Logits]:
    ends = np.cumsum([len(topic.documents) for topic in topics])
    return np.split(logits, ends[:-1])


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table; the exact scores differ from themselves by nothing and leave these cells empty."""
    if "max" not in row:
        return row["model"], row["mode"], "", "", "", f"{row['ndcg']:.4f}", ""
    return (
        row["model"], row["mode"], f"{row['max']:.1e}", f"{row['rms']:.1e}", f"{row['tau']:.4f}", f"{row['ndcg']:.4f}",
        f"{row['ndcg_change']:+.4f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
