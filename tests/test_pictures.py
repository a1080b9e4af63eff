"""The pictures of docs/kernels.md are what docs/pictures/draw.py draws of the code as it is."""

import os
import platform
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from conftest import ROOT

FOLDER = ROOT / "docs" / "pictures"
ON_X86 = platform.machine() in ("x86_64", "AMD64")
NAMES = ["panels.svg", "batch.svg", "multiply-add.svg"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All pictures, drawn anew: with the facts of AVX-512, whatever this processor has."""
    folder = tmp_path_factory.mktemp("pictures")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    subprocess.run([sys.executable, str(FOLDER / "draw.py"), str(folder)], env=environment, check=True)
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["panels.svg", "batch.svg"])
def test_pictures_of_arrays_are_what_the_script_draws(drawn, name):
    assert drawn[name] == (FOLDER / name).read_text("utf-8"), "run docs/pictures/draw.py"


@pytest.mark.skipif(not ON_X86, reason="Numba compiles for the kind of processor that it runs on")
def test_the_picture_of_machine_code_is_what_the_script_draws(drawn):
    new, committed = drawn["multiply-add.svg"], (FOLDER / "multiply-add.svg").read_text("utf-8")
    versions = re.compile(r"Python [\d.]+, Numba [\d.]+\w*, LLVM [\d.]+")
    if versions.search(new)[0] != versions.search(committed)[0]:
        pytest.skip(f"it shows what {versions.search(committed)[0]} make of the kernel")
    # LLVM numbers its values, and hoists what surrounds the loop, in an order that it does not promise.
    assert anonymous(new) == anonymous(committed), "run docs/pictures/draw.py"


def anonymous(picture: str) -> str:
    return re.sub(r"%[\w.]+|\.LBB\w+|\.\.\. \d+ more", "%", picture)


@pytest.mark.skipif(not ON_X86, reason="Numba compiles for the kind of processor that it runs on")
def test_the_loop_of_the_tile_is_multiply_adds_of_whole_registers(drawn):
    code = drawn["multiply-add.svg"]
    assert "call &lt;16 x float&gt; @llvm.fma.v16f32" in code
    assert re.search(r"vfmadd\w+ +%zmm\d+, %zmm\d+, %zmm\d+", code)
    assert "96 of them multiply-adds" in code  # four steps of 12 rows and two vectors


@pytest.mark.parametrize("name", NAMES)
def test_pictures_can_be_read_by_screen_readers_and_on_dark_pages(name):
    picture = ElementTree.parse(FOLDER / name).getroot()
    title, description, background = (picture.find(f"{{*}}{tag}") for tag in ("title", "desc", "rect"))
    assert title.text
    assert description.text
    assert [background.get(key) for key in ("x", "y", "width", "height", "fill")] == [
        "0", "0", picture.get("width"), picture.get("height"), "#ffffff"
    ]  # fmt: skip
    assert all(int(text.get("font-size")) >= 12 for text in picture.iter("{*}text"))
