"""What a measurement says about its machine."""

import platform

import pytest
from numbert.engine.tools import machine

ARM_CORE = "processor\t: {}\nFeatures\t: fp asimd\nCPU implementer\t: {}\nCPU part\t: {}\nCPU revision\t: 3\n\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC 9554: 64 cores\n\nmodel name\t: other\n", "AMD EPYC 9554: 64 cores"),
        (ARM_CORE.format(0, "0x41", "0xd08") + ARM_CORE.format(1, "0x41", "0xd08"), "Cortex-A72"),
        (ARM_CORE.format(0, "0x41", "0xd05") + ARM_CORE.format(1, "0x41", "0xd0b"), "Cortex-A55, Cortex-A76"),
        (ARM_CORE.format(0, "0x61", "0xd0c"), "ARM, part 0xd0c of implementer 0x61"),
        (ARM_CORE.format(0, "0x41", "0xfff"), "ARM, part 0xfff of implementer 0x41"),
        ("Features\t: fp\n", "from the platform"),
    ],
)
def test_the_processor_has_a_name(monkeypatch, tmp_path, cpuinfo, name):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "from the platform")
    assert machine.processor_name() == name


def test_where_nothing_is_told_it_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert machine.processor_name() == "unknown"
