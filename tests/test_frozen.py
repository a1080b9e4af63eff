"""Frozen models: the bits of the cpu backend without Numba, and a clear refusal of whatever is not as it was frozen.

What could end a process is tried in one of its own, which lives for many tests.
"""

import asyncio
import copy
import functools
import hashlib
import inspect
import json
import multiprocessing
import os
import pickle
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import GOLDENS, NAMES, edit_json
from conftest import ROOT
from hostile_pairs import PAIRS as HOSTILE_PAIRS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

pytest.importorskip("numba", reason="freezing compiles with Numba")

from faults.inject import Point, fault
from faults.scenarios import Load, expected_of, points_of, try_point
from numbert import BackendError, ConfigError, CrossEncoder, InputError, WeightsError
from numbert.engine.backend import Blocks
from numbert.engine.errors import SaveError
from numbert.engine.frozen import usable_instruction_sets
from numbert.engine.packed_form import check_form
from numbert.engine.tools import cli, freeze, verify
from numbert.kernels.cpu.frozen import symbol_of
from numbert.kernels.cpu.instruction_sets import KNOWN, REQUIRED_FEATURES
from numbert.loaders import spec as specification
from numbert.loaders.frozen import LARGEST_SIZE, LEAST, MANIFEST, Manifest, check_spec, checksum
from numbert.loaders.records import RecordError, check_kinds, decode, encode, kinds_of
from numbert.loaders.source import EMBEDDED_FOLDER
from numbert.loaders.spec import ConvolutionRule, LayerRule, LinearStep, NormStep, ResidualStep
from random_models import make_spec

TOOLS = all(shutil.which(tool) for tool in (os.environ.get("CC") or "cc", "readelf"))
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or not TOOLS, reason="freezing needs Linux, a C compiler and readelf"),
    pytest.mark.usefixtures("crew_of_four"),
]
DTYPES_FROZEN = ("float32", "int8", "bfloat16")
RICH = "deberta-v2"  # contents that meet distances, a convolution, sizes that are filled up: most kinds of records
BEST = usable_instruction_sets()[:1]
TEXT = st.lists(st.sampled_from("a the Berlin people 7 éclair 東京 how many? 🙂 [SEP] supercali".split()), max_size=30)
PAIRS = st.lists(st.tuples(*2 * [TEXT.map(" ".join)]), min_size=1, max_size=8)
SOME = [("how many people", "Seven people live here. " * count) for count in (1, 7, 40)] + [("", ""), ("a", "b c")]


def bits(scores: Any) -> list[int]:
    return np.asarray(scores, np.float32).reshape(-1).view(np.uint32).tolist()


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def frozen(tmp_path_factory):
    """Return frozen models by the name among the recorded ones; what most tests need is frozen side by side."""
    with ThreadPoolExecutor(2) as freezers:

        @functools.cache
        def begin(name: str, dtype: str) -> Any:
            source = EMBEDDED_FOLDER if name == "tiny-reranker" else GOLDENS / name
            return freezers.submit(freeze.freeze, str(source), tmp_path_factory.mktemp(name) / dtype, dtype)

        for name, dtype in (("tiny-reranker", "float32"), (RICH, "float32"), ("tiny-reranker", "int8")):
            begin(name, dtype)
        yield lambda name, dtype="float32": begin(name, dtype).result()


@pytest.fixture(scope="module")
def twins(frozen):
    """Return a frozen model, and the one that it was made from on the cpu backend."""

    @functools.cache
    def load(dtype: str, threads: int = 2) -> tuple[CrossEncoder, CrossEncoder]:
        folder = frozen("tiny-reranker", dtype)
        return CrossEncoder(folder, num_threads=threads), CrossEncoder(dtype=dtype, num_threads=threads)

    return load


@pytest.fixture
def spoilt(frozen, tmp_path):
    """Return a copy of a frozen model that a test may spoil."""
    return Path(shutil.copytree(frozen(RICH), tmp_path / "spoilt"))


SCORE_ELSEWHERE = """
import json, sys
from numbert import CrossEncoder, NumbertError
for line in sys.stdin:
    folder, options, pairs = json.loads(line)
    try:
        scores = CrossEncoder(folder, num_threads=1, **options).predict([tuple(pair) for pair in pairs])
        result = {"bits": scores.reshape(-1).view("u4").tolist()}
    except NumbertError as error:
        result = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        result = {"error": "MemoryError", "message": ""}
    heavy = {"numba", "llvmlite", "huggingface_hub"} & set(sys.modules)
    print(json.dumps({**result, "heavy": sorted(heavy)}), flush=True)
"""


class Elsewhere:
    """A process that loads models and scores; a new one when it has come to its end."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def score(self, folder: Path, pairs: Any = SOME, **options: Any) -> dict[str, Any]:
        """Return the bits of the scores or the numbert error; fail when it is another, or the process has ended."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCORE_ELSEWHERE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, cwd=ROOT.parent,
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(folder), options, pairs]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            _, stderr = self.process.communicate()
            ended, self.process = self.process, None
            pytest.fail(f"the process has ended with {ended.returncode}: {stderr[-1500:]}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def refuses(self, folder: Path, error: str, *parts: str, **options: Any) -> None:
        """Assert that a folder is refused by an error of this class, whose message has these parts."""
        result = self.score(folder, **options)
        assert result.get("error") == error, result
        assert all(part in result["message"] for part in parts), result

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()


@pytest.fixture(scope="module")
def elsewhere():
    process = Elsewhere()
    yield process
    process.close()


def edit_manifest(folder: Path, change: Any, *, with_sum: bool = True) -> None:
    """Let a function change a manifest, in place, and give it the sum of what it then is."""

    def edit(values: dict[str, Any]) -> None:
        change(values)
        if with_sum:
            values["sha256"] = checksum(values)

    edit_json(folder / MANIFEST, edit)


def describe_again(folder: Path, *names: str) -> None:
    """Let a manifest have size and sum of what files are now."""
    for name in names:
        content = (folder / name).read_bytes()
        described = [len(content), hashlib.sha256(content).hexdigest()]
        edit_manifest(folder, lambda values, name=name, described=described: values["files"].update({name: described}))


def library_of(folder: Path) -> Path:
    (library,) = (folder / "kernels").iterdir()
    return library


def weights_of(folder: Path) -> Path:
    (weights,) = (folder / "weights").iterdir()
    return weights


# ---- the same bits


@settings(max_examples=30)
@given(pairs=PAIRS, data=st.data())
def test_scores_have_the_bits_of_the_cpu_backend(twins, pairs, data):
    dtype, threads = data.draw(st.sampled_from(DTYPES_FROZEN[:2])), data.draw(st.sampled_from((1, 3)))
    frozen_model, compiled = twins(dtype, threads)
    order, size = data.draw(st.permutations(range(len(pairs)))), data.draw(st.integers(1, 40))
    together = frozen_model.predict([pairs[i] for i in order], batch_size=size)
    expected = [bits(compiled.predict(pair)) for pair in pairs]
    assert [bits(row) for row in together] == [expected[i] for i in order]


def assert_golden_bits(folder: Path, dtype: str, source: Path) -> None:
    models = CrossEncoder(folder, num_threads=2), CrossEncoder(source, dtype=dtype, num_threads=2)
    ours, expected = (bits(model.predict(HOSTILE_PAIRS)) for model in models)
    assert ours == expected
    assert models[0].describe()["instruction_set"] == models[1].describe()["instruction_set"]
    same = {"num_labels", "max_length", "parameters", "stored_as", "activation", "head", "family"}
    described = [{key: value for key, value in model.describe().items() if key in same} for model in models]
    assert described[0] == described[1]


def test_a_rich_model_has_the_bits_of_the_cpu_backend(frozen):
    assert_golden_bits(frozen(RICH), "float32", GOLDENS / RICH)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES_FROZEN)
@pytest.mark.parametrize("name", NAMES)
def test_every_family_has_the_bits_of_the_cpu_backend(frozen, name, dtype):
    source = EMBEDDED_FOLDER if name == "tiny-reranker" else GOLDENS / name
    assert_golden_bits(frozen(name, dtype), dtype, source)


@pytest.mark.long
def test_each_instruction_set_of_this_processor_has_the_bits_of_the_cpu_backend(tmp_path, elsewhere):
    usable = usable_instruction_sets()
    folder = freeze.freeze(str(GOLDENS / RICH), tmp_path / "all", "int8", usable)
    compute = (
        "import json, sys; from numbert import CrossEncoder;"
        "model = CrossEncoder(sys.argv[1], dtype='int8', num_threads=1); pairs = json.loads(sys.argv[2]);"
        "print(model.describe()['instruction_set'], model.predict([tuple(p) for p in pairs]).tobytes().hex())"
    )
    for isa in usable:
        printed = {
            subprocess.run(
                [sys.executable, "-c", compute, str(place), json.dumps(SOME)], capture_output=True, text=True,
                check=True, cwd=ROOT.parent, env={**os.environ, "NUMBERT_ISA": isa},
            ).stdout
            for place in (folder, GOLDENS / RICH)
        }  # fmt: skip
        assert len(printed) == 1, (isa, printed)
        assert printed.pop().startswith(f"{isa} ")


def test_many_callers_at_once_get_those_bits(twins):
    frozen_model, compiled = twins("float32")
    expected = bits(compiled.predict(SOME))
    with ThreadPoolExecutor(8) as callers:
        results = list(callers.map(lambda _: bits(frozen_model.predict(SOME)), range(40)))
    assert results == 40 * [expected]


def test_coroutines_get_those_bits(twins):
    frozen_model, compiled = twins("int8")

    async def score() -> list[Any]:
        return await asyncio.gather(*(frozen_model.apredict(SOME) for _ in range(5)))

    assert [bits(scores) for scores in asyncio.run(score())] == 5 * [bits(compiled.predict(SOME))]


def test_a_deep_copy_scores_the_same_and_shares_the_weights(twins):
    model = twins("float32")[0]
    twin = copy.deepcopy(model)
    assert bits(twin.predict(SOME)) == bits(model.predict(SOME))
    assert twin._scorer.runner.encoder is model._scorer.runner.encoder


def _predict_in_child(model: CrossEncoder, results: Any) -> None:
    results.put(bits(model.predict(SOME)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_can_predict(twins):
    model = twins("float32")[0]
    expected = bits(model.predict(SOME))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_predict_in_child, args=(model, results))
    child.start()
    assert results.get(timeout=60) == expected
    child.join(timeout=60)
    assert child.exitcode == 0
    assert bits(model.predict(SOME)) == expected


# ---- another process


UNPICKLE = """
import pickle, sys
from numbert import NumbertError
try:
    model = pickle.loads(open(sys.argv[1], "rb").read())
    print(model.predict([("a", "b c")]).tobytes().hex(), {"numba", "llvmlite"} & set(sys.modules))
except NumbertError as error:
    print(type(error).__name__, error)
"""


def unpickle_elsewhere(model: CrossEncoder, path: Path, prelude: str = "") -> str:
    path.write_bytes(pickle.dumps(model))
    done = subprocess.run(
        [sys.executable, "-c", prelude + UNPICKLE, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
        check=True,
    )
    return done.stdout.strip()


def test_another_process_gets_a_pickled_model_without_numba(twins, tmp_path):
    model = twins("float32")[0]
    expected = model.predict([("a", "b c")]).tobytes().hex()
    assert unpickle_elsewhere(model, tmp_path / "model") == f"{expected} set()"


def test_another_library_in_the_place_of_a_pickled_model_s_is_refused(spoilt, tmp_path):
    model = CrossEncoder(spoilt)
    library = library_of(spoilt)
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.unlink()  # who has loaded it keeps what it was
    library.write_bytes(content)
    assert unpickle_elsewhere(model, tmp_path / "model").startswith(f"ConfigError {library}: found SHA-256")


def test_a_processor_that_lacks_what_a_pickled_model_needs_refuses_it(spoilt, tmp_path):
    if not REQUIRED_FEATURES.get(BEST[0]):
        pytest.skip("this processor runs kernels that need no feature, and any other runs them too")
    prelude = "from numbert.kernels.cpu import processor\nprocessor.features = frozenset\n"
    found = unpickle_elsewhere(CrossEncoder(spoilt), tmp_path / "model", prelude)
    assert found.startswith(
        f"BackendError {library_of(spoilt)}: found kernels for {BEST[0]}, expected one of ['baseline']"
    )


def test_nothing_of_numba_and_the_hub_is_imported(frozen, elsewhere, twins):
    result = elsewhere.score(frozen("tiny-reranker"))
    assert result == {"bits": bits(twins("float32")[1].predict(SOME)), "heavy": []}


def test_numba_need_not_be_installed(frozen, twins):
    code = (
        "import sys\nfor name in ('numba', 'llvmlite', 'huggingface_hub'): sys.modules[name] = None\n"
        "from numbert import CrossEncoder\nprint(CrossEncoder(sys.argv[1]).predict([('a', 'b c')]).tobytes().hex())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(frozen("tiny-reranker"))], capture_output=True, text=True,
        cwd=ROOT.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == twins("float32")[1].predict([("a", "b c")]).tobytes().hex()


# ---- what is written


def test_the_same_model_gives_the_same_bytes(frozen, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    monkeypatch.chdir(tmp_path)
    again = freeze.freeze(str(GOLDENS / RICH), Path("elsewhere"))
    assert content_of(again) == content_of(frozen(RICH))
    assert list(tmp_path.iterdir()) == [tmp_path / "elsewhere"]


def test_a_library_exports_its_kernels_and_nothing_else_and_is_never_patched(frozen):
    library = library_of(frozen("tiny-reranker"))
    dynamic, symbols, segments = (
        subprocess.run(
            ["readelf", "-W", option, library], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
        ).stdout
        for option in ("--dynamic", "--dyn-syms", "--program-headers")
    )
    assert "TEXTREL" not in dynamic
    assert "(INIT" not in dynamic  # nothing runs when it is loaded
    rows = [line.split() for line in symbols.splitlines() if line.split()[:1] and line.split()[0].rstrip(":").isdigit()]
    exported = {row[7] for row in rows if len(row) > 7 and row[6] != "UND"}
    needed = {row[7].partition("@")[0] for row in rows if len(row) > 7 and row[6] == "UND"}
    assert symbol_of(BEST[0], "arrive", "int64[1]") in exported
    assert all(name.startswith("numbert_") for name in exported)
    assert not any(name.startswith(("Py", "NRT", "numba")) for name in needed), needed
    stack = next(line for line in segments.splitlines() if "GNU_STACK" in line)
    assert "E" not in stack.split()[-2]  # it may not be executed
    assert not any({"W", "E"} <= set("".join(line.split()[6:-1])) for line in segments.splitlines() if "LOAD" in line)


def test_weights_begin_on_cache_lines_and_the_manifest_names_all_files(frozen):
    folder = frozen("tiny-reranker")
    manifest = json.loads((folder / MANIFEST).read_text())
    assert set(content_of(folder)) == {*manifest["files"], MANIFEST}
    for _, part in parts_of(CrossEncoder(folder)._scorer.runner.encoder):
        assert not isinstance(part, np.ndarray) or part.nbytes % 64 or part.ctypes.data % 64 == 0


# ---- the command line


def run(capsys, *arguments: str) -> str:
    """Run the command line in this process and return what it prints."""
    code = cli.main(arguments)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_the_command_line_takes_a_frozen_model(frozen, capsys, tmp_path, monkeypatch):
    folder = str(frozen("tiny-reranker", "int8"))
    (tmp_path / "pairs.tsv").write_text("people\tSeven people.\npeople\tRain.\n")
    (tmp_path / "texts.txt").write_text("Rain.\nSeven people.\n")
    for command, source in (("score", "pairs.tsv"), ("rank", "texts.txt")):
        arguments = [command, *["people"] * (command == "rank"), str(tmp_path / source), "--format", "jsonl"]
        ours = run(capsys, *arguments, "--model", folder)
        assert ours == run(capsys, *arguments, "--dtype", "int8")
    described = json.loads(run(capsys, "info", folder, "--format", "json"))
    assert (described["backend"], described["dtype"]) == ("frozen", "int8")
    assert json.loads(run(capsys, "warmup", folder, "--format", "json"))["library"] == str(library_of(Path(folder)))
    report = run(capsys, "bench", "--model", folder, "--pairs", "40", "--rounds", "1", "--profile")
    assert "| attention |" in report
    assert "| feed-forward, residual, norm |" in report


@pytest.fixture
def few_pairs(monkeypatch):
    monkeypatch.setattr(verify, "TOKEN_PAIRS", 60)
    monkeypatch.setattr(verify, "LOGIT_PAIRS", 6)


@pytest.mark.usefixtures("few_pairs")
def test_verify_compares_with_the_model_that_was_frozen(frozen, capsys, spoilt):
    rows = run(capsys, "verify", str(frozen(RICH)), "--against", str(GOLDENS / RICH)).splitlines()[2:]
    assert len(rows) == 4
    assert all(row.endswith("| ok |") for row in rows)
    assert cli.main(["verify", str(frozen(RICH)), "--against", str(GOLDENS / "narrow")]) == 1
    assert "broken bounds" in capsys.readouterr().err
    (spoilt / "README.md").write_text("of another model")
    edit_manifest(spoilt, lambda values: values["files"].update({"kernels/other.so": [3, "0" * 64]}))
    assert cli.main(["verify", str(spoilt), "--against", str(GOLDENS / RICH)]) == 1
    assert "other.so: found nothing, the manifest names it" in capsys.readouterr().err


@pytest.mark.usefixtures("few_pairs")
def test_verify_says_what_it_is_to_compare_with(frozen):
    published = str(GOLDENS / RICH)
    with pytest.raises(InputError, match="against: found None for backend 'frozen'"):
        verify.verify(str(frozen(RICH)))
    with pytest.raises(InputError, match=r"against: found .* for backend 'cpu'"):
        verify.verify(published, against=published)


# ---- what is refused when a model is frozen


def refuse(target: Path, error: type[Exception], message: str, model: Path = GOLDENS / RICH, **options: Any) -> None:
    before = {path.name for path in target.parent.iterdir()} if target.parent.exists() else set()
    with pytest.raises(error, match=message):
        freeze.freeze(str(model), target, **options)
    assert {path.name for path in target.parent.iterdir()} == before  # nothing is left behind


def test_without_a_compiler_nothing_is_frozen(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "/nonexistent")
    refuse(tmp_path / "new", BackendError, "no C compiler '/nonexistent', expected one to link with; install gcc")


def test_on_another_system_nothing_is_frozen(tmp_path, monkeypatch):
    monkeypatch.setattr(freeze.sys, "platform", "darwin")
    with pytest.raises(BackendError, match="found darwin, expected Linux"):
        freeze.freeze(None, tmp_path / "new")


def test_a_target_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    for name in ("file", "full"):
        refuse(tmp_path / name, SaveError, f"{name}: found something, expected a new or an empty folder")


def test_a_frozen_model_is_not_frozen_again(frozen, tmp_path):
    refuse(tmp_path / "new", InputError, "found a frozen model", frozen(RICH))


def test_instruction_sets_that_cannot_be_tried_here_are_refused(tmp_path, monkeypatch):
    refuse(tmp_path / "new", InputError, "isa: found 'z80'", instruction_sets=["z80"])
    monkeypatch.setattr(freeze, "usable_instruction_sets", lambda: ["baseline"])
    refuse(tmp_path / "new", InputError, "isa: found 'avx2'", instruction_sets=["avx2"])


def put_export(monkeypatch, program: str) -> None:
    """Let another program be the process that exports."""
    usual = subprocess.run

    def start(command: Any, **options: Any) -> Any:
        return usual([sys.executable, "-c", program] if command[0] == sys.executable else command, **options)

    monkeypatch.setattr(freeze.subprocess, "run", start)


def test_an_export_that_is_killed_or_fails_is_told(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        put_export(patch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        refuse(tmp_path / "new", BackendError, f"compiling for {BEST[0]} ended with -9")
    put_export(monkeypatch, "raise OSError(28, 'No space left on device')")
    refuse(tmp_path / "new", BackendError, "ended with 1: (?s:.*)No space left on device")


def test_a_linker_that_fails_is_told(tmp_path, monkeypatch):
    put_export(monkeypatch, "")
    monkeypatch.setenv("CC", "false")
    with pytest.raises((BackendError, SaveError)):
        freeze.freeze(str(GOLDENS / RICH), tmp_path / "new")
    with pytest.raises(BackendError, match="false found '', expected to link; install gcc"):
        freeze._link(["false"], tmp_path / "a.o", tmp_path / "a.so")


def test_a_compiler_may_be_named_with_arguments(monkeypatch):
    monkeypatch.setenv("CC", "sh -c 'cc \"$@\"' sh")
    assert freeze.find_linker() == ["sh", "-c", 'cc "$@"', "sh"]
    monkeypatch.setenv("CC", "")
    assert freeze.find_linker() == ["cc"]


@pytest.mark.parametrize(
    "point",
    [
        Point("make", 1, "ENOSPC", True),
        Point("write", 1, "ENOSPC", True),
        Point("make", 2, "EPERM", False),
        Point("rename", 1, "EIO", True),
    ],
    ids=str,
)
def test_a_disk_that_is_full_or_fails_leaves_nothing_behind(frozen, tmp_path, monkeypatch, point):
    """The export is what it was before: what it has written is put into its place."""

    def export(model: Path, scratch: Path, isa: str, dtype: str) -> Any:
        (scratch / f"{isa}.o").write_bytes(b"")
        shutil.copyfile(weights_of(frozen(RICH)), scratch / f"{isa}.safetensors")
        return json.loads((frozen(RICH) / MANIFEST).read_text())["variants"][0]["encoder"]

    monkeypatch.setattr(freeze, "_export_elsewhere", export)
    monkeypatch.setattr(freeze, "_link", lambda _, code, library: library.write_bytes(b"library"))
    assert freeze.freeze(str(GOLDENS / RICH), tmp_path / "whole").is_dir()
    with fault(point):
        target, error = tmp_path / "new", None
        try:
            freeze.freeze(str(GOLDENS / RICH), target)
        except SaveError as problem:
            error = str(problem)
    assert error is not None
    assert "new: cannot be written: " in error
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    refuse(tmp_path / "locked" / "new", SaveError, "cannot be written: .*Permission denied")


def test_a_folder_whose_parent_is_not_there_is_named(tmp_path):
    with pytest.raises(SaveError, match=r"new: cannot be written: .*No such file"):
        freeze.freeze(str(GOLDENS / RICH), tmp_path / "nowhere" / "new")


# ---- what is refused when a frozen model is loaded


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "bfloat16"}, "InputError", "dtype: found 'bfloat16', expected 'float32', in which"),
        ({"dtype": "float64"}, "InputError", "dtype: found 'float64', expected 'float32', in which"),
        ({"backend": "cpu"}, "InputError", "backend: found 'cpu', expected 'frozen' or nothing"),
        ({"backend": "reference"}, "InputError", "backend: found 'reference', expected 'frozen' or nothing"),
        ({"device": "cuda"}, "InputError", "backend: found 'cuda', expected 'frozen' or nothing"),
        ({"matmul_precision": "fast"}, "InputError", "matmul_precision: found 'fast'"),
        ({"num_labels": 5}, "InputError", "num_labels: found 5, the checkpoint has"),
    ],
)
def test_what_the_model_was_not_frozen_for_is_refused(frozen, elsewhere, options, error, message):
    elsewhere.refuses(frozen(RICH), error, message, **options)


def test_what_says_the_same_as_nothing_is_accepted(frozen):
    for options in ({"backend": "torch"}, {"backend": "auto"}, {"backend": "frozen"}, {"dtype": "float32"}):
        assert CrossEncoder(frozen(RICH), **options).backend == "frozen"


def test_a_frozen_model_is_not_saved(frozen, tmp_path):
    with pytest.raises(InputError, match="found a frozen model, expected one with weights as they were published"):
        CrossEncoder(frozen(RICH)).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_no_library_for_the_processor_is_an_error(spoilt, elsewhere):
    edit_manifest(spoilt, lambda values: values["variants"][0].update(isa="neon" if BEST != ["neon"] else "avx2"))
    elsewhere.refuses(spoilt, "BackendError", "found kernels for ", "expected one of", "--isa")


def test_the_instruction_set_that_is_asked_for_must_be_there(frozen, monkeypatch):
    monkeypatch.setenv("NUMBERT_ISA", "baseline")
    if BEST == ["baseline"]:
        pytest.skip("the baseline is the best that this processor runs, so that the folder has it")
    with pytest.raises(BackendError, match=f"found kernels for {BEST[0]}, expected baseline"):
        CrossEncoder(frozen(RICH))


def test_a_library_that_is_said_to_be_for_another_instruction_set_is_refused(spoilt, elsewhere):
    """Its instructions could end the process. Its symbols say what it is for, and so may the form of the weights."""
    others = usable_instruction_sets()[1:]
    if not others:
        pytest.skip("this processor runs one instruction set, so that there is no other name to give")
    for isa in others:
        edit_manifest(spoilt, lambda values, isa=isa: values["variants"][0].update(isa=isa))
        if KNOWN[isa].tile_width == KNOWN[BEST[0]].tile_width:
            elsewhere.refuses(spoilt, "BackendError", f"expected arrive of int64[1] for {isa}")
        else:
            elsewhere.refuses(spoilt, "WeightsError", "frozen weights: encoder.")


def test_a_library_without_a_kernel_is_refused(frozen, spoilt, elsewhere):
    name = str(library_of(spoilt).relative_to(spoilt))
    shutil.copyfile(library_of(frozen("tiny-reranker", "int8")), spoilt / name)
    describe_again(spoilt, name)
    elsewhere.refuses(spoilt, "BackendError", "found no kernel numbert_", f"for {BEST[0]}; freeze the model again")
    content = library_of(frozen(RICH)).read_bytes()
    symbol = symbol_of(BEST[0], "arrive", "int64[1]").encode()
    assert symbol in content
    (spoilt / name).write_bytes(content.replace(symbol, symbol[:-1] + b"_"))
    describe_again(spoilt, name)
    elsewhere.refuses(spoilt, "BackendError", "expected arrive of int64[1] for")


@pytest.mark.parametrize("cut", [0, 1, 100, -100])
def test_a_library_that_was_cut_is_refused(spoilt, elsewhere, cut):
    library = library_of(spoilt)
    library.write_bytes(library.read_bytes()[:cut])
    elsewhere.refuses(spoilt, "ConfigError", f"{library}: found ", "bytes, the manifest has")


def test_what_is_no_library_is_refused(spoilt, elsewhere):
    library = library_of(spoilt)
    library.write_bytes(b"no library")
    describe_again(spoilt, str(library.relative_to(spoilt)))
    elsewhere.refuses(spoilt, "BackendError", "found a library that cannot be loaded", "freeze the model again")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("numbert", "0.0.1", "found a model frozen by numbert '0.0.1', expected one frozen by numbert"),
        ("numbert", None, "found a model frozen by numbert None"),
        ("system", "linux-z80", "found a model frozen on 'linux-z80', expected one frozen on 'linux-"),
    ],
)
def test_another_version_and_another_machine_are_refused(spoilt, elsewhere, key, value, message):
    edit_manifest(spoilt, lambda values: values.update({key: value}))
    elsewhere.refuses(spoilt, "ConfigError", message, "freeze the model again")


def test_a_manifest_that_its_sum_does_not_fit_is_refused(spoilt, elsewhere):
    edit_manifest(spoilt, lambda values: values.update(dtype="int8"), with_sum=False)
    elsewhere.refuses(spoilt, "ConfigError", MANIFEST, "a content that its own SHA-256 does not fit")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"sha256": 1}'])
def test_what_is_no_manifest_is_refused(spoilt, elsewhere, content):
    (spoilt / MANIFEST).write_bytes(content)
    elsewhere.refuses(spoilt, "ConfigError", MANIFEST)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "weights", "kernels"])
def test_a_file_that_is_missing_is_named(spoilt, elsewhere, name):
    place = {"weights": weights_of(spoilt), "kernels": library_of(spoilt)}.get(name, spoilt / name)
    place.unlink()
    elsewhere.refuses(spoilt, "ModelNotFoundError", f"{place}: found nothing, the manifest names it")


def test_a_file_that_the_manifest_does_not_name_is_not_read(spoilt, elsewhere):
    expected = elsewhere.score(spoilt)
    (spoilt / "thesis.txt").write_text("never read")
    assert elsewhere.score(spoilt) == expected
    (spoilt / "config_sentence_transformers.json").write_text("{}")
    elsewhere.refuses(
        spoilt, "ConfigError", "config_sentence_transformers.json: found a file that the manifest does not"
    )


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/b/c", "kernels/../config.json", "", "kernels/"])
def test_names_that_lead_out_of_the_folder_are_refused(spoilt, elsewhere, name):
    edit_manifest(spoilt, lambda values: values["files"].update({name: [1, "0" * 64]}))
    elsewhere.refuses(spoilt, "ConfigError", MANIFEST, "expected names in the folder, or in one in it")


def test_a_folder_of_kernels_that_is_a_link_is_refused(spoilt, elsewhere):
    shutil.move(spoilt / "kernels", spoilt / "others")
    (spoilt / "kernels").symlink_to("others")
    elsewhere.refuses(spoilt, "ConfigError", "kernels: found a link, expected a folder of the model")


def test_a_frozen_model_of_the_hub_is_refused(frozen, tmp_path):
    snapshot = tmp_path / "models--some--one" / "snapshots" / ("1" * 40)
    shutil.copytree(GOLDENS / "narrow", snapshot)
    shutil.copyfile(frozen(RICH) / MANIFEST, snapshot / MANIFEST)
    (tmp_path / "models--some--one" / "refs").mkdir()
    (tmp_path / "models--some--one" / "refs" / "main").write_text("1" * 40)
    with pytest.raises(ConfigError, match="found a frozen model on the hub, expected one without programs"):
        CrossEncoder("some/one", cache_folder=tmp_path, local_files_only=True)


@pytest.mark.parametrize("dtype", ["float64", "high", 5])
def test_a_dtype_that_is_not_frozen_is_refused(spoilt, elsewhere, dtype):
    edit_manifest(spoilt, lambda values: values.update(dtype=dtype))
    elsewhere.refuses(spoilt, "ConfigError", MANIFEST, f"dtype: found {dtype!r}")


@pytest.mark.parametrize("place", ["config.json", "library", "weights"])
def test_what_is_read_must_be_in_the_manifest(spoilt, elsewhere, place):
    manifest = json.loads((spoilt / MANIFEST).read_text())
    name = manifest["variants"][0].get(place, place)
    edit_manifest(spoilt, lambda values: values["files"].pop(name))
    elsewhere.refuses(spoilt, "ConfigError", MANIFEST, f"files: found no {name!r}")


def test_a_max_length_without_room_for_text_is_refused(spoilt, elsewhere):
    edit_manifest(spoilt, lambda values: values.update(max_length=3))
    elsewhere.refuses(spoilt, "ConfigError", "max_length: found 3, expected more than the 3 special tokens")


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "all"])
def test_whatever_fails_while_a_frozen_model_is_loaded_scores_are_right_or_an_error_is_clear(frozen, tmp_path, every):
    scenario = Load(tmp_path / "scratch")
    scenario.folder = frozen(RICH)
    _, points = points_of(scenario)
    expected = expected_of(scenario)
    for point in points if every else {(point.seam, point.error): point for point in points}.values():
        try_point(scenario, point, expected)


# ---- packed weights that are not those of the specification


def parts_of(record: Any, path: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], Any]]:
    """Return what is within nested records, and where."""
    if not isinstance(record, tuple):
        return [(path, record)]
    return [part for number, field in enumerate(record) for part in parts_of(field, (*path, number))]


def with_part(record: Any, path: tuple[int, ...], new: Any) -> Any:
    if not path:
        return new
    fields = [with_part(field, path[1:], new) if i == path[0] else field for i, field in enumerate(record)]
    return type(record)(*fields) if hasattr(record, "_fields") else tuple(fields)


@pytest.mark.parametrize("name", NAMES)
def test_the_form_of_packed_weights_is_what_packing_makes_of_the_specification(name):
    source = EMBEDDED_FOLDER if name == "tiny-reranker" else GOLDENS / name
    for dtype in DTYPES_FROZEN:
        model = CrossEncoder(source, backend="cpu", dtype=dtype, num_threads=1)
        encoder, isa = model._scorer.runner.encoder, KNOWN[BEST[0]]
        check_form(encoder, model.spec, dtype, isa)
        for path, part in parts_of(encoder):
            array = isinstance(part, np.ndarray)
            of_array = [part[:-1], part[None], part.view(np.uint8), (part, part)] if array else []
            equal = [float(part)] if isinstance(part, int) else []  # but of another type
            for other in of_array or [-7, "seven", 0.7, (), None, *equal]:
                if other is not part:
                    with pytest.raises(WeightsError, match=r"^frozen weights: encoder"):
                        check_form(with_part(encoder, path, other), model.spec, dtype, isa)


def edit_weights(folder: Path, change: Any) -> None:
    path = weights_of(folder)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    describe_again(folder, str(path.relative_to(folder)))


CHANGES = [
    lambda array: array[:-1] if len(array) > 1 else array[None],
    lambda array: array.astype(np.float16),  # which no frozen array is
    lambda array: array[None],
    lambda array: array[:0],
    lambda array: array.astype(np.int32) if array.dtype.kind == "f" else array.astype(np.float32),
]


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(first, marks=pytest.mark.long) for first in range(1, len(CHANGES)))]
)
def test_each_array_must_be_as_the_specification_has_it(spoilt, elsewhere, first):
    kept = weights_of(spoilt).read_bytes()
    for number, name in enumerate(load_file(weights_of(spoilt)), first):

        def change(tensors: dict[str, Any], name: str = name, number: int = number) -> None:
            tensors[name] = np.ascontiguousarray(CHANGES[number % len(CHANGES)](tensors[name]))

        edit_weights(spoilt, change)
        result = elsewhere.score(spoilt)
        assert result.get("error") == "WeightsError", (name, result)
        weights_of(spoilt).write_bytes(kept)


def test_rules_that_are_not_computed_and_missing_layers_are_refused():
    model = CrossEncoder(GOLDENS / RICH, backend="cpu", num_threads=1)
    encoder, spec, isa = model._scorer.runner.encoder, model.spec, KNOWN[BEST[0]]
    pooled = encoder._replace(pooling="median", head=encoder.head._replace(pooling="median"))
    for encoder_, spec_, message in (
        (encoder._replace(layers=encoder.layers[:-1]), spec, "encoder.layers: found 'tuple', expected 'tuple of "),
        (pooled, replace(spec, pooling="median"), "pooling: found 'median', expected "),
        (encoder, replace(spec, activation="swoosh"), "activation: found 'swoosh', expected "),
    ):
        with pytest.raises(WeightsError, match=f"^frozen weights: {message}"):
            check_form(encoder_, spec_, "float32", isa)


def test_a_tokenizer_that_leaves_no_position_for_text_is_refused(frozen, tmp_path, elsewhere):
    folder = Path(shutil.copytree(frozen("tiny-reranker"), tmp_path / "short"))
    embedding = json.loads((folder / MANIFEST).read_text())["variants"][0]["encoder"]["embedding"]
    name = embedding["place"]["array"]
    edit_weights(folder, lambda tensors: tensors.update({name: tensors[name][: 2 * 3]}))

    def shorten(values: dict[str, Any]) -> None:
        values["spec"]["max_positions"] = values["variants"][0]["encoder"]["embedding"]["positions"] = 3

    edit_manifest(folder, shorten)
    elsewhere.refuses(
        folder, "ConfigError", "max_position_embeddings: found 3, expected more than the 3 special tokens"
    )


def test_tensors_that_begin_in_the_middle_of_a_number_are_refused(spoilt, elsewhere):
    path = weights_of(spoilt)
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header, data = json.loads(path.read_bytes()[8 : 8 + length]), path.read_bytes()[8 + length :]
    for entry in header.values():
        entry["data_offsets"] = [offset + 2 for offset in entry["data_offsets"]]
    header["odd"] = {"dtype": "U16", "shape": [1], "data_offsets": [0, 2]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0\0" + data)
    describe_again(spoilt, str(path.relative_to(spoilt)))
    elsewhere.refuses(spoilt, "WeightsError", "found it at byte ", "expected a multiple of its numbers' size")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values within a JSON value, itself included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, part in items for deeper in leaves(part, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def get(value: Any, path: tuple[Any, ...]) -> Any:
    return functools.reduce(lambda part, key: part[key], path, value)


ODD = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3,
    7,
    1 << 40,
    1 << 70,
    -0.5,
    1e300,
    float("nan"),
    "",
    "x",
    "mean",
    "tanh",
    [],
    {},
]
ODD += [[None], {"array": "0"}, {"array": []}, {"set": [[]]}, {"record": "Layer"}, {"record": []}, {"record": "Rotary"}]


def attack(folder: Path, elsewhere: Elsewhere, draw: Any) -> None:
    """Change some values of a manifest, to odd ones or to others of it: scores or a numbert error are what may come."""
    before = (folder / MANIFEST).read_text()
    try:
        values = json.loads(before)
        paths = [path for path in leaves(values) if path and path[0] not in ("sha256", "files")] + [("files",)]
        # Paths of the specification and of single layers are as many as those of all else
        spec = [path for path in paths if path[0] in ("spec", "max_length", "dtype")]
        for _ in range(draw(st.integers(1, 3))):
            path = draw(st.sampled_from(draw(st.sampled_from([paths, spec]))))
            odd = draw(st.sampled_from(ODD) | st.sampled_from(paths).map(lambda other: get(json.loads(before), other)))
            try:
                put(values, path, copy.deepcopy(odd))  # which may be changed in turn
            except (IndexError, KeyError, TypeError):  # what was changed before has taken its place
                continue
        (folder / MANIFEST).write_text(json.dumps({**values, "sha256": checksum(values)}))
        result = elsewhere.score(folder)
        assert ("bits" in result) != result.get("error", "").endswith("Error")
    finally:
        (folder / MANIFEST).write_text(before)


one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(one_folder, max_examples=100)
@given(data=st.data())
def test_a_hostile_manifest_with_the_right_sum_is_refused_or_harmless(spoilt, elsewhere, data):
    attack(spoilt, elsewhere, data.draw)


@pytest.mark.long
@settings(one_folder, max_examples=5000)
@given(data=st.data())
def test_many_hostile_manifests_are_refused_or_harmless(spoilt, elsewhere, data):
    attack(spoilt, elsewhere, data.draw)


@settings(one_folder, max_examples=50)
@given(data=st.data())
def test_a_flipped_bit_is_found_wherever_it_is_read(spoilt, elsewhere, data):
    files = content_of(spoilt)
    name = data.draw(st.sampled_from(sorted(files)))
    place, bit = data.draw(st.integers(0, len(files[name]) - 1)), data.draw(st.integers(0, 7))
    content = bytearray(files[name])
    content[place] ^= 1 << bit
    (spoilt / name).write_bytes(content)
    try:
        result = elsewhere.score(spoilt)
        assert result.get("error") == "ConfigError", (name, place, bit, result)
    finally:
        (spoilt / name).write_bytes(files[name])


# ---- records


def test_a_record_is_what_its_annotations_say():
    spec = CrossEncoder(GOLDENS / "modular", backend="reference").spec
    written = json.loads(json.dumps(encode(spec, str)))
    again = decode(written, kinds_of(specification), {})
    assert again == spec
    check_kinds(again, "spec")
    for path in leaves(written):
        if path and path[-1] not in ("record", "set"):
            wrong = json.loads(json.dumps(written))
            put(wrong, path, {"set": [0.5]})  # of which there is none
            with pytest.raises(RecordError):
                check_kinds(decode(wrong, kinds_of(specification), {}), "spec")
    with pytest.raises(TypeError, match=r"^no record: object$"):
        encode((1, object()), str)


SPEC = make_spec(48, 3, 97, 2, 2)
LINEAR, NORM = LinearStep("head.dense", 48, 24, bias=True), NormStep("head.norm", 48, 1e-5, bias=True)
OUTPUT = LinearStep("head.output", 48, 2, bias=True)


@pytest.mark.parametrize(
    "rules",
    [
        *({name: least - 1} for name, least in LEAST.items()),
        *({name: LARGEST_SIZE + 1} for name in LEAST),
        {"layers": ()},
        {"layers": (LayerRule(reach=(-1, 0)),)},
        {"layers": (LayerRule(reach=(0, LARGEST_SIZE + 1)),)},
        {"num_heads": 5},
        {"first_position": 64},
        {"pad_token_id": -1},
        {"pad_token_id": 97},
        {"projection": "besides"},
        {"embedding_size": 24},
        {"convolution": ConvolutionRule(4, 1, "gelu")},
        {"num_labels": 3},
        {"head": (LINEAR, OUTPUT)},
        {"head": (NORM._replace(width=24), OUTPUT)},
        {"head": (ResidualStep((LINEAR,), None), OUTPUT)},
        {"head": (ResidualStep((LINEAR,), LINEAR._replace(outputs=32)), OUTPUT)},
    ],
    ids=str,
)
def test_a_specification_that_no_model_has_is_refused(rules):
    check_spec(replace(SPEC, head=(NORM, ResidualStep((LINEAR,), LINEAR), OUTPUT._replace(inputs=24))))
    with pytest.raises(RecordError, match=r"^spec\."):
        check_spec(replace(SPEC, **rules))


def test_every_field_of_a_manifest_is_needed_and_of_its_kind(spoilt, elsewhere):
    before = (spoilt / MANIFEST).read_text()
    for name in Manifest._fields:
        for odd in (None, 0.5, "x", ["x", 5], {"x": 5}, {"x": "y"}, {"x": [1, 2]}):
            if name != "max_length" or odd is not None:
                edit_manifest(spoilt, lambda values, name=name, odd=odd: values.update({name: odd}))
                elsewhere.refuses(spoilt, "ConfigError", MANIFEST)
        (spoilt / MANIFEST).write_text(before)
        edit_manifest(spoilt, lambda values, name=name: values.pop(name))
        elsewhere.refuses(spoilt, "ConfigError", MANIFEST)
        (spoilt / MANIFEST).write_text(before)


@pytest.mark.parametrize("path", [("spec",), ("spec", "layers"), ("variants", 0, "encoder"), ("files",), ("dtype",)])
@pytest.mark.parametrize("depth", [100, 300, 600, 900])
def test_records_that_are_nested_deeply_are_refused(spoilt, elsewhere, path, depth):
    nested = functools.reduce(lambda inner, _: [inner], range(depth), 5)
    edit_manifest(spoilt, lambda values: put(values, path, nested))
    assert elsewhere.score(spoilt).get("error") in ("ConfigError", "WeightsError")


def test_the_backend_offers_the_blocks_with_their_parameters(frozen):
    ops = CrossEncoder(frozen("tiny-reranker"))._scorer.runner._ops
    for name in [name for name in vars(Blocks) if not name.startswith("_")]:
        expected = list(inspect.signature(getattr(Blocks, name)).parameters)[1:]  # without self
        assert list(inspect.signature(getattr(ops, name)).parameters) == expected, name


def test_an_array_that_is_not_contiguous_is_refused_as_no_kernel_sees_its_strides(frozen):
    kernels = CrossEncoder(frozen("tiny-reranker"))._scorer.runner._ops.KERNELS
    counters = np.zeros(4, np.int64)
    with pytest.raises(ValueError, match=r"strides \(16,\), expected one that is C-contiguous"):
        kernels.arrive(counters[::2])
    kernels.arrive(counters[:2])
    assert counters.tolist() == [1, 0, 0, 0]
