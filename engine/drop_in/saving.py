"""Write a model's folder again, so that numbert and sentence-transformers load the same model from it."""

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...loaders.checkpoint import Checkpoint
from ...loaders.files import ModelFiles, State
from ...loaders.modules import CONFIG, MODULES, SENTENCE_TRANSFORMERS, SETTINGS, WEIGHTS, Chain
from ...loaders.spec import Config
from ...loaders.tensors import INDEX, weight_files
from ...loaders.tokenizer import LARGEST_FILE
from ..errors import SaveError
from ..inputs import show

COPIED = ("README.md", "LICENSE", "tokenizer.json", "vocab.txt", "special_tokens_map.json", "vocab.json", "merges.txt")
READ_BEFORE_OTHERS = ("model.safetensors", INDEX, "tokenizer.json", "vocab.txt", "merges.txt")
# What sentence-transformers builds of a folder with transformers' own head: one module.
TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
TORCH_PATHS = {
    "identity": "torch.nn.modules.linear.Identity",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "tanh": "torch.nn.modules.activation.Tanh",
    "softmax": "torch.nn.modules.activation.Softmax",
}


class Loaded(NamedTuple):
    """What is kept of a model's folder from loading to saving."""

    files: dict[str, State]  # those that are copied, and what tells whether one has been replaced
    config: Mapping[str, Any]  # of config.json
    tokenizer_config: Mapping[str, Any]
    chain: Chain


def remember(checkpoint: Checkpoint) -> Loaded:
    """Return what `save_folder` must know of a folder while it is loaded."""
    opened, chain = checkpoint.files, checkpoint.chain
    tokenizer_config = Config.read_if_there(opened, "tokenizer_config.json").values
    return Loaded(list_files(opened, chain), checkpoint.config, tokenizer_config, chain)


def list_files(opened: ModelFiles, chain: Chain) -> dict[str, State]:
    """Return the state of each file of weights and vocabulary, and of the modules, by name."""
    weights = weight_files(opened)
    index = [] if weights == ["model.safetensors"] else [INDEX]
    found = {name: opened.stat(name) for name in (*COPIED, *weights, *index, *_files_of_modules(chain))}
    return {
        name: State.of(status) for name, status in found.items() if status is not None and stat.S_ISREG(status.st_mode)
    }


def _files_of_modules(chain: Chain) -> list[str]:
    """Name all that the folders of modules may hold."""
    return [f"{module.folder}/{name}" for module in chain.behind for name in (CONFIG, WEIGHTS)]


def save_folder(source: Path, loaded: Loaded, target: Path, settings: Mapping[str, Any], max_length: int) -> None:
    """Copy the files of a model and write down what was set since it was loaded.

    All files are written beside their places before the first is put there, so that a full disk leaves no half file,
    and what was there before is put back when one cannot be placed.

    Parameters
    ----------
    source, target : Path
        Folders; they may be the same.
    loaded : Loaded
        What `remember` returned for the source when the model was loaded.
    settings : mapping
        For config_sentence_transformers.json: "activation_fn", "prompts", "default_prompt_name".
    max_length : int
        For tokenizer_config.json.

    Raises
    ------
    SaveError
        When the target cannot be written, or the files of the source are not those that were loaded, or one is a link
        to a file elsewhere.
    ModelNotFoundError, ConfigError, WeightsError
        When files of the source are damaged or missing.
    """
    _check_same(source, loaded)
    _follow(source, "tokenizer_config.json")  # of which the content is written again
    texts = _settings_files(source, loaded, settings, max_length)
    try:
        _save(source, loaded, target, texts)
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(
            f"{error.filename or target!s:.500}: cannot save the model: found {error.strerror or error}, expected a"
            " folder that can be written; give another place"
        ) from error
    except ValueError as error:  # a NUL, or a character that names of files cannot have here
        raise SaveError(f"path: found {show(str(target))}, expected a folder's name ({error}); give another") from None


def _check_same(source: Path, loaded: Loaded) -> None:
    with ModelFiles(source) as opened:
        if list_files(opened, loaded.chain) != loaded.files:
            raise SaveError(
                f"{source}: found other files than those that were loaded, expected the same; load it again"
            )


def _settings_files(source: Path, loaded: Loaded, settings: Mapping[str, Any], max_length: int) -> dict[str, bytes]:
    """Return the contents of the files that say how a model is used, by name."""
    own = {name: value for name, value in loaded.config.items() if name != "sbert_ce_default_activation_function"}
    chain, task = loaded.chain, loaded.chain.task
    written = {
        "tokenizer_config.json": {**loaded.tokenizer_config, "model_max_length": max_length},
        "config.json": {**own, "sentence_transformers": {"activation_fn": settings["activation_fn"]}},
        MODULES: chain.listed if chain.behind else [TRANSFORMER],
        SETTINGS: {
            "transformer_task": task.name,
            "modality_config": task.modality_config,
            "module_output_name": task.feature,
        },
        SENTENCE_TRANSFORMERS: {"model_type": "CrossEncoder", **settings},
    }
    try:
        return {name: json.dumps(content, indent=2).encode() + b"\n" for name, content in written.items()}
    except RecursionError as error:
        raise SaveError(
            f"{source}: found a JSON file that is nested too deeply to be written again, expected some levels;"
            " correct config.json or tokenizer_config.json"
        ) from error


def _follow(folder: Path, name: str) -> Path:
    """Return where a file really is: in the folder, or among the files to which the links of a hub's snapshot lead.

    A link that a model came with could lead to a secret of the user, who publishes the folder that was saved.
    """
    real = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(real / name))
    blobs = real.parent.parent / "blobs"
    if path.is_relative_to(real) or (real.parent.name == "snapshots" and path.is_relative_to(blobs)):
        return path
    raise SaveError(
        f"{folder / name}: found a link to {path}, expected one to a file of the model; if it is one, put a copy in the"
        " place of the link"
    )


def _copy(folder: Path, name: str, new: Path) -> None:
    """Copy a file; one that loading did not need may have any size."""
    source = _follow(folder, name)
    size = source.stat().st_size
    if size > LARGEST_FILE and not name.endswith(".safetensors"):
        raise SaveError(
            f"{folder / name}: found {size} bytes, expected at most {LARGEST_FILE}; remove it, if it is not needed"
        )
    shutil.copyfile(source, new / name)


def _save(source: Path, loaded: Loaded, target: Path, texts: Mapping[str, bytes]) -> None:
    """Make the folder, and in it all files or none."""
    folders = [module.folder for module in loaded.chain.behind]
    made = [folder for folder in (*(target / name for name in folders), target, *target.parents) if not folder.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        copied = () if target.samefile(source) else loaded.files  # what would be copied is there already
        names = {*texts, *loaded.files}
        gone = {*READ_BEFORE_OTHERS, *_files_of_modules(loaded.chain)} - names
        _check_places(target, names | gone, folders)
        with _folder_beside(target) as beside:
            new, old = beside / "new", beside / "old"
            for place in (new, old, *(parent / name for parent in (target, new, old) for name in folders)):
                place.mkdir(exist_ok=True)
            for name in copied:
                _copy(source, name, new)
            for name, text in texts.items():
                (new / name).write_bytes(text)
            _check_same(source, loaded)  # nobody has replaced them meanwhile
            _place(sorted({*texts, *copied}), new, target, old, gone)
    except BaseException:
        for folder in made:  # the innermost first
            with contextlib.suppress(OSError):  # not made, or meanwhile used by others
                folder.rmdir()
        raise


class _NotPutBackError(SaveError):
    """What was there before is in another place now."""


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Make a folder in the target, and remove it; a file that cannot be removed does not undo what was saved.

    (tempfile.TemporaryDirectory tries without end to remove what the system does not let it remove.)
    """
    beside = Path(tempfile.mkdtemp(prefix=".numbert-", dir=target))
    try:
        yield beside
    except _NotPutBackError:
        raise
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(beside, ignore_errors=True)


def _check_places(target: Path, names: Iterable[str], folders: Iterable[str]) -> None:
    """Refuse a target where something else stands in the place of a file, or of a module's folder."""
    for folder in [target / name for name in folders]:
        if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
            raise SaveError(f"{folder}: found a file or a link, expected a folder or nothing; give another place")
    for name in sorted({*names, *READ_BEFORE_OTHERS}):
        if (target / name).is_dir():
            raise SaveError(f"{target / name}: found a folder, expected a file or nothing; give another place")


def _place(names: Sequence[str], new: Path, target: Path, old: Path, gone: Iterable[str]) -> None:
    """Move files of the folder `new` into the target, all or none; `old` takes what was there before.

    Files with the names `gone` are removed: what another model left there would be read instead of, or together with,
    what was written.
    """
    kept = {name for name in (*names, *gone) if _keep(target / name, old / name)}
    try:
        for name in names:
            (new / name).replace(target / name)
        for name in gone:
            with contextlib.suppress(FileNotFoundError):
                (target / name).replace(new / name)
    except BaseException:
        moved = [name for name in names if not os.path.lexists(new / name)]
        moved += [name for name in kept - {*names} if not os.path.lexists(target / name)]
        _put_back(moved, kept, target, old, new)
        raise


def _put_back(moved: Iterable[str], kept: Container[str], target: Path, old: Path, new: Path) -> None:
    """Let the target be as it was."""
    try:
        for name in moved:
            if name in kept:
                (old / name).replace(target / name)
            else:
                (target / name).replace(new / name)
    except OSError as error:  # the disk fails for good, or can only be read by now
        raise _NotPutBackError(
            f"{target}: found {error.strerror or error} while files were put into their places, and again when those"
            f" of before were put back; check the disk, then move the files of {old} into the folder"
        ) from error


def _keep(path: Path, copy: Path) -> bool:
    """Let a file have a second name; where the file system gives only one, copy it. Return whether there is a file."""
    try:
        try:
            os.link(path, copy, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except (OSError, NotImplementedError):
            shutil.copy2(path, copy, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
