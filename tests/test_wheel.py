"""The wheel holds every module and the embedded model, and nothing else."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

pytest.importorskip("setuptools", minversion="77", reason="builds a wheel with it")

LEFT_OUT = shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", "build", "dist", ".venv", ".*_cache", "goldens")


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> set[str]:
    """The files in a wheel built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", ".", "./source"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")  # no compiled extension
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_module_is_in_the_wheel(names):
    folders = ("engine", "kernels", "loaders")
    modules = {path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")}
    modules |= {path.relative_to(ROOT) for path in ROOT.glob("*.py")}
    assert {f"numbert/{module.as_posix()}" for module in modules} == {name for name in names if name.endswith(".py")}


def test_the_embedded_model_travels_with_its_card_and_license(names):
    model = "numbert/loaders/embedded/tiny-reranker/"
    files = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "LICENSE"}
    assert {model + file for file in files} == {name for name in names if name.startswith(model)}


def test_nothing_else_is_in_the_wheel(names):
    others = [
        name for name in names if not name.endswith(".py") and "/embedded/" not in name and ".dist-info/" not in name
    ]
    assert set(others) == {"numbert/LICENSE", "numbert/py.typed"}
