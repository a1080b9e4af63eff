"""What the operating system tells of the processor: each system's answer handed to the detection as it would come."""

import platform
import sys

import pytest
from numbert.kernels.cpu import processor

EPYC = """\
processor\t: 0
model name\t: AMD EPYC
flags\t\t: fpu sse2 fma avx avx2 avx512f avx512dq avx512bw avx512vl avx_vnni avx512_bf16 avx512_vnni fsrm

processor\t: 1
flags\t\t: fpu sse2
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EPYC, "fma avx2 avx512f avx512dq avx512bw avx512vl avxvnni avx512bf16 avx512vnni"),
        ("flags\t\t: avx2 fma amx_bf16 avx512_fp16 amx_tile amx_int8", "avx2 fma amx-bf16 amx-tile amx-int8"),
        ("flags\t\t:", ""),
        ("", ""),
        ("Features\t: fp asimd asimddp", ""),  # of an ARM
    ],
)
def test_flags_of_cpuinfo(text, expected):
    assert processor.from_cpuinfo(text) == set(expected.split())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0x8FB, 0, "neon"),  # Cortex-A53 (Raspberry Pi 3)
        (0x119FFF, 0, "neon dotprod"),  # Neoverse N1 (Graviton 2)
        (0x119FFF, 0x6000, "neon dotprod i8mm bf16"),
        (0, 1 << 13, "neon i8mm"),
        (0, 1 << 14, "neon bf16"),
        (1 << 13 | 1 << 14, 1 << 20, "neon"),  # the same bits in the other word mean something else
    ],
)
def test_bits_of_hwcap(first, second, expected):
    assert processor.from_hwcap(first, second) == set(expected.split())


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, "neon"),  # before macOS 12 the names are unknown
        ({"hw.optional.arm.FEAT_DotProd": 1, "hw.optional.arm.FEAT_BF16": 0}, "neon dotprod"),  # M1
        (dict.fromkeys(processor.OF_SYSCTL, 1), "neon dotprod i8mm bf16"),  # M2
    ],
)
def test_answers_of_sysctl(answers, expected):
    assert processor.from_sysctl(lambda name: answers.get(name, 0)) == set(expected.split())


@pytest.mark.parametrize(
    ("machine", "system", "expected"),
    [
        ("aarch64", "linux", "neon dotprod bf16"),
        ("arm64", "darwin", "neon i8mm"),
        ("ARM64", "win32", "neon"),
        ("x86_64", "linux", "avx2"),
    ],
)
def test_each_system_is_asked_in_its_own_way(monkeypatch, tmp_path, machine, system, expected):
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx2\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor, "_read_auxiliary", {16: 1 << 20, 26: 1 << 14}.get)
    monkeypatch.setattr(processor, "_read_sysctl", lambda name: int(name == "hw.optional.arm.FEAT_I8MM"))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", system)
    assert processor.features() == set(expected.split())


def test_without_cpuinfo_nothing_is_known_of_an_x86(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    assert processor.features() == frozenset()


def test_a_32_bit_program_on_a_64_bit_arm_is_not_taken_for_one_of_64(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert processor.is_arm()
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert not processor.is_arm()


@pytest.mark.skipif(sys.platform != "linux", reason="LLVM and the system are both asked on Linux only")
def test_here_it_is_what_llvm_knows_of_the_processor():
    llvm = pytest.importorskip("llvmlite.binding", reason="LLVM comes with Numba")
    of_llvm = {name for name, present in llvm.get_host_cpu_features().items() if present}
    if processor.is_arm():  # of which LLVM knows less, and nothing where an emulator shows another /proc/cpuinfo
        assert of_llvm & {"neon", "dotprod", "i8mm", "bf16"} <= processor.features()
    else:
        assert processor.features() == of_llvm & set(processor.OF_CPUINFO.values())
