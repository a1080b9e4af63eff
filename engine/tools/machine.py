"""What a measurement should say about the machine it was made on."""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# An ARM has a number in the place of a name; these are of Arm Limited. Source: Linux, arch/arm64/include/asm/cputype.h
ARM_LIMITED = "0x41"
ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse N1",
    "0xd40": "Neoverse V1",
    "0xd41": "Cortex-A78",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd49": "Neoverse N2",
    "0xd4f": "Neoverse V2",
}


def processor_name() -> str:
    """Return the name that the processor gives itself, as far as the system tells it; several, if its cores differ."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    fields = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    names = [value for key, value in fields if key == "model name"]
    if names:
        return names[0]
    makers, parts = ([value for key, value in fields if key == wanted] for wanted in ("CPU implementer", "CPU part"))
    cores = dict.fromkeys(map(_core_name, makers, parts))  # each once, in their order
    return ", ".join(cores) or platform.processor() or "unknown"


def _core_name(maker: str, part: str) -> str:
    name = ARM_CORES.get(part) if maker == ARM_LIMITED else None
    return name or f"ARM, part {part} of implementer {maker}"


def load_average() -> float | None:
    """Return how many processes wanted to compute in the last minute; None where the system does not count them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
