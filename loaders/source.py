"""From a model's name to a folder on this machine: the embedded model, a local folder, or a model of the hub."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from .errors import ModelIsFileError, ModelNotFoundError, NumbertError
from .files import ModelFiles
from .frozen import MANIFEST
from .modules import ADAPTER, CONFIG, MODULES, OTHER_SETTINGS, SENTENCE_TRANSFORMERS, SETTINGS, module_files
from .tensors import weight_files

logger = logging.getLogger("numbert")
EMBEDDED_MODEL = "tiny-reranker"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / EMBEDDED_MODEL
HUB_ORGANIZATION = "cross-encoder"  # of names without a slash, as in sentence-transformers

# All that is ever downloaded. Pickled weights (*.bin, *.pt) run code when read: they are not even fetched.
MEANINGFUL_FILES = [  # that a model need not have, and that change its scores if it has them
    SENTENCE_TRANSFORMERS,
    MODULES,
    SETTINGS,
    *OTHER_SETTINGS,
    ADAPTER,
    "added_tokens.json",
    "tokenizer_config.json",
]
HUB_FILES = [
    *MEANINGFUL_FILES,
    "config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
]  # and the files of the modules that modules.json names
NEEDED_FILES = [  # one of each row
    ("config.json",),
    ("model.safetensors", "model.safetensors.index.json"),
    ("tokenizer.json", "vocab.txt", "merges.txt"),
]


def find_folder(
    name: str | os.PathLike[str] | None,
    *,
    cache_folder: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: bool | str | None = None,
) -> Path:
    """Return the folder that holds the model's files, downloading them if the name is one of the hub.

    Parameters
    ----------
    name : str, path or None
        A local folder (no connection is opened), a hub id such as ``cross-encoder/ms-marco-MiniLM-L6-v2`` (without an
        organization, ``cross-encoder/`` is put in front), or None for the embedded model.
    cache_folder, revision, local_files_only, token
        For the hub, as in huggingface_hub. The default of `cache_folder` is SENTENCE_TRANSFORMERS_HOME if set, else
        the hub's own cache. A snapshot in the cache is used without
        asking the hub if it is complete: each file is there, or the hub is known not to have it.

    Raises
    ------
    ModelNotFoundError
        When there is no such folder or model, the hub cannot be reached, or a needed file is missing.
    ModelIsFileError
        When the name is that of a file.
    TypeError
        When the name is none.
    """
    if name is None:
        return EMBEDDED_FOLDER
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"model_name_or_path: found {type(name).__name__}, expected a str or a path; pass one")
    if name == "":  # as a path, it would be the current folder
        raise ModelNotFoundError("model_name_or_path: found an empty string, expected a folder or a hub id; pass one")
    path = Path(name)
    if os.path.isdir(path):  # unlike path.is_dir(), False for names that no file can have
        _check_folder(path)
        return path
    if os.path.exists(path):
        raise ModelIsFileError(
            f"{path}: found a file, expected the folder with the model's config.json; name the folder"
        )
    if not isinstance(name, str) or _looks_like_a_path(name):
        raise ModelNotFoundError(
            f"{_printable(name)}: found no such folder, expected one with a model's files, or a hub id 'owner/model'"
        )
    model_id = name if "/" in name else f"{HUB_ORGANIZATION}/{name}"
    return _from_hub(model_id, cache_folder, revision, local_files_only, token)


def missing_files(folder: Path) -> list[str]:
    """Name each needed file that the folder lacks."""
    of_modules = [(f"{module}/{name}",) for module, names in _folders_of_modules(folder).items() for name in names]
    rows = [*NEEDED_FILES, *of_modules]
    return [" or ".join(row) for row in rows if not any(os.path.exists(folder / name) for name in row)]


def _folders_of_modules(folder: Path) -> dict[str, tuple[str, ...]]:
    with ModelFiles(folder) as files:
        return module_files(files)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be entered, or lacks a needed file."""
    try:
        os.stat(os.path.join(folder, "."))
    except OSError as error:
        raise ModelNotFoundError(
            f"{folder}: cannot be entered: {error.strerror}; change its permissions or those of the folders above"
        ) from error
    missing = missing_files(folder)
    if missing and not os.path.exists(folder / MANIFEST):  # which lists the files of a frozen model
        raise ModelNotFoundError(f"{folder}: found no {missing[0]}{_advice((folder / missing[0]).parent)}")


def _printable(value: object) -> str:
    """Return a text without the halves of characters that no terminal takes."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "~", "/", os.sep)) or os.path.isabs(name) or name.count("/") > 1 or "\\" in name


def _advice(folder: Path) -> str:
    names: list[str] = []
    with contextlib.suppress(OSError):  # a folder may be entered and still not be listed
        names = os.listdir(folder)
    if any(name.endswith((".bin", ".pt")) for name in names):
        return (
            "; the pickled weights there are never loaded, since reading a pickle can run any code. Convert the model"
            " once, where torch is installed, with transformers' save_pretrained(folder, safe_serialization=True)"
        )
    return "; check that the download is complete"


def _from_hub(
    model_id: str,
    cache_folder: str | os.PathLike[str] | None,
    revision: str | None,
    local_files_only: bool,
    token: bool | str | None,
) -> Path:
    """Return the snapshot's folder: from the cache if it is complete there, else downloaded."""
    where = f"{_printable(model_id)} (revision {revision or 'main'})"
    arguments: dict[str, Any] = {
        "repo_id": model_id,
        "revision": revision,
        "cache_dir": cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME"),
        "token": token,
        "allow_patterns": HUB_FILES,
    }
    cached = _find_in_cache(arguments)
    unknown = [] if cached is None else _never_asked_for(cached)
    if cached is not None and not unknown:
        return cached
    if local_files_only and cached is None:
        raise ModelNotFoundError(
            f"{where}: not in the local cache, and local_files_only=True forbids a download; allow it once"
        )
    try:
        folder = cached if local_files_only and cached else _download(arguments, where)
    except ModelNotFoundError:
        if cached is None:
            raise
        folder = cached
    if folder == cached and unknown:
        logger.warning(
            "%s: another program put it into the cache, and nobody has asked the hub for %s, which could change its"
            " scores; load it once with a connection", where, ", ".join(unknown),
        )  # fmt: skip
    missing = missing_files(folder)
    if missing:
        raise ModelNotFoundError(
            f"{where}: the repository holds no {missing[0]}; numbert reads safetensors only, so ask its owner to add"
            " them or convert the model where torch is installed"
        )
    return folder


def _find_in_cache(arguments: dict[str, Any]) -> Path | None:
    """Return the snapshot's folder if all needed files are in it: a download may have been interrupted."""
    import huggingface_hub  # here, because it takes longer to import than a local model to load
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(**arguments, local_files_only=True))
    except (LocalEntryNotFoundError, PermissionError, UnicodeError):  # the last two: a damaged cache
        return None
    except HFValidationError as error:
        raise ModelNotFoundError(
            f"{_printable(arguments['repo_id'])}: found no such folder, and it is no hub id: {_printable(error)}"
        ) from error
    if missing_files(folder):
        return None
    try:
        with ModelFiles(folder) as files:
            weight_files(files)
    except NumbertError:  # of the shards that the index names, some are not there
        return None
    return folder


def _meaningful_files(folder: Path) -> list[str]:
    """Name the files that a snapshot need not have, and that change its scores if it has them."""
    return [*MEANINGFUL_FILES, *(f"{module}/{CONFIG}" for module in _folders_of_modules(folder))]


def _never_asked_for(folder: Path) -> list[str]:
    """Name the files that are not in a snapshot and of which the cache does not say either that the hub has none.

    Other programs put into the cache what they need themselves. The hub's client notes under .no_exist what a revision
    was found not to have.
    """
    known_absent = folder.parents[1] / ".no_exist" / folder.name
    return [
        name
        for name in _meaningful_files(folder)
        if not os.path.exists(folder / name) and not os.path.exists(known_absent / name)
    ]


def _note_absent(folder: Path) -> None:
    """Note what a snapshot that was just downloaded does not have, as the hub's client does."""
    known_absent = folder.parents[1] / ".no_exist" / folder.name
    with contextlib.suppress(OSError):  # a cache that cannot be written to: the hub is asked again next time
        for name in _meaningful_files(folder):
            if not os.path.exists(folder / name):
                (known_absent / name).parent.mkdir(parents=True, exist_ok=True)
                (known_absent / name).touch()


def _download(arguments: dict[str, Any], where: str) -> Path:
    """Download what is not yet in the cache, and return the snapshot's folder."""
    import glob

    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(**arguments))
        modules = _folders_of_modules(folder).items()
        names = [f"{glob.escape(module)}/{name}" for module, files in modules for name in {CONFIG, *files}]
        if names:
            of_modules = {**arguments, "revision": folder.name, "allow_patterns": names}
            folder = Path(huggingface_hub.snapshot_download(**of_modules))
        _note_absent(folder)
        return folder
    except Exception as error:  # no connection, offline mode, a full disk: its HTTP libraries share no base of errors
        if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
            problem = "the hub refused"
            advice = "Check the name, the revision, and for private or gated models the token (HF_TOKEN)"
        else:
            problem = f"cannot be downloaded: {type(error).__name__}"
            advice = "Check the connection and HF_HUB_OFFLINE, or give a local folder"
        raise ModelNotFoundError(f"{where}: {problem}: {str(error).strip()}. {advice}") from error
