"""ARM: which instruction set is chosen, on any machine; and what its inner loops are and compute, on an ARM.

`.ci/run arm64` runs the second half on emulated processors.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

pytest.importorskip("numba", reason="the CPU kernels need Numba")
from numbert.kernels.cpu import isa, linear, processor
from numbert.kernels.cpu.isa import ISA
from numbert.kernels.cpu.packed import Operand
from numbert.kernels.cpu.packing import pack_linear
from numbert.kernels.cpu.panels import round_up
from numbert.kernels.parameters import Linear

on_arm = pytest.mark.skipif(not processor.is_arm(), reason="needs an ARM: .ci/run arm64")
MATRICES = ["neon", "dotprod", "i8mm", "bf16"]


@pytest.fixture
def arm(monkeypatch):
    """A function that makes this processor an ARM with some features, of which LLVM knows some others."""
    monkeypatch.delenv("NUMBERT_ISA", raising=False)
    monkeypatch.setattr(processor, "is_arm", lambda: True)
    monkeypatch.setattr(isa.llvm, "get_host_cpu_name", lambda: "generic")

    def be(features, of_llvm=(), name=None, changes=None):
        monkeypatch.setattr(processor, "features", lambda: frozenset(features))
        monkeypatch.setattr(isa.llvm, "get_host_cpu_features", lambda: dict.fromkeys(of_llvm, True))
        monkeypatch.setattr(isa.config, "CPU_NAME", name)
        monkeypatch.setattr(isa.config, "CPU_FEATURES", changes)

    return be


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        (["neon"], "neon"),
        (["neon", "dotprod"], "neon-dotprod"),
        (["neon", "dotprod", "i8mm"], "neon-dotprod"),
        (["neon", "dotprod", "bf16"], "neon-dotprod"),
        (MATRICES, "neon-mmla"),
    ],
)
@pytest.mark.parametrize("of_llvm", [[], ["neon", "crc"]])
def test_the_best_instruction_set_is_chosen_whatever_llvm_knows(arm, features, chosen, of_llvm):
    arm(features, of_llvm)
    assert isa.detect().name == chosen
    assert isa.find_problem() is None


@pytest.mark.parametrize("changes", [None, ""])
@pytest.mark.parametrize(
    ("name", "chosen"),
    [("generic", "neon"), ("cortex-a72", "neon"), ("neoverse-n1", "neon-dotprod"), ("neoverse-v1", "neon-mmla")],
)
def test_a_processor_that_is_named_has_neon_and_what_is_known_of_it(arm, name, chosen, changes):
    arm(MATRICES, name=name, changes=changes)
    assert isa.detect().name == chosen
    assert isa.find_problem() is None


def test_a_name_of_which_nothing_is_known_has_neon(arm):
    arm(MATRICES, name="exynos-m5")
    assert isa.detect().name == "neon"


def test_code_for_more_than_this_processor_has_is_not_run(arm):
    arm(["neon"], name="neoverse-v1", changes="")
    assert "it lacks bf16, dotprod, i8mm" in isa.find_problem()


def test_a_lower_instruction_set_can_be_forced(arm, monkeypatch):
    arm(MATRICES)
    for name in ("neon-dotprod", "neon"):
        monkeypatch.setenv("NUMBERT_ISA", name)
        assert isa.detect().name == name
    arm(["neon"])
    monkeypatch.setenv("NUMBERT_ISA", "neon-dotprod")
    with pytest.raises(ValueError, match="NUMBERT_ISA: found 'neon-dotprod', expected one of"):
        isa.detect()


# ---- on an ARM


UNKNOWN = """
import llvmlite.binding as llvm
llvm.get_host_cpu_name, llvm.get_host_cpu_features = lambda: "generic", llvm.FeatureMap
"""
COUNT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import arm
print(json.dumps(arm.inner_loops()))
"""


@pytest.fixture(scope="module", params=["", UNKNOWN], ids=["known to LLVM", "unknown to LLVM"])
def loops(request):
    """The inner loop of the tile in each precision, as instructions and how many there are of each."""
    result = subprocess.run(
        [sys.executable, "-c", request.param + COUNT, str(ROOT / "benchmarks")],
        capture_output=True, text=True, check=False, env=os.environ | {"NUMBERT_CACHE_DIR": "off"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# What multiplies in a round of the loop: 16 registers of sums, for 4 words of A by a lane, for 2 as matrices.
PRODUCTS = {
    "neon": {"float32": ("fmla", 64), "bfloat16": ("fmla", 64), "int8": ("mla", 64)},
    "neon-dotprod": {"float32": ("fmla", 64), "bfloat16": ("fmla", 64), "int8": ("sdot", 64)},
    "neon-mmla": {"float32": ("fmla", 64), "bfloat16": ("bfmmla", 16), "int8": ("smmla", 16)},
}


@on_arm
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_inner_loop_multiplies_in_registers(loops, precision):
    product, count = PRODUCTS[ISA.name][precision]
    instructions = loops[precision]["instructions"]
    assert instructions[product] == count
    assert "dup" not in instructions  # a lane is a factor as it stands
    assert loops[precision]["stack"] == 0
    # Reads of A and B, splitting B, halves put together, counting: as many again as of the products for short rounds.
    assert sum(instructions.values()) < count * 1.5 + 16


def to_odd(large: np.ndarray, small: np.ndarray) -> np.ndarray:
    """Round large + small, float64, to a float32 that is odd unless it is exact."""
    near = large.astype(np.float32)
    rest = (large - near) + small
    below = np.where(np.sign(rest) == -np.sign(near), np.nextafter(near, np.float32(0)), near)
    return np.where(rest == 0, near, (below.view(np.uint32) | 1).view(np.float32))


def add_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Add two float64 and round to odd; the rounding of the sum itself is found by Knuth's two-sum."""
    total = a + b
    of_b = total - a
    return to_odd(total, (a - (total - of_b)) + (b - of_b))


@on_arm
@pytest.mark.skipif(ISA.bfloat16 != "matrix", reason="this processor has no BFMMLA")
def test_bfmmla_rounds_sums_of_pairs_to_odd(rng):
    """The same bits as its definition: each pair of products is summed and rounded to odd, and so is each sum of those.

    Source: Arm Architecture Reference Manual, BFMMLA and BFDotAdd, with FPCR.EBF = 0, in which programs start.
    """
    rows, inputs, outputs = 13, 312, 40
    x, weight = (rng.standard_normal(size).astype(np.float32) for size in ((rows, inputs), (outputs, inputs)))
    x, weight = ((side.view(np.uint32) & 0xFFFF0000).view(np.float32) for side in (x, weight))  # are bfloat16 already
    layer = Linear(weight, rng.standard_normal(outputs).astype(np.float32))
    out = np.zeros((rows, round_up(outputs)), np.float32)
    operand = Operand(np.zeros((linear.ROW_BLOCK, inputs), np.int32), np.zeros(linear.ROW_BLOCK, np.float32))
    linear.linear_rows(x, 0, rows, pack_linear(layer, "bfloat16"), operand, out)
    sums = np.tile(layer.bias, (rows, 1))
    for k in range(0, inputs, 2):
        products = [x[:, None, i].astype(np.float64) * weight[:, i] for i in (k, k + 1)]
        sums = add_to_odd(sums.astype(np.float64), add_to_odd(*products).astype(np.float64))
    assert (out[:, :outputs] == sums).all()
