"""The wheel of frozen models, installed where there is no Numba."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from conftest import ROOT
from numbert import SaveError
from numbert.engine.tools.freeze import freeze
from numbert.engine.tools.wheel import PACKAGE, REQUIRED, write_wheel

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="freezing takes Linux and a C compiler"
)
EXAMPLE = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)[1]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    """The embedded model, frozen."""
    return freeze(None, tmp_path_factory.mktemp("frozen") / "model")


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Python in an environment with NumPy, tokenizers and the wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for package in (np, tokenizers):
        place = Path(package.__file__).parent
        for each in (place, place.with_suffix(".libs")):  # with its shared libraries
            if each.exists():
                (site / each.name).symlink_to(each)
    python = folder / "bin" / "python"
    wheel = write_wheel(tmp_path_factory.mktemp("wheel"))
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return python


def run(*command: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, env=environment)


def run_python(python: Path, code: str) -> str:
    done = run(python, "-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readmes_ranking_has_the_bits_of_the_cpu_backend(python, frozen):
    code = EXAMPLE.replace("numbert", PACKAGE).replace("CrossEncoder()", f"CrossEncoder({str(frozen)!r})")
    assert code.count(PACKAGE) >= 1
    assert code.count(str(frozen)) == 1
    found = run_python(python, f"{code}\nprint(scores.tobytes().hex())").splitlines()[-1]
    expected: dict = {}
    exec(EXAMPLE, expected)  # this process has Numba
    assert found == expected["scores"].tobytes().hex()


def test_nothing_that_a_first_score_does_not_need_is_imported(python, frozen):
    code = f"import sys, {PACKAGE}; {PACKAGE}.CrossEncoder({str(frozen)!r}).predict(('a', 'b')); print(*sys.modules)"
    needless = {"numba", "llvmlite", "huggingface_hub", "numbert", "asyncio", "ssl", "tempfile", "shutil", "subprocess"}
    assert not needless & set(run_python(python, code).split())


def test_every_module_of_the_wheel_can_be_imported(python):
    code = f"""
import importlib, pkgutil, {PACKAGE}
names = [module.name for module in pkgutil.walk_packages({PACKAGE}.__path__, "{PACKAGE}.")]
for name in names:
    importlib.import_module(name)
print(*names)
"""
    names = run_python(python, code).split()
    assert f"{PACKAGE}.kernels.cpu.frozen" in names
    assert not {f"{PACKAGE}.{name}" for name in ("loaders.bert", "kernels.cpu.jit", "kernels.reference")} & set(names)


def test_the_command_line_ranks(python, frozen, tmp_path):
    passages = tmp_path / "passages.txt"
    passages.write_text("Rain.\nSeven people.\n")
    command = python.with_name("numbert-frozen")
    done = run(command, "rank", "how many people", passages, "--model", frozen, "--format", "jsonl")
    assert done.stderr == ""
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["Seven people.", "Rain."]
    commands = re.search(r"COMMAND$(.*?)^$", run(command, "--help").stdout, re.DOTALL | re.MULTILINE)[1]
    assert re.findall(r"^    (\w+)", commands, re.MULTILINE) == ["rank", "score", "info", "warmup", "bench"]


@pytest.mark.parametrize("model", ["", "cross-encoder/ms-marco-MiniLM-L6-v2", "loaders/embedded/tiny-reranker"])
def test_other_models_are_refused_before_anything_is_asked_for(python, model):
    model = str(ROOT / model) if model.startswith("loaders") else model
    done = run(python, "-m", PACKAGE, "info", *filter(None, [model]))
    assert done.returncode == 1
    assert re.search(rf"found '{model or None}', expected the folder of a frozen model", done.stderr)


def test_progress_is_shown_without_the_hubs_bar(python, frozen):
    load = f"from {PACKAGE} import CrossEncoder; model = CrossEncoder({str(frozen)!r})"
    run_python(python, f"{load}; model.predict([('a', 'b')], show_progress_bar=True)")


def test_it_stands_beside_numbert(python, frozen):
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    code = f"import sys; sys.path.append({str(site)!r}); import numbert, {PACKAGE} as other"
    code += f"\nmodels = [each.CrossEncoder({str(frozen)!r}) for each in (numbert, other)]"
    code += "\na, b = (model.predict(('a', 'b')) for model in models)"
    code += "\nprint(a == b, type(models[0]) is type(models[1]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT.parent)
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_its_bytes_are_the_same_at_any_time(tmp_path, monkeypatch):
    first = write_wheel(tmp_path / "first").read_bytes()
    later = time.time() + 1e8
    monkeypatch.setattr(time, "time", lambda: later)
    assert write_wheel(tmp_path / "second").read_bytes() == first


def test_it_requires_what_numbert_requires_of_the_same_packages(tmp_path):
    wheel = zipfile.ZipFile(write_wheel(tmp_path))
    (metadata,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("METADATA"))
    assert re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE) == list(REQUIRED)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) - set(REQUIRED) == {"numba>=0.65", "huggingface_hub>=0.27"}
    assert f"Requires-Python: {project['requires-python']}\n" in metadata


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"numbert_frozen-.*\.whl: cannot be written: .*; choose a folder"):
        write_wheel(tmp_path / "file")
