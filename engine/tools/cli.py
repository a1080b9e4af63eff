"""The command line: rank and score files of text, look at a model, time it, compile the kernels ahead.

Data goes to stdout, everything else to stderr. Exit code 0: done; 1: an error, said in one line; 2: wrong usage;
130: interrupted (`__main__` sees to that).
"""

import argparse
import importlib.util
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...loaders.errors import NumbertError
from ...loaders.source import EMBEDDED_MODEL
from ..cross_encoder import CrossEncoder
from ..errors import InputError, ParityError
from ..inputs import Pair
from ..progress import show_bar, show_lines
from ..records import Row, print_rows, read_records
from .bench import bench, make_pairs, phase_table

PROGRAM = __name__.partition(".")[0].replace("_", "-")  # numbert, or numbert-frozen (wheel.py)
BETTER_MODEL = "cross-encoder/ms-marco-MiniLM-L6-v2"
PROGRESS_FROM = 1000  # pairs; fewer are done before anyone wonders
FORMATS = ("text", "jsonl", "json", "tsv")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if sys.stdin is None or sys.stdout is None:
        return _fail("standard input or output is closed; leave both open")
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    logging.basicConfig(level=logging.WARNING, format=f"{PROGRAM}: %(message)s")  # this is the program, not the library
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UnicodeEncodeError as error:
        return _fail(f"the output cannot be written as {error.encoding}: {error.reason}; set PYTHONIOENCODING=utf-8")
    except NumbertError as error:
        return _fail(str(error))
    except RecursionError:
        return _fail("the JSON input is nested too deeply; leave out what is neither query nor text nor id")
    except MemoryError:
        return _fail("the memory is not enough; close other programs, or give a smaller model or file")
    except OSError as error:
        if error.strerror is None:  # one that says all in its message
            return _fail(str(error))
        return _fail(f"{error.filename or 'the output'}: {error.strerror}; check the path and its permissions")
    return 0


def _fail(message: str) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)  # names and causes may have several lines
    return 1


def make_parser() -> argparse.ArgumentParser:
    """Describe the commands and their options."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Rank passages with a cross-encoder.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, run: Any, summary: str, formats: Sequence[str]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        sub.add_argument("--format", choices=formats, default="text", help="of the output (default: text)")
        if run not in (run_freeze, run_wheel):
            sub.add_argument("--threads", type=int, help="that compute (default: all cores)")
        if run not in (run_verify, run_freeze, run_wheel):  # one compares them, one has its own, one has no model
            sub.add_argument(
                "--backend", default="auto", choices=("auto", "cpu", "cuda", "reference"), help="what computes"
            )
            sub.add_argument(
                "--dtype", choices=("float32", "bfloat16", "int8", "float64"),
                help="precision of the matrix products (default: float32, or that of a frozen model)",
            )  # fmt: skip
            sub.add_argument(
                "--matmul-precision", default="highest", choices=("highest", "high"),
                help="of float32: high allows 16 bits of each factor, where that is faster (AMX)",
            )  # fmt: skip
        return sub

    rank = command("rank", run_rank, "Sort passages by how well they answer QUERY, best first.", FORMATS)
    rank.add_argument("query", metavar="QUERY")
    rank.add_argument("--score-threshold", type=float, help="leave out passages with a lower score")
    rank.add_argument(
        "--long-documents", choices=("truncate", "windows"), default="truncate",
        help="cut passages that are too long (default), or read them in windows and take the best score",
    )  # fmt: skip
    rank.add_argument("--top-k", type=int, help="print no more than so many")
    score = command("score", run_score, "Score (query, passage) pairs, in the order of the file.", FORMATS)
    for sub, content in (
        (rank, "one passage a line, or a JSON object with 'text' (and 'id') a line, or a JSON array of either"),
        (
            score,
            "'query<TAB>passage' a line, or a JSON object with 'query' and 'text' a line, or a JSON array of such"
            " objects or of [query, passage]",
        ),
    ):
        sub.add_argument(
            "file", metavar="FILE", nargs="?", default="-", help=f"{content}; - is standard input (default)"
        )
        sub.add_argument("--model", help="a folder or a hub id (default: the small model that comes with numbert)")
        sub.add_argument("--max-length", type=int, help="longest pair in tokens")
        sub.add_argument(
            "--text", action="store_true",
            help="read FILE as lines of text, even if it begins with { or is a JSON array",
        )  # fmt: skip
    info = command("info", run_info, "Show what a model is and how it would be computed.", ("text", "json"))
    warmup = command(
        "warmup", run_warmup, "Compile the kernels now, so that the first score is quick.", ("text", "json")
    )
    bench_ = command("bench", run_bench, "Time a model on this machine.", ("text", "json"))
    bench_.add_argument(
        "file", metavar="FILE", nargs="?", help="pairs as for score (default: pairs of common words, made here)"
    )
    bench_.add_argument("--model", help="a folder or a hub id (default: the small model that comes with numbert)")
    bench_.add_argument("--pairs", type=int, help="how many to make (default: 100)")
    bench_.add_argument("--words", type=int, help="mean length of the passages that are made (default: 65)")
    bench_.add_argument("--batch-size", type=int, default=32, help="most pairs that are computed together")
    bench_.add_argument("--rounds", type=int, default=9, help="timed calls (default: 9)")
    bench_.add_argument("--profile", action="store_true", help="show where the time goes, phase by phase")
    of_model = [info, warmup]
    if importlib.util.find_spec(".freeze", __package__):  # what makes frozen models is not in their wheel
        of_model.append(_add_making_commands(command))
    for sub in of_model:
        sub.add_argument("model", metavar="MODEL", nargs="?", help="a folder or a hub id (default: the embedded model)")
    return parser


def _add_making_commands(command: Callable[..., argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add what makes frozen models and verifies models; return the latter."""
    verify_ = command(
        "verify", run_verify, "Compare a model with transformers and the float64 reference.", ("text", "json")
    )
    verify_.add_argument("--against", metavar="MODEL", help="the model that a frozen MODEL was made from")
    freeze_ = command(
        "freeze", run_freeze, "Write a folder that runs without Numba and LLVM, as fast and with the same bits.",
        ("text", "json"),
    )  # fmt: skip
    freeze_.add_argument("model", metavar="MODEL", help="a folder or a hub id")
    freeze_.add_argument("folder", metavar="DIR", help="that is written; new or empty")
    freeze_.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "int8"),
        help="precision of the matrix products (default: float32)",
    )  # fmt: skip
    freeze_.add_argument(
        "--isa", action="append", default=[],
        help="an instruction set to run on, of those that this processor has; may be given again (default: the best)",
    )  # fmt: skip
    wheel = command(
        "wheel", run_wheel, "Write the package that computes frozen models, without Numba.", ("text", "json")
    )
    wheel.add_argument("folder", metavar="DIR", help="to write it into")
    return verify_


# ---- commands


def run_rank(options: argparse.Namespace) -> None:
    """Print the passages of a file, best first."""
    records = read_records(options.file, "text", as_text=options.text)
    model = load_model(options)
    texts = [record["text"] for record in records]
    ranks = model.rank(
        options.query, texts, top_k=options.top_k, show_progress_bar=_choose_progress(model, len(texts)),
        score_threshold=options.score_threshold, long_documents=options.long_documents,
    )  # fmt: skip
    if options.long_documents == "truncate":
        _report_truncation(model, [(options.query, text) for text in texts])
    rows = (
        _row({"rank": place, "corpus_id": rank["corpus_id"], "score": rank["score"]}, records[rank["corpus_id"]])
        for place, rank in enumerate(ranks, 1)
    )
    print_rows(rows, options.format, ("score", "text"), sys.stdout)


def run_score(options: argparse.Namespace) -> None:
    """Print the score of each pair of a file."""
    records = read_records(options.file, "query", "text", as_text=options.text)
    model = load_model(options)
    pairs = [(record["query"], record["text"]) for record in records]
    scores = model.predict(pairs, show_progress_bar=_choose_progress(model, len(pairs)))
    _report_truncation(model, pairs)
    rows = (_row({"score": score}, record) for score, record in zip(scores.tolist(), records, strict=True))
    print_rows(rows, options.format, ("score", "query", "text"), sys.stdout)


def _row(computed: Row, record: Row) -> Row:
    """Put what was computed before what was read; where both have a name, the input's value is not kept."""
    return {**computed, **{name: value for name, value in record.items() if name not in computed}}


def run_info(options: argparse.Namespace) -> None:
    """Print the sizes of a model and the choices made for this machine."""
    model = load_model(options)
    print_facts(model.describe(), options.format)


def run_warmup(options: argparse.Namespace) -> None:
    """Score one pair, which compiles every kernel that a model of this family needs."""
    begin = time.perf_counter()
    model = load_model(options)
    model.predict(("query", "passage"))
    kernels = {name: place for name, place in model.describe().items() if name in ("kernel_cache", "library")}
    print_facts({"seconds": round(time.perf_counter() - begin, 2), **kernels}, options.format)


def run_verify(options: argparse.Namespace) -> None:
    """Print a Markdown table of checks.

    Raises
    ------
    ParityError
        When a bound is broken; the program then ends with exit code 1.
    """
    from .verify import verify  # here, like what freezes: the wheel of frozen models does without

    checks = verify(options.model, options.threads, options.against)
    if options.format == "json":
        print(json.dumps([check._asdict() for check in checks]))
    else:
        print(f"| {options.model or EMBEDDED_MODEL} | bound | seen | |\n|---|---:|---:|---|")
        for check in checks:
            print(f"| {check.what} | {check.bound} | {check.seen} | {check.verdict} |")
    broken = [check.what for check in checks if check.passed is False]
    if broken:
        raise ParityError(
            f"{options.model or EMBEDDED_MODEL}: found {len(broken)} broken bounds, expected none: {'; '.join(broken)}"
        )


def run_freeze(options: argparse.Namespace) -> None:
    """Write a frozen model, and print what is in it."""
    from .freeze import freeze

    begin = time.perf_counter()
    folder = freeze(options.model, Path(options.folder), options.dtype, options.isa)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    facts = {"folder": str(folder), "seconds": round(time.perf_counter() - begin, 1), "bytes": sum(sizes.values())}
    print_facts({**facts, "files": sizes} if options.format == "json" else {**facts, **sizes}, options.format)


def run_wheel(options: argparse.Namespace) -> None:
    """Write the wheel of frozen models, and print where it is."""
    from .wheel import write_wheel

    place = write_wheel(Path(options.folder))
    print_facts({"wheel": str(place), "bytes": place.stat().st_size}, options.format)


def run_bench(options: argparse.Namespace) -> None:
    """Print how fast a model is here and, if asked for, where the time goes."""
    if options.file is None:
        pairs = make_pairs(
            100 if options.pairs is None else options.pairs, 65 if options.words is None else options.words
        )
    elif options.pairs is not None or options.words is not None:
        raise InputError(
            "bench: found FILE and --pairs or --words, expected one or the other; leave out --pairs and --words"
        )
    else:
        pairs = [(record["query"], record["text"]) for record in read_records(options.file, "query", "text")]
    report = bench(load_model(options), pairs, options.batch_size, options.rounds, options.profile)
    if options.format == "json":
        phases = {"phases": [phase._asdict() for phase in report.phases]} if options.profile else {}
        print_facts({**report.facts, **phases}, "json")
        return
    print_facts(report.facts, "text")
    if report.phases:
        print(f"\n{phase_table(report)}")


def load_model(options: argparse.Namespace) -> CrossEncoder:
    """Load the model that the options name; say so when they name none."""
    model = CrossEncoder(
        options.model,
        backend=options.backend,
        dtype=options.dtype,
        matmul_precision=options.matmul_precision,
        num_threads=options.threads,
        max_length=getattr(options, "max_length", None),
    )
    if options.model is None:
        print(
            f"numbert: using the embedded {EMBEDDED_MODEL}, made for first steps; for real work give a better one,"
            f" such as --model {BETTER_MODEL}",
            file=sys.stderr,
        )
    return model


def _report_truncation(model: CrossEncoder, pairs: list[Pair]) -> None:
    truncated = model.find_truncated(pairs)
    if truncated:
        print(
            f"{PROGRAM}: {len(truncated)} of {len(pairs)} pairs are longer than {model.max_seq_length} tokens and were"
            f" cut, the first at position {truncated[0]}; `rank --long-documents windows` reads all of them",
            file=sys.stderr,
        )


def _choose_progress(model: CrossEncoder, count: int) -> bool:
    """Let a model show a bar on a terminal and lines elsewhere; return whether it is to show anything."""
    if sys.stderr.isatty():
        model._show_progress = show_bar
        return count >= PROGRESS_FROM
    model._show_progress = show_lines
    return True


def print_facts(facts: Row, form: str) -> None:
    """Write names and values."""
    if form == "json":
        print(json.dumps(facts, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")
