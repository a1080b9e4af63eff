"""Add up what is on the disk: the packages that an engine needs, and a model as it was published and frozen.

Packages are those of the environment that runs this, each with the files that its installer has listed, among them
compiled modules. Python itself is not counted. Peak memory is in startup.py. Markdown on stdout, progress on stderr.

    python benchmarks/footprint.py --model MODEL
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from common import machine_lines, model_folder, print_header, print_table, progress
from numbert.engine.tools.wheel import ROOT, find_modules

DTYPES = ("float32", "bfloat16", "int8")
NAME = re.compile(r"[\w.-]+")
# What is installed by name, without numbert itself; and whether with all that those require.
ENGINES = {
    "numbert": (["numpy", "numba", "tokenizers", "huggingface_hub"], True),
    "numbert_frozen": (["numpy", "tokenizers"], True),
    "numbert_frozen, installed with --no-deps": (["numpy", "tokenizers"], False),
    "ONNX Runtime, installed with --no-deps": (["numpy", "tokenizers", "onnxruntime"], False),
    "sentence-transformers": (["sentence-transformers"], True),
}
FLOORS = ("engine", "kernels", "loaders")
OWN = {  # it may run from a checkout: its sources, and the model that comes with it, are added to what is installed
    "numbert": [*ROOT.glob("*.py"), *(path for floor in FLOORS for path in (ROOT / floor).rglob("*"))],
    "numbert_frozen": [ROOT / module for module in find_modules()],
}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder or hub id (default: the one within numbert)")
    folder = model_folder(parser.parse_args().model)
    packages = sorted({package for names, _ in ENGINES.values() for package in names} | {"llvmlite", "torch"})
    print_header("On the disk", [*machine_lines(packages), f"model: {folder.name}"])
    rows = []
    for engine, (names, all_required) in ENGINES.items():
        try:
            packages = with_requirements(names) if all_required else names
            sizes = {package: size_of_package(package) for package in packages}
        except importlib.metadata.PackageNotFoundError as error:
            progress(f"left out: {engine}: {error.name} is not installed")
            continue
        own = size_of(OWN.get(engine.partition(",")[0], []))
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
        named = ", ".join(f"{package} {_megabytes(sizes[package])}" for package in largest)
        rows.append((engine, str(len(sizes)), _megabytes(sum(sizes.values()) + own), named))
    print_table(("engine", "packages it needs", "MB", "the largest, MB"), rows)
    print_table(("model", "MB"), [(name, _megabytes(size)) for name, size in sizes_of_models(folder).items()])


def with_requirements(names: Iterable[str]) -> list[str]:
    """Return packages and what they require, as far as it is installed."""
    found: list[str] = []
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.append(name)
        for requirement in importlib.metadata.requires(name) or ():
            required = NAME.match(requirement)
            if required and "extra ==" not in requirement and _is_installed(required[0]):
                waiting.append(required[0])
    return found


def _is_installed(package: str) -> bool:
    """Tell whether a package is there; one for other systems or versions is not."""
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def size_of_package(name: str) -> int:
    """Return the bytes of the files that an installer has listed."""
    return size_of(Path(str(path.locate())) for path in importlib.metadata.files(name) or ())


def size_of(paths: Iterable[Path]) -> int:
    """Return the bytes of all files among them."""
    return sum(path.stat().st_size for path in paths if path.is_file())


def sizes_of_models(folder: Path) -> dict[str, int]:
    """Return the bytes of a model's folder, and of what is frozen of it for this processor."""
    sizes = {"as published": size_of(folder.rglob("*"))}
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in DTYPES:
            progress(f"freezing in {dtype}")
            frozen = Path(scratch, dtype)
            command = [sys.executable, "-P", "-m", "numbert", "freeze", folder, frozen, "--dtype", dtype]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            sizes[f"frozen, {dtype}"] = size_of(frozen.rglob("*"))
    return sizes


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


if __name__ == "__main__":
    main()
