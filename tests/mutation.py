"""Mutation testing by hand: make one small mistake in a module at a time, and see whether its tests notice.

    python tests/mutation.py                                    # all modules of RELATED, 60 minutes
    python tests/mutation.py --files engine/scorer.py --minutes 10 --json mutants.json
    python tests/mutation.py --again mutants.json               # only those that survived then

No file is changed. A parent process imports the slow libraries and loads the kernels once; each mutant lives in a
child forked from it, which imports engine and loaders anew, one module of them from mutated source, and runs the
related tests itself. (Mutation testers for general use start Python for each mutant, or look for a module under the
path of its file, which for us is not the name of the package.) Needs fork; not collected by pytest.
"""
# ruff: noqa: T201  # it prints

import argparse
import ast
import collections
import copy
import difflib
import importlib.abc
import importlib.util
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
# The tests that are there for a module, and quick. That slower ones (goldens, invariance) notice too is not enough.
RELATED = {
    "engine/cores.py": ["test_cores.py"],
    "engine/queue.py": ["test_queue.py", "test_scorer.py"],
    "engine/runner.py": ["test_scorer.py"],
    "engine/scorer.py": ["test_scorer.py", "test_async.py"],
    "engine/workers.py": ["test_workers.py", "test_scorer.py"],
    "engine/inputs.py": ["test_inputs.py"],
    "engine/tokenization.py": ["test_tokenization.py", "test_scorer.py"],
    "loaders/tokenizer.py": ["test_tokenization.py", "test_loaders.py"],
    "loaders/tensors.py": ["test_loaders.py", "test_modernbert.py"],
    "loaders/remote.py": ["test_remote_families.py"],
    "loaders/gte.py": ["test_remote_families.py"],
    "loaders/jina_bert.py": ["test_remote_families.py"],
    "loaders/rotary.py": ["test_remote_families.py", "test_modernbert.py"],
}
SWAPPED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Continue: ast.Break, ast.Break: ast.Continue,
}  # fmt: skip
SWAPPED_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    """A module with one mistake."""

    file: str  # relative to ROOT
    line: int
    kind: str
    tree: ast.Module
    diff: str


# ---- mistakes: each function changes the node in place, or returns what takes its place


def _assign(name: str, value: Any) -> Callable[[Any], None]:
    return lambda node: setattr(node, name, value)


def mistakes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], ast.AST | None]]]:
    """Give what can be wrong with a node: a name, and a function that does it to a copy of the node."""
    match node:
        case ast.Expr(value=ast.Call() | ast.Yield()) | ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Assert():
            yield "delete statement", lambda node: ast.Pass()
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            yield "return None", _assign("value", None)
        case ast.If() | ast.IfExp() | ast.While():
            yield "negate condition", lambda node: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
            yield "condition is False", _assign("test", ast.Constant(False))
            if not isinstance(node, ast.While):
                yield "condition is True", _assign("test", ast.Constant(True))
        case ast.With():
            yield "body without with", lambda node: ast.If(ast.Constant(True), node.body, [])
        case ast.Try(finalbody=[_, *_]):
            yield "delete finally", _assign("finalbody", [ast.Pass()])
        case ast.ExceptHandler():
            yield "raise again at once", _assign("body", [ast.Raise()])
        case ast.Compare() | ast.BinOp() | ast.BoolOp() | ast.AugAssign() | ast.Continue() | ast.Break():
            yield from _swaps(node)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield "drop sign", lambda node: node.operand
        case ast.Constant(value=bool(value)):
            yield "other boolean", _assign("value", not value)
        case ast.Constant(value=int(value)):
            yield "add 1", _assign("value", value + 1)
            yield "subtract 1", _assign("value", value - 1)
        case ast.Constant(value=str(value)):
            yield "other text", _assign("value", value + "~")
        case ast.Call(func=ast.Name(id=name)) if name in SWAPPED_NAMES:
            yield "swap function", lambda node: setattr(node.func, "id", SWAPPED_NAMES[name])
        case ast.Call(keywords=[_, *_]):
            for i in range(len(node.keywords)):
                yield "drop keyword", lambda node, i=i: node.keywords.pop(i) and None
        case ast.comprehension(ifs=[_, *_]):
            yield "drop filter", _assign("ifs", [])
        case ast.Slice():
            for end in ("lower", "upper"):
                if getattr(node, end) is not None:
                    yield f"drop {end} end", _assign(end, None)


def _swaps(node: Any) -> Iterator[tuple[str, Callable[[Any], ast.AST | None]]]:
    if isinstance(node, ast.Continue | ast.Break):
        yield "swap", lambda node: SWAPPED[type(node)]()
    elif isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if type(operator) in SWAPPED:
                yield "swap", lambda node, i=i: node.ops.__setitem__(i, SWAPPED[type(node.ops[i])]())
    elif type(node.op) in SWAPPED:
        yield "swap", lambda node: setattr(node, "op", SWAPPED[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            yield "drop operand", lambda node, i=i: node.values.pop(i) and None


# ---- from a file to its mutants


def places(node: ast.AST, way: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], ast.AST]]:
    """Give each node of a tree that computes something, and the way to it; not annotations, texts and messages."""
    yield way, node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns") or isinstance(value, ast.JoinedStr):
            continue
        if isinstance(node, ast.Raise | ast.Assert) or isinstance(value, ast.expr_context):
            continue
        for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not docstring and not isinstance(child, ast.JoinedStr):
                yield from places(child, (*way, (field, i)))


def mutants_of(file: str) -> list[Mutant]:
    """Return the mutants of a module, in the order of its lines."""
    original = ast.parse((ROOT / file).read_text())
    text = ast.unparse(original)
    found, seen = [], {text}
    for way, node in places(original):
        for kind, change in mistakes(node):
            tree = copy.deepcopy(original)
            target, parent = tree, None
            for field, i in way:
                parent, target = target, getattr(target, field) if i is None else getattr(target, field)[i]
            other = change(target)
            if other is not None:
                field, i = way[-1]
                if i is None:
                    setattr(parent, field, other)
                else:
                    getattr(parent, field)[i] = other
            mutated = ast.unparse(ast.fix_missing_locations(tree))
            if mutated in seen:
                continue
            seen.add(mutated)
            diff = difflib.unified_diff(text.splitlines(), mutated.splitlines(), lineterm="", n=0)
            lines = [line for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")]
            place = node if hasattr(node, "lineno") else parent
            found.append(Mutant(file, getattr(place, "lineno", 0), kind, tree, "\n".join(lines)))
    return found


# ---- one mutant in one child


class MutantLoader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a mutated tree."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = "numbert." + mutant.file.removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name == self.name:
            return importlib.util.spec_from_file_location(name, ROOT / self.mutant.file, loader=self)
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.mutant.tree, ROOT / self.mutant.file, "exec"), vars(module))


def warm_up() -> None:
    """Import what is slow, and load the kernels of every precision, so that children find them in memory."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # pytest warns of those that were imported before it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the library's threads would not survive the fork
    sys.path[:] = [str(ROOT / "tests"), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    import hypothesis
    import numba  # noqa: F401
    import numpy.testing  # noqa: F401
    import pytest  # noqa: F401
    from numbert import CrossEncoder

    hypothesis.settings.register_profile(  # without shrinking: that a test fails is enough
        "mutation",
        database=None,
        deadline=None,
        derandomize=True,
        max_examples=30,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("mutation")
    for options in ({}, {"dtype": "bfloat16"}, {"dtype": "int8"}, {"matmul_precision": "high"}):
        CrossEncoder(num_threads=2, **options).predict([("a", "b " * 60)])
        CrossEncoder(num_threads=1, **options).predict([("a", "b " * 60)])


def run_tests(mutant: Mutant | None, tests: list[str], log: str) -> None:
    """Run tests in this process, a child, and end it with pytest's exit code."""
    import pytest

    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    kept = {name: module for name, module in sys.modules.items() if name.startswith("numbert.kernels")}
    for name in [name for name in sys.modules if name.split(".")[0] == "numbert" and name not in kept]:
        del sys.modules[name]
    if mutant is not None:
        sys.meta_path.insert(0, MutantLoader(mutant))
    try:
        importlib.import_module("numbert").kernels = kept["numbert.kernels"]
        options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
        code = int(pytest.main([*options, *(str(ROOT / "tests" / test) for test in tests)]))
    except BaseException as error:  # the mutant cannot even be imported
        print(repr(error))
        code = 2
    sys.stdout.flush()
    os._exit(code)


class Child:
    """A forked process that runs the tests on one mutant."""

    def __init__(self, mutant: Mutant | None, tests: list[str], timeout: float, log: str) -> None:
        self.mutant, self.timeout, self.began, self.log = mutant, timeout, time.monotonic(), log
        self.process = multiprocessing.get_context("fork").Process(target=run_tests, args=(mutant, tests, log))
        self.process.start()

    def outcome(self) -> str | None:
        """Return how the tests ended; None while they run."""
        if self.process.exitcode is None and time.monotonic() - self.began > self.timeout:
            os.killpg(self.process.pid or 0, signal.SIGKILL)  # with the processes that tests have started
            self.process.join()
            return "timeout"
        names = {None: None, 0: "survived", 1: "killed", 2: "killed by its import"}
        code = self.process.exitcode
        return names.get(code, f"killed by signal {-code}" if (code or 0) < 0 else f"pytest ended with {code}")


def baseline(tests: list[str], log: str) -> float:
    """Return how long the tests take without a mistake, in seconds."""
    child = Child(None, tests, 600, log)
    child.process.join()
    if child.outcome() != "survived":
        raise SystemExit(f"{tests} fail without a mutant: {child.outcome()}\n{Path(log).read_text()}")
    return time.monotonic() - child.began


def run(mutants: list[Mutant], jobs: int, minutes: float, logs: Path) -> list[tuple[Mutant, str]]:
    """Test as many mutants as the time allows; return how each of them ended."""
    files = sorted({mutant.file for mutant in mutants})
    seconds = {file: baseline(RELATED[file], str(logs / "baseline")) for file in files}
    print("seconds of the tests without a mutant:", {file: round(value, 1) for file, value in seconds.items()})
    end = time.monotonic() + 60 * minutes
    waiting, running, done = mutants[::-1], [], []
    while waiting or running:
        while waiting and len(running) < jobs and time.monotonic() < end:
            mutant = waiting.pop()
            timeout = 10 + 5 * jobs * seconds[mutant.file]
            running.append(Child(mutant, RELATED[mutant.file], timeout, str(logs / str(len(waiting)))))
        if not running:
            break
        for child in list(running):
            outcome = child.outcome()
            if outcome is not None:
                running.remove(child)
                done.append((child.mutant, outcome))
                if not outcome.startswith(("killed", "timeout")):
                    print(f"{child.mutant.file}:{child.mutant.line}: {child.mutant.kind}: {outcome}")
                    print(child.mutant.diff, flush=True)
        time.sleep(0.01)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", default=list(RELATED), choices=RELATED, metavar="FILE")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60, help="for more mutants, an even sample is taken")
    parser.add_argument("--json", type=Path, help="write how each mutant ended")
    parser.add_argument("--again", type=Path, help="test only the mutants that survived in this record")
    arguments = parser.parse_args()
    warm_up()
    mutants = [mutant for file in arguments.files for mutant in mutants_of(file)]
    if arguments.again:
        survivors = {row["diff"] for row in json.loads(arguments.again.read_text()) if row["outcome"] == "survived"}
        mutants = [mutant for mutant in mutants if mutant.diff in survivors]
    random.Random(11).shuffle(mutants)
    with tempfile.TemporaryDirectory() as logs:
        done = run(mutants, arguments.jobs, arguments.minutes, Path(logs))
    for file in arguments.files:
        ends = collections.Counter(outcome for mutant, outcome in done if mutant.file == file)
        print(f"{file}: {sum(mutant.file == file for mutant in mutants)} mutants, {dict(ends)}")
    if arguments.json:
        rows = [{**mutant._asdict(), "outcome": outcome} for mutant, outcome in done]
        rows.sort(key=lambda row: (row["file"], row["line"]))
        arguments.json.write_text(json.dumps([{k: v for k, v in row.items() if k != "tree"} for row in rows], indent=1))


if __name__ == "__main__":
    main()
