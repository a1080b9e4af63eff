"""The kernels for AMX, on any x86-64 machine: run with emulated instructions, and compiled to look at the real ones."""

import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="the CPU kernels need Numba")
from numbert.kernels.cpu import isa, permission

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AMX is of x86-64 processors")

COMPILE = """
import json, sys
import numpy as np
from numba import typeof
from numbert.kernels.cpu import linear, packed, packing
from numbert.kernels.parameters import Linear

operand = packed.Operand(np.zeros((96, 200), np.int32), np.zeros(96, np.float32))
rows, out = np.zeros((96, 96), np.float32), np.zeros((96, 64), np.float32)
assemblies = {}
for precision in sys.argv[1:]:
    layer = packing.pack_linear(Linear(np.ones((64, 96), np.float32), np.zeros(64, np.float32)), precision)
    signature = tuple(typeof(value) for value in (rows, 0, 96, layer, operand, out))
    linear.linear_rows.compile(signature)
    assemblies[precision] = linear.linear_rows.inspect_asm(signature)
print(json.dumps(assemblies))
"""


def run(*command: str, **environment: str) -> str:
    """Run Python with tests/ on its path; its output must be a success's."""
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=HERE.parent, check=False,
        env={**os.environ, "PYTHONPATH": paths, "NUMBERT_CACHE_DIR": "off", **environment},
    )  # fmt: skip
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return result.stdout


@pytest.mark.skipif(
    not isa.REQUIRED_FEATURES["avx512-bf16"] <= isa.target_features(), reason="the rest of the code needs AVX512-BF16"
)
def test_kernels_with_emulated_instructions():
    # What computes in float32 has no such instruction, and is the same machine code as with AVX512-BF16.
    precisions = "bfloat16 or high or int8"
    output = run(
        "-m", "pytest", "-q", "-p", "amx_emulation", "tests/test_cpu_kernels.py", "-k", precisions, NUMBERT_ISA="amx"
    )
    assert " passed" in output
    assert "failed" not in output


PRODUCTS = {"bfloat16": "tdpbf16ps", "high": "tdpbf16ps", "int8": "tdpbusd"}


@pytest.fixture(scope="module")
def assemblies():
    """The machine code of a linear layer in each precision."""
    processor = {"NUMBERT_ISA": "amx", "NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": ""}
    return json.loads(run("-c", COMPILE, *PRODUCTS, **processor))


@pytest.mark.parametrize(("precision", "product"), PRODUCTS.items())
def test_compiled_code_multiplies_with_amx(assemblies, precision, product):
    assembly = assemblies[precision]
    count = Counter(re.findall(r"^\t(ldtilecfg|tilerelease|tdpbf16ps|tdpbusd|vdpbf16ps|vpdpbusd)\b", assembly, re.M))
    assert count[product] >= 6  # tiles of 32 rows and of 16
    assert count["ldtilecfg"] >= 1
    assert count["tilerelease"] >= 1
    assert set(count) == {product, "ldtilecfg", "tilerelease"}  # and by nothing else
    loop = max(re.split(r"^\.L\w+:", assembly, flags=re.M), key=lambda block: block.count(product))
    assert "tilestored" not in loop  # the sums stay in their registers
    assert len(re.findall(r"\ttileloadd\b", loop)) == len(re.findall(rf"\t{product}\b", loop))  # 4 and 4 a step


def test_amx_is_asked_for_and_a_refusal_is_no_error():
    # On a machine without AMX the system refuses; with AMX, asking twice is granted twice.
    assert permission.request_amx() is permission.request_amx()


@pytest.fixture
def processor(monkeypatch):
    """A function that sets the features of this processor, whether AMX is granted, and Numba's settings."""
    monkeypatch.delenv("NUMBERT_ISA", raising=False)

    def be(features, granted, name=None, changes=None):
        monkeypatch.setattr(isa.llvm, "get_host_cpu_features", lambda: dict.fromkeys(features, True))
        monkeypatch.setattr(permission, "request_amx", lambda: granted)
        monkeypatch.setattr(isa.config, "CPU_NAME", name)
        monkeypatch.setattr(isa.config, "CPU_FEATURES", changes)

    return be


AMX, AVX512 = isa.REQUIRED_FEATURES["amx"], isa.REQUIRED_FEATURES["avx512-bf16"]


@pytest.mark.parametrize("name", [None, "host", "sapphirerapids"])
def test_without_permission_the_next_instruction_set_is_chosen(processor, monkeypatch, name):
    processor(AMX, granted=True, name=name)
    assert isa.detect().name == "amx"
    processor(AMX, granted=False, name=name)
    assert isa.detect().name == "avx512-bf16"
    assert isa.find_problem() is None
    monkeypatch.setenv("NUMBERT_ISA", "amx")
    with pytest.raises(ValueError, match="NUMBERT_ISA: found 'amx', expected one of"):
        isa.detect()


@pytest.mark.parametrize(
    ("name", "changes"), [("sapphirerapids", ""), ("sapphirerapids", "+amx-tile"), (None, "+amx-tile"), ("host", "+x")]
)
def test_code_for_a_better_processor_is_compiled_and_not_run(processor, name, changes):
    processor(AMX, granted=True, name=name, changes=changes)
    problem = isa.find_problem()
    assert problem is None or changes == "+x"
    for features, granted in ((AVX512, True), (AMX, False)):  # the processor lacks it, or its system refuses it
        processor(features, granted=granted, name=name, changes=changes)
        assert f"NUMBA_CPU_NAME, NUMBA_CPU_FEATURES: found {name!r}, {changes!r}" in isa.find_problem()
        assert changes.lstrip("+") in isa.find_problem()


@pytest.mark.parametrize("name", ["znver4", "icelake-server"])
@pytest.mark.parametrize("changes", ["", "-avx512f"])
def test_a_processor_of_which_nothing_is_known_is_refused_unless_features_are_those_of_this_one(
    processor, monkeypatch, name, changes
):
    # With features given, Numba compiles for all that LLVM knows of the name.
    monkeypatch.setattr(isa.llvm, "get_host_cpu_name", lambda: "skylake-avx512")
    processor(AVX512, granted=True, name=name, changes=changes)
    assert f"NUMBA_CPU_NAME: found {name!r} with NUMBA_CPU_FEATURES={changes!r}, expected one" in isa.find_problem()
    processor(AVX512, granted=True, name=name, changes=None)
    assert isa.find_problem() is None
    monkeypatch.setattr(isa.llvm, "get_host_cpu_name", lambda: name)
    processor(AVX512, granted=True, name=name, changes=changes)
    assert isa.find_problem() is None


@pytest.mark.parametrize("name", [None, "host", "generic", "x86-64", "x86-64-v3"])
def test_a_processor_that_is_known_may_have_features_given(processor, name):
    processor(AVX512, granted=True, name=name, changes="")
    assert isa.find_problem() is None


def test_features_that_are_taken_away_are_not_used(processor):
    processor(AMX, granted=True, name=None, changes="-amx-int8,-avx512bf16")
    assert isa.detect().name == "avx512-vnni"
    assert isa.find_problem() is None
