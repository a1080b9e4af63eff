"""One case from beginning to end: spoil a folder, load it, hold what comes out to the promises."""

import errno
import gc
import os
import re
import resource
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inputs
import known
import numpy as np
from hostile import HOSTILE, PASSAGE, QUERY, Random
from mutate_folder import KINDS, Spoiled, spoil
from numbert import CrossEncoder
from numbert.engine.activations import identity
from numbert.engine.errors import NonFiniteScoreError
from numbert.loaders.checkpoint import Checkpoint, load_checkpoint
from numbert.loaders.errors import NumbertError
from numbert.loaders.names import Source
from second_opinion import Opinion, Pair
from verdict import Failed, Refusable, Unsure

# float32 against float64 on models of at most four layers: the goldens' worst is 2e-6. Models whose numbers were made
# extreme move further; then the bound is how far rounding of weights and of the results of layers moves the logits,
# times the number of roundings that a logit goes through one after the other (a dozen for each of a few layers).
FLOAT32 = 1e-4
FLOAT64 = 1e-9
ROUNDINGS = 200
SAVED = 0.1  # of the cases that are right are saved and loaded again, too
LARGEST_FILE = 2**28  # bytes; no file of the recorded checkpoints has more than a hundredth
LARGEST_SQUARE = 1e18  # of a number above, the square is no float32: such a model may end in NonFiniteScoreError
# What must be noticed when a case does it: tests/test_fuzz.py rings each.
ALARMS: dict[str, Callable[[], object]] = {
    "signal": os.abort,
    "hang": lambda: time.sleep(60),
    "leak": lambda: os.open(".", 0),
}
FIXED_PAIRS: list[Pair] = [
    (QUERY, PASSAGE),
    ("", "a"),
    ("before [SEP] after [CLS] </s> <pad> [PAD]", "naive\u0301 \u6771\u4eac \U0001f600 x\u00df\u0130"),
    ("word " * 220, "another one " * 110),  # longer than what is tokenized at first
    ("short", "x1" * 600),  # no place to cut
]


def run_case(kind: str, seed: str, work: Path) -> tuple[str, str]:
    """Return the outcome of a case ("refused ...", "right ...") and what was done.

    Raises
    ------
    Failed
        When a promise is broken.
    """
    if kind == "inputs":
        return inputs.run(seed)
    if kind == "alarm":
        return str(ALARMS[seed]()), seed
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    if kind == "known":
        spoiled = known.spoil(seed, work)
    elif kind in KINDS:
        spoiled = spoil(kind, int(seed), work)
    else:
        raise SystemExit(f"kind: found {kind!r}, expected one of {sorted([*KINDS, 'inputs', 'known'])}")
    rng = Random(f"pairs:{seed}")
    pairs = [*FIXED_PAIRS, (rng.choice(HOSTILE), rng.choice(HOSTILE))]
    try:
        outcome = _hold(spoiled, pairs, kind == "known" or rng.random() < SAVED)
        if seed.startswith("sound-") and outcome != "right":
            raise Failed(f"refused: a model that nothing is wrong with: {outcome}")
        return outcome, spoiled.what
    except Failed as error:
        raise Failed(f"{error}\n    {spoiled.what}") from error.__cause__


def attempt(action: Callable[[], Any], allowed: tuple[type[BaseException], ...]) -> tuple[Any, BaseException | None]:
    """Return a result, or the error if it is one of the taxonomy; anything else is a stranger."""
    try:
        return action(), None
    except allowed as error:
        check_message(error)
        return None, error
    except Failed:
        raise
    except BaseException as error:
        raise Failed(f"stranger: {stranger(error)}") from error


def check_message(error: BaseException) -> None:
    """A message must be one that can be printed."""
    if isinstance(error, NumbertError):
        try:
            str(error).encode()
        except UnicodeEncodeError:
            raise Failed(f"unprintable: the message of {type(error).__name__} holds a lone surrogate") from error


def stranger(error: BaseException) -> str:
    """Name an error by type, message without numbers, and the last line of numbert that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" not in frame.filename]
    ours = [
        f for f in frames if re.search(r"/(engine|loaders|kernels)/", f.filename) and "site-packages" not in f.filename
    ]
    place = f"{'/'.join(Path(ours[-1].filename).parts[-2:])} {ours[-1].name}" if ours else "?"
    return f"{type(error).__name__} from {place}: {re.sub(r'[0-9]+', 'N', str(error)):.120}"


def _hold(spoiled: Spoiled, pairs: list[Pair], save: bool) -> str:
    """Load with both backends and hold arrays, tokens and logits to the second opinion."""
    folder = spoiled.folder
    checkpoint, error = attempt(lambda: load_checkpoint(folder), (NumbertError, MemoryError))
    if error is None:
        cpu, error = attempt(lambda: CrossEncoder(folder, backend="cpu", num_threads=1), (NumbertError, MemoryError))
    if error is not None:
        return _refused(error, "at load")
    attempt(cpu.describe, ())
    reference, _ = attempt(lambda: CrossEncoder(folder, backend="reference", dtype="float64", num_threads=1), ())
    found, error = _predict(cpu, pairs)
    exact, other = _predict(reference, pairs)
    again, _ = _predict(cpu, pairs)
    if error is None and not np.array_equal(found, again):
        raise Failed("wrong: other scores at the second call")
    try:
        opinion = _ask(lambda: Opinion(folder))
        _compare_arrays(checkpoint, opinion)
        tokens = _ask(lambda: opinion.tokens(pairs))
        expected = opinion.logits(tokens)
    except Refusable as reason:
        if error is None:
            raise Failed(f"silent: a score of a model that should have been refused: {reason}") from reason
        return _refused(error, "when asked")
    except Unsure as reason:
        return f"no second opinion: {reason}"
    if error is not None or other is not None:
        return _refused_when_asked(error, other, opinion)
    compare_logits("float64 reference", exact, expected, FLOAT64, lambda: opinion.sensitivity(tokens, 2.0**-53))
    compare_logits("cpu", found, expected, FLOAT32, lambda: opinion.sensitivity(tokens, 2.0**-24))
    if save:
        _compare_saved(cpu, found, pairs, folder.parent / "saved")
    return "right"


def _ask(action: Callable[[], Any]) -> Any:
    """Get the second opinion, or its tokens; where it cannot be formed, nothing is known."""
    try:
        return action()
    except (Refusable, Unsure):
        raise
    except BaseException as error:  # the library's panics are no Exceptions
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise Unsure(f"{type(error).__name__} in the second opinion") from error


def _predict(model: CrossEncoder, pairs: list[Pair]) -> tuple[Any, BaseException | None]:
    result, error = attempt(lambda: model.predict(pairs, activation_fn="identity"), (NumbertError, MemoryError))
    return (None if result is None else result.reshape(len(pairs), -1)), error


def _refused(error: BaseException, when: str) -> str:
    if isinstance(error, MemoryError):
        raise Failed("memory: more than the limit for a folder of less than three megabytes") from error
    return f"refused {when}: {type(error).__name__}"


def _refused_when_asked(error: BaseException | None, other: BaseException | None, opinion: Opinion) -> str:
    """Accept a refusal of scores by both backends, or by the one whose numbers do not reach as far."""
    if error is not None and other is not None and type(error) is type(other):
        return _refused(error, "when asked")
    if isinstance(error, NonFiniteScoreError) and other is None and opinion.model.peak > LARGEST_SQUARE:
        return "refused when asked: beyond float32"
    raise Failed(f"disagree: cpu {error!r:.100}, reference {other!r:.100}")


def _compare_arrays(checkpoint: Checkpoint, opinion: Opinion) -> None:
    """Hold every array that numbert reads to an independent decoding of the file: all of it, or parts of its rows."""
    for name, (stored, source) in checkpoint.weights._tensors.items():
        array, _ = attempt(lambda name=name: checkpoint.weights[name], ())
        folder = Path(stored.file.path).parent
        whole = opinion.tensors.get(source.name if folder == opinion.folder else f"{folder.name}/{source.name}")
        if whole is None or array.dtype != np.float32 or not np.array_equal(array, _rows(whole, source)):
            raise Failed(f"wrong: array {name} is not what the file holds")


def _rows(whole: np.ndarray, source: Source) -> np.ndarray:
    """Take the rows of one part of each group."""
    grouped = whole.reshape(source.groups, source.parts, -1, *whole.shape[1:])
    return grouped[:, source.part].reshape(-1, *whole.shape[1:])


def compare_logits(
    who: str, found: np.ndarray, expected: np.ndarray, bound: float, moved: Callable[[], np.ndarray]
) -> None:
    """Hold logits to the second opinion's, within rounding."""
    if found.shape != expected.shape:
        raise Failed(f"wrong: {who}: logits of shape {found.shape}, expected {expected.shape}")
    limit = bound * (1 + np.abs(expected))
    if (np.abs(found - expected) <= limit).all() or (np.abs(found - expected) <= limit + ROUNDINGS * moved()).all():
        return
    at = int(np.argmax(np.abs(found - expected).max(axis=1)))
    raise Failed(f"wrong: {who}: pair {at}: logits {found[at]}, expected {expected[at]}")


def _compare_saved(model: CrossEncoder, found: np.ndarray, pairs: list[Pair], folder: Path) -> None:
    """What was saved must load and give the same bits; a file that cannot be copied is an error."""
    model.activation_fn = identity
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, limits[1]))  # lest an endless copy fill the disk
    try:
        error = attempt(lambda: model.save_pretrained(folder), (NumbertError,))[1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if error is not None:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EFBIG:
            raise Failed("endless: save_pretrained copies more than a model has") from error
        return
    twin, _ = attempt(lambda: CrossEncoder(folder, backend="cpu", num_threads=1), ())
    if not np.array_equal(_predict(twin, pairs)[0], found):
        raise Failed("wrong: other scores after save_pretrained")


def open_files() -> int:
    """Count what this process has open, once no error holds on to it."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
