"""Freeze a model: write a folder with which it is computed where neither Numba nor LLVM is.

For each instruction set a process of its own loads the model, computes a score, so that every kernel is compiled, and
writes what it has: the machine code, and the weights as they are packed for it. This process links and describes them.
The same model and versions give the same bytes.
"""

import hashlib
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...kernels.cpu.instruction_sets import REQUIRED_FEATURES
from ...kernels.cpu.processor import is_arm
from ...loaders.checkpoint import Checkpoint, load_checkpoint
from ...loaders.files import ModelFiles
from ...loaders.frozen import CACHE_LINE, DTYPES, MANIFEST, check_files, checksum, read_manifest, this_system
from ...loaders.records import encode
from ..errors import BackendError, InputError, SaveError
from ..frozen import usable_instruction_sets

PACKAGE = __name__.partition(".")[0]
NAMES_OF_DTYPES = {dtype: name for name, dtype in DTYPES.items()}
# What a model's author wants to be read with it, beside the files that loading opens
CARDS = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt")
PAIRS = [("how many people", "Seven people."), ("a", "b c")]  # any: kernels are compiled for types, not for texts
# No start files, which would export names of their own; nothing in read-only sections is to be written when it is
# loaded (text relocations); the same bytes each time.
LINK = (
    "-shared", "-nostartfiles", "-s", "-Wl,-z,text", "-Wl,-z,now", "-Wl,-z,relro", "-Wl,-z,noexecstack",
    "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,--no-undefined",
)  # fmt: skip


def freeze(
    model: str | None, target: Path, dtype: str = "float32", instruction_sets: Sequence[str] = (), **hub_options: Any
) -> Path:
    """Write a frozen model into a new folder, which is there as a whole or not at all.

    Parameters
    ----------
    model : str or None
        As for `CrossEncoder`.
    target : Path
        A folder that is not there yet, or is empty.
    dtype : {"float32", "bfloat16", "int8"}
    instruction_sets : sequence of str
        Those that it is to run on, of those that this processor can run. Default: the best.

    Raises
    ------
    InputError
        When the model is frozen already, or an instruction set cannot be run here.
    BackendError
        When this system is not Linux, or has no C compiler that links.
    SaveError
        When the folder cannot be written.
    ModelNotFoundError, ConfigError, WeightsError, TokenizerError
        When the model cannot be loaded.
    """
    linker = find_linker()
    chosen = check_instruction_sets(instruction_sets)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SaveError(f"{target}: found something, expected a new or an empty folder; choose another name")
    with load_checkpoint(model, **hub_options) as checkpoint:
        if checkpoint.frozen is not None:
            raise InputError(
                f"{checkpoint.folder}: found a frozen model, expected the one that it was made from; name that"
            )
        try:
            with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.absolute().parent) as scratch:
                made = Path(scratch, "made")
                _write(checkpoint, made, Path(scratch), linker, dtype, chosen)
                if target.exists():
                    target.rmdir()
                made.rename(target)
        except OSError as error:
            raise SaveError(
                f"{target}: cannot be written: {error}; free some space, or choose a folder that may be written"
            ) from error
    return target


def find_linker() -> list[str]:
    """Return the command that links: a C compiler's, perhaps with arguments.

    Raises
    ------
    BackendError
        When there is none, or the system is not Linux.
    """
    if sys.platform != "linux":
        raise BackendError(f"freeze: found {sys.platform}, expected Linux; freeze the model in a container")
    linker = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(linker[0]) is None:
        raise BackendError(
            f"freeze: found no C compiler {linker[0]!r}, expected one to link with; install gcc (apt-get install gcc"
            " libc6-dev), or name another by CC"
        )
    return linker


def check_instruction_sets(names: Sequence[str]) -> list[str]:
    """Return the instruction sets that are to be frozen, the best first.

    Raises
    ------
    InputError
        When one cannot be run here, and thus not be tried.
    """
    usable = usable_instruction_sets()
    for name in names:
        if name not in usable:
            raise InputError(
                f"isa: found {name!r}, expected some of {usable}, which this processor can run; choose those"
            )
    return [name for name in usable if name in names] or usable[:1]


def _write(
    checkpoint: Checkpoint,
    made: Path,
    scratch: Path,
    linker: Sequence[str],
    dtype: str,
    instruction_sets: Sequence[str],
) -> None:
    """Write all files of a frozen model."""
    for folder in ("kernels", "weights"):
        (made / folder).mkdir(parents=True)
    _copy(checkpoint, made)
    variants: list[dict[str, Any]] = []
    shared: dict[str, str] = {}  # files of weights by what is in them
    for isa in instruction_sets:
        encoder = _export_elsewhere(checkpoint.folder, scratch, isa, dtype)
        _link(linker, scratch / f"{isa}.o", made / "kernels" / f"{isa}.so")
        weights = f"weights/{isa}.safetensors"
        shutil.move(scratch / f"{isa}.safetensors", made / weights)
        same = shared.setdefault(_sha256(made / weights), weights)
        if same != weights:
            (made / weights).unlink()
        variants.append({"isa": isa, "library": f"kernels/{isa}.so", "weights": same, "encoder": encoder})
    values = {
        "numbert": __version__,
        "system": this_system(),
        "dtype": dtype,
        "spec": encode(checkpoint.spec, _no_array),
        "max_length": checkpoint.tokenizer.max_length,
        "num_parameters": checkpoint.num_parameters,
        "stored_dtypes": list(checkpoint.stored_dtypes),
        "variants": variants,
        "files": {
            str(path.relative_to(made)): (path.stat().st_size, _sha256(path))
            for path in sorted(made.rglob("*"))
            if path.is_file()
        },
    }
    (made / MANIFEST).write_text(json.dumps({**values, "sha256": checksum(values)}, indent=1) + "\n", "utf-8")
    with ModelFiles(made) as files:
        check_files(files, read_manifest(files))


def _copy(checkpoint: Checkpoint, made: Path) -> None:
    """Copy what was opened when the model was loaded, but for its weights, and its card and licenses."""
    opened = {file.path.name for file in checkpoint.files if file.path.suffix != ".safetensors"}
    opened.discard("model.safetensors.index.json")
    for name in sorted(opened | set(CARDS)):
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, made / name)


def _link(linker: Sequence[str], code: Path, library: Path) -> None:
    done = subprocess.run([*linker, *LINK, "-o", library, code, "-lm"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(
            f"freeze: {linker[0]} found {done.stderr.strip()[-500:]!r}, expected to link; install gcc and libc6-dev"
        )
    library.chmod(0o644)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- in a process for an instruction set


def target_of(isa: str) -> tuple[str, str]:
    """Return what LLVM is to compile for: the least processor, and what the instruction set needs besides."""
    features = ",".join(f"+{feature}" for feature in sorted(REQUIRED_FEATURES.get(isa, ())))
    return ("generic" if is_arm() else "x86-64"), features


def _export_elsewhere(model: Path, scratch: Path, isa: str, dtype: str) -> Any:
    """Let a process write object file and weights; return the records of the weights."""
    cpu, features = target_of(isa)
    package_parent = str(Path(sys.modules[PACKAGE].__file__ or "").absolute().parents[1])
    environment = {
        **os.environ,
        "NUMBERT_ISA": isa, "NUMBERT_CACHE_DIR": "off", "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features,
        "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1",
    }  # fmt: skip
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import importlib;"
        f"importlib.import_module({__name__!r}).export_here(*sys.argv[2:])"
    )
    command = [sys.executable, "-c", program, package_parent, str(model), str(scratch), isa, dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(
            f"freeze: compiling for {isa} ended with {done.returncode}: {done.stderr.strip()[-800:]}; see the last line"
        )
    return json.loads((scratch / f"{isa}.json").read_text("utf-8"))


def export_here(model: str, scratch: str, isa: str, dtype: str) -> None:
    """Write the machine code and the packed weights of a model, which is computed in this process once."""
    from ...kernels.cpu import compiled  # here, because these import Numba
    from ...kernels.cpu.export import export
    from ..cross_encoder import CrossEncoder

    encoder = CrossEncoder(model, backend="cpu", dtype=dtype, num_threads=1)
    encoder.predict(PAIRS)
    counter = np.zeros(1, np.int64)  # of a team: one thread alone does not wait
    compiled.KERNELS.arrive(counter)
    compiled.KERNELS.await_arrivals(counter, 1, 1)
    code = export(compiled.KERNELS, *target_of(isa))
    arrays = _Arrays()
    records = encode(encoder._scorer.runner.encoder, arrays.name)
    place = Path(scratch)
    (place / f"{isa}.o").write_bytes(code)
    arrays.write(place / f"{isa}.safetensors")
    (place / f"{isa}.json").write_text(json.dumps(records), "utf-8")


class _Arrays:
    """The arrays of packed weights, each once, under numbers as names."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, tuple[int, ...], str], NDArray[Any]] = {}

    def name(self, array: NDArray[Any]) -> str:
        key = array.ctypes.data, array.shape, array.dtype.str  # layers may share what they have
        self._arrays.setdefault(key, array)
        return str(list(self._arrays).index(key))

    def write(self, path: Path) -> None:
        """Write a safetensors file whose tensors begin on cache lines, as long as their sizes are whole ones."""
        header: dict[str, Any] = {}
        order = sorted(enumerate(self._arrays.values()), key=lambda item: (item[1].nbytes % CACHE_LINE != 0, item[0]))
        end = 0
        for number, array in order:
            dtype = NAMES_OF_DTYPES[array.dtype.newbyteorder("<")]
            header[str(number)] = {"dtype": dtype, "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
            end += array.nbytes
        text = json.dumps(header).encode()
        text += b" " * (-(len(text) + 8) % CACHE_LINE)
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, array in order:
                file.write(np.ascontiguousarray(array).data)


def _no_array(array: NDArray[Any]) -> str:
    raise TypeError("a specification has no arrays")
