"""Write the tables of README.md and docs/ from the committed results: from what was measured, not by hand.

A page says where a table stands, by the name of a file of results:

    <!-- table: rerank -->
    ... is replaced by the table of benchmarks/results/rerank.json
    <!-- end -->

Standard library only, so that the tests need none of the engines. Run it after a benchmark with --json:

    python benchmarks/tables.py
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        if page.exists():
            page.write_text(with_tables(page.read_text("utf-8")), "utf-8")


def with_tables(text: str) -> str:
    """Return the text of a page with each table made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{table(found[2])}{found[3]}", text)


def table(name: str) -> str:
    """Return the table of a file of results, with a line that says on which machine."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"table {name}: found no {path}, expected results; run the benchmark with --json {path}")
    result = json.loads(path.read_text("utf-8"))
    makers = {"rerank": _rerank, "accuracy": _accuracy, "scaling": _scaling, "families": _families}
    return makers[result["benchmark"]](result)


def _rerank(result: dict[str, Any]) -> str:
    jobs = result["jobs"]
    sizes = [f"{job['pairs']} pair{'s' * (job['pairs'] > 1)}, ms" for job in jobs]
    rows = []
    for engines in zip(*(job["engines"] for job in jobs), strict=True):
        name, precision = engines[0]["engine"], engines[0]["precision"]
        rows.append([name, precision, *(f"{engine['median_ms']:.1f}" for engine in engines)])
    return (
        f"{result['model']}, {result['threads']} threads, {_machine(result)}, instruction set of numbert:"
        f" {result['isa']}.\n\n" + _markdown(["engine", "precision", *sizes], rows, texts=2)
    )


def _accuracy(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        compared = (
            [f"{row['max']:.1e}", f"{row['rms']:.1e}", f"{row['tau']:.4f}", f"{row['ndcg_change']:+.4f}"]
            if "max" in row
            else [""] * 4
        )
        rows.append([row["model"], row["mode"], *compared, f"{row['ndcg']:.4f}"])
    columns = [
        "model",
        "computed with",
        "max logit diff.",
        "RMS logit diff.",
        "Kendall's tau",
        "change of nDCG@10",
        "nDCG@10",
    ]
    return f"Cranfield, {result['queries']} queries, 50 passages each.\n\n" + _markdown(columns, rows, texts=2)


def _scaling(result: dict[str, Any]) -> str:
    rows = [
        [
            str(row["pairs"]),
            f"{row['pairs'] / row['seconds']:.0f}",
            f"{row['deviation']:+.0%}",
            f"{row['peak_mib']:.0f}",
        ]
        for row in result["rows"]
    ]
    columns = ["pairs", "pairs/s", "deviation from the median", "peak MiB"]
    return f"{result['model']}, {_machine(result)}.\n\n" + _markdown(columns, rows, texts=0)


def _families(result: dict[str, Any]) -> str:
    rows = [
        [row["family"], str(row["words"]), f"{row['ms_a_pair']:.0f}", f"{row['ratio']:.2f}"] for row in result["rows"]
    ]
    columns = ["family", "words of a passage", "ms a pair", "of BERT's time"]
    return f"12 layers of 768, random weights, {_machine(result)}.\n\n" + _markdown(columns, rows, texts=1)


def _machine(result: dict[str, Any]) -> str:
    (processor,) = (fact for fact in result["facts"] if fact.startswith("processor: "))
    return str(processor).removeprefix("processor: ")


def _markdown(columns: list[str], rows: list[list[str]], texts: int) -> str:
    """Lay out a table of which the first columns, `texts` of them, are text and the others numbers."""
    ruler = "|" + "---|" * texts + "---:|" * (len(columns) - texts)
    lines = [f"| {' | '.join(columns)} |", ruler, *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
