"""Write the wheel that computes frozen models: `numbert_frozen`, those modules of numbert that it takes, and no Numba.

What a module cannot be imported without stands at its head. What only published models, compiling or freezing need is
imported inside functions, and that is the rule here: imports at the heads of modules are followed, others are not. So
the list of modules is nowhere written down. Imports inside numbert are relative and work under the other name.
"""

import ast
import base64
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ... import __version__
from ..errors import SaveError

PACKAGE = "numbert_frozen"
ROOT = Path(__file__).parents[2]
ENTRANCES = ("__init__.py", "__main__.py", "engine/cross_encoder.py", "engine/tools/cli.py")
REQUIRED = ("numpy>=2.0", "tokenizers>=0.21")  # as in pyproject.toml
EPOCH = (1980, 1, 1, 0, 0, 0)  # of all files: the same sources give the same bytes
MODE = 0o100644 << 16  # a file that all may read
METADATA = f"""Metadata-Version: 2.4
Name: {PACKAGE.replace("_", "-")}
Version: {__version__}
Summary: Rank passages with cross-encoders that numbert has frozen, without Numba
License-Expression: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.11
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: numbert\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
SCRIPTS = f"[console_scripts]\n{PACKAGE.replace('_', '-')} = {PACKAGE}.__main__:main\n"


def write_wheel(folder: Path) -> Path:
    """Write the wheel into a folder, and return its place.

    Raises
    ------
    SaveError
        When it cannot be written.
    """
    about = f"{PACKAGE}-{__version__}.dist-info"
    files = {f"{PACKAGE}/{path.as_posix()}": (ROOT / path).read_bytes() for path in (*find_modules(), Path("py.typed"))}
    files[f"{about}/METADATA"] = (METADATA + "".join(f"Requires-Dist: {name}\n" for name in REQUIRED)).encode()
    files[f"{about}/WHEEL"] = WHEEL.encode()
    files[f"{about}/entry_points.txt"] = SCRIPTS.encode()
    files[f"{about}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    files[f"{about}/RECORD"] = "".join([*map(_record, files.items()), f"{about}/RECORD,,\n"]).encode()
    place = folder / f"{PACKAGE}-{__version__}-py3-none-any.whl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(place, "w") as archive:  # not compressed: the bytes would depend on the version of zlib
            for name, content in files.items():
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.external_attr, entry.create_system = MODE, 3  # Unix
                archive.writestr(entry, content)
    except OSError as error:
        raise SaveError(f"{place}: cannot be written: {error}; choose a folder that may be written") from error
    return place


def find_modules() -> list[Path]:
    """Return the files of all modules that the entrances need to be imported, from the root of the package."""
    found: set[Path] = set()
    waiting = [Path(name) for name in ENTRANCES]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported_at_head(path)
    return sorted(found)


def _imported_at_head(path: Path) -> Iterator[Path]:
    """Yield the modules that one imports when it is imported itself, and the packages that they are in."""
    for statement in ast.parse((ROOT / path).read_text("utf-8")).body:
        if isinstance(statement, ast.ImportFrom) and statement.level:
            module = path.parents[statement.level - 1].joinpath(*(statement.module or "").split("."))
            for place in (module, *(module / alias.name for alias in statement.names)):  # names may be modules
                if (ROOT / place).with_suffix(".py").is_file():
                    yield place.with_suffix(".py")
                yield from (parent / "__init__.py" for parent in (place, *place.parents) if _is_package(parent))


def _is_package(folder: Path) -> bool:
    return (ROOT / folder / "__init__.py").is_file()


def _record(file: tuple[str, bytes]) -> str:
    """Return a file's line in the list that installers check."""
    name, content = file
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"
