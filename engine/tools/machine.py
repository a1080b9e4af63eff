"""What a measurement should say about the machine it was made on."""

import os
import platform
from pathlib import Path


def processor_name() -> str:
    """Return the name that the processor gives itself, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def load_average() -> float | None:
    """Return how many processes wanted to compute in the last minute; None where the system does not count them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
