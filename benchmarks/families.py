"""Show what each family costs beside BERT: models of BERT-base's size, in turns, on the same pairs.

Weights are random. All models are loaded at once; medians count, and the median over rounds of the ratio to BERT's time
within a round. Markdown on stdout, progress on stderr; needs torch and transformers, which write the models.

    python benchmarks/families.py --words 65 200 400
"""

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

from common import forget_own_folder, machine_lines, make_pairs, positive, print_header, print_table, progress
from numbert import CrossEncoder
from numbert.engine.cores import usable_cores
from random_base import open_model

BERT = "random-base"
FAMILIES = ("random-deberta", "random-gte", "random-nomic", "random-albert")  # 12 layers of 768, like BERT
PAIRS = 50


def main() -> None:
    """Read the arguments, load, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--words", nargs="+", type=positive, default=[65, 400], help="mean words of a passage")
    parser.add_argument("--pairs", type=positive, default=PAIRS)
    parser.add_argument("--threads", type=positive, default=usable_cores(), help="default: the usable cores")
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results and the facts of the machine")
    arguments = parser.parse_args()
    forget_own_folder()
    facts = [
        *machine_lines(("numbert", "numpy", "numba")),
        f"threads: {arguments.threads}",
        f"pairs: {arguments.pairs}",
    ]
    with contextlib.ExitStack() as stack:
        folders = {name: stack.enter_context(open_model(name)) for name in (BERT, *arguments.models)}
        models = {name: CrossEncoder(folder, num_threads=arguments.threads) for name, folder in folders.items()}
    print_header("What families cost beside BERT", facts)
    rows = [row for words in arguments.words for row in measure(models, words, arguments)]
    print_table(("family", "words", "ms a pair", "of BERT's time"), map(cells, rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"benchmark": "families", "facts": facts, "rows": rows}, indent=1) + "\n")


def measure(models: dict[str, CrossEncoder], words: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time all models in turns on pairs whose passages have so many words on average."""
    pairs = make_pairs(arguments.pairs, words)
    for model in models.values():
        model.predict(pairs)  # compiles, and fills the caches
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(arguments.rounds):
        progress(f"round {number + 1} of {arguments.rounds}, {words} words")
        for name, model in models.items():
            begin = time.perf_counter()
            model.predict(pairs)
            seconds[name].append(time.perf_counter() - begin)
    return [
        {
            "family": name.removeprefix("random-"),
            "words": words,
            "ms_a_pair": 1e3 * statistics.median(own) / len(pairs),
            "ratio": statistics.median(a / b for a, b in zip(own, seconds[BERT], strict=True)),
        }
        for name, own in seconds.items()
    ]


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Bring what was found of a family into the cells of a table."""
    return row["family"], str(row["words"]), f"{row['ms_a_pair']:.2f}", f"{row['ratio']:.2f}"


if __name__ == "__main__":
    main()
