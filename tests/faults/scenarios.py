"""What is done while something fails, and what must hold afterwards."""

import contextlib
import copy
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faults.inject import ERRORS_OF, Point, count, fault
from numbert import CrossEncoder
from numbert.kernels.cpu import cache, jit, meeting
from numbert.loaders.errors import NumbertError

GOLDENS = Path(__file__).parent.parent / "goldens"
FEW = [("How many people?", "Seven people live here.")]  # a shard that all threads share
MANY = [(f"How many people {number}?", "Seven people live here. " * 15) for number in range(12)]  # some shards
FIRST = 60  # calls that are all tried; of those after them, a sample
LATER = 20
Content = dict[str, bytes]


class BadEndError(AssertionError):
    """Neither a right answer nor a clear error, or something is damaged."""


class Scenario:
    """Something that numbert does. Each point begins with `prepare`; only `act` is met by the fault."""

    name = ""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.temporary = scratch / "temporary"
        self.temporary.mkdir(parents=True)

    def prepare(self) -> None:
        """Make what `act` begins with."""

    def act(self) -> object:
        """Do it, and return what tells right from wrong."""
        raise NotImplementedError

    def answer(self, result: Any) -> object:
        """Turn what `act` returned into what is compared, out of reach of the fault."""
        return result

    def check(self, point: Point | None, result: object | None) -> None:
        """Check what lies there afterwards; `result` is None after an error."""


class Load(Scenario):
    name = "load"
    folder = GOLDENS / "sharded-bfloat16"

    def act(self) -> object:
        return CrossEncoder(self.folder, num_threads=2)

    def answer(self, result: Any) -> object:
        return result.predict(FEW).tobytes()


class LoadModules(Load):
    name = "load, with modules"
    folder = GOLDENS / "modular"


class Predict(Scenario):
    """The first calls of a model, which start the threads; then those of the same model after the fault."""

    name = "predict"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.model = CrossEncoder(GOLDENS / "narrow", num_threads=3)
        self.expected = self.scores(self.model)

    def prepare(self) -> None:
        self.twin = copy.deepcopy(self.model)

    def act(self) -> object:
        return self.scores(self.twin)

    def check(self, point: Point | None, result: object | None) -> None:
        require(self.scores(self.twin) == self.expected, "the same model scores otherwise afterwards")
        del self.twin

    @staticmethod
    def scores(model: CrossEncoder) -> tuple[bytes, ...]:
        return tuple(model.predict(pairs).tobytes() for pairs in (FEW, MANY, FEW))


class Compile(Scenario):
    """The first compilation, with an empty kernel cache: of a small kernel, a new dispatcher stands for a process."""

    name = "compile"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.home = scratch / "home"

    def prepare(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def act(self) -> object:
        return self.arrive()[0]

    def arrive(self) -> tuple[int, int]:
        """Return what the kernel computed, and the hits of its cache."""
        before = os.environ.get("NUMBERT_CACHE_DIR"), cache.DIRECTORY
        os.environ["NUMBERT_CACHE_DIR"] = str(self.home)
        try:
            cache.DIRECTORY = cache.private_directory()
            kernel = jit.kernel(meeting.arrive.py_func)
            counter = np.zeros(1, np.int64)
            kernel(counter)
            return int(counter[0]), sum(kernel.stats.cache_hits.values())
        finally:
            if before[0] is None:
                del os.environ["NUMBERT_CACHE_DIR"]
            else:
                os.environ["NUMBERT_CACHE_DIR"] = before[0]
            cache.DIRECTORY = before[1]

    def check(self, point: Point | None, result: object | None) -> None:
        require(self.arrive()[0] == 1, "the kernel computes something else afterwards")
        require(self.arrive() == (1, 1), "the cache stays empty")
        strangers = [path for path in self.home.rglob("*") if path.is_file() and not path.name.startswith("arrive-")]
        require(is_excused(point) or not strangers, f"left behind: {strangers}")


class WarmCache(Compile):
    """The same with a cache that is filled."""

    name = "warm cache"

    def prepare(self) -> None:
        super().prepare()
        self.arrive()


class SaveNew(Scenario):
    """Into a folder that is not there."""

    name = "save, new folder"
    source = GOLDENS / "narrow"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.target = scratch / "deep" / "target"
        self.begin()
        self.before = content_of(self.target)
        self.model = CrossEncoder(self.source_of(), num_threads=1)
        self.model.save_pretrained(self.target)
        self.after = content_of(self.target)

    def begin(self) -> None:
        """Let the target be as it is before."""
        shutil.rmtree(self.scratch / "deep", ignore_errors=True)

    def source_of(self) -> Path:
        return self.source

    def prepare(self) -> None:
        self.begin()
        self.model = CrossEncoder(self.source_of(), num_threads=1)

    def act(self) -> object:
        self.model.save_pretrained(self.target)
        return "saved"

    def check(self, point: Point | None, result: object | None) -> None:
        found, beside = split(content_of(self.target))
        if result is not None:
            require(found == self.after, "it is said to be saved and is not")
        if point is not None and point.seam == "rename" and point.lasting and beside:
            # Nobody can put back what was there before. It must be there, beside its place.
            require({name: {**found, **beside}[name] for name in self.before} == self.before, "files are lost")
        else:
            require(found in (self.before, self.after), f"half saved: {sorted(found)}")
            require(is_excused(point) or not beside, f"left behind: {sorted(beside)}")
            if found:
                CrossEncoder(self.target, num_threads=1)
        if found == self.before == {} and not is_excused(point):
            require(not (self.scratch / "deep").exists(), "a folder was left behind")
        self.model.save_pretrained(self.target)
        require(split(content_of(self.target))[0] == self.after, "the next time, something else is saved")


class SaveOver(SaveNew):
    """Over another model, which has files that this one lacks."""

    name = "save, over another"

    def begin(self) -> None:
        super().begin()
        shutil.copytree(GOLDENS / "sharded-bfloat16", self.target)
        (self.target / "vocab.txt").write_text("of another model")


class SaveItself(SaveNew):
    """Over the folder that was loaded."""

    name = "save, onto itself"

    def begin(self) -> None:
        super().begin()
        shutil.copytree(GOLDENS / "narrow", self.target)

    def source_of(self) -> Path:
        return self.target


class SaveModules(SaveNew):
    """With the folders of its modules, over a model that has some of them."""

    name = "save, with modules"
    source = GOLDENS / "modular"

    def begin(self) -> None:
        super().begin()
        shutil.copytree(GOLDENS / "narrow", self.target)
        shutil.copytree(self.source / "2_Dense", self.target / "2_Dense")
        (self.target / "2_Dense" / "config.json").write_text("of another model")


class SaveModulesNew(SaveNew):
    """With the folders of its modules, into a folder that is not there."""

    name = "save, with modules, new folder"
    source = GOLDENS / "modular"


SCENARIOS = (
    Load, LoadModules, Predict, Compile, WarmCache, SaveNew, SaveOver, SaveItself, SaveModules, SaveModulesNew,
)  # fmt: skip


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadEndError(otherwise)


def is_excused(point: Point | None) -> bool:
    """Tell whether it is one of the calls that remove files which fails: nobody can then leave nothing behind."""
    return point is not None and point.seam in ("remove", "open", "list", "stat")


def content_of(folder: Path) -> Content:
    """Return the files of a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def split(content: Content) -> tuple[Content, Content]:
    """Return the files of a model, and those of before that were kept beside them while it was saved."""
    own = {name: data for name, data in content.items() if not name.startswith(".numbert-")}
    return own, {name.partition("/old/")[2]: data for name, data in content.items() if name not in own}


def points_of(scenario: Scenario) -> tuple[Counter[str], list[Point]]:
    """Record one run; return how often each seam was met, and what is to be tried."""
    scenario.prepare()
    with count() as calls:
        result = scenario.act()
    scenario.answer(result)
    scenario.check(None, result)
    points = []
    for seam, number in calls.items():
        numbers = [*range(1, min(number, FIRST) + 1)]
        if number > FIRST:
            numbers += sorted({*np.linspace(FIRST + 1, number, LATER, dtype=int).tolist()})
        points += [Point(seam, k, error, last) for k in numbers for error in ERRORS_OF[seam] for last in (False, True)]
    return calls, points


def expected_of(scenario: Scenario) -> object:
    """Return the right answer."""
    scenario.prepare()
    return scenario.answer(scenario.act())


def try_point(scenario: Scenario, point: Point, expected: object) -> str:
    """Let something fail; return "right" or the error's class.

    Raises
    ------
    BadEndError
        When anything is not as it must be.
    """
    with _temporary_files_in(scenario.temporary):
        scenario.prepare()
        before = _state(point)
        result, outcome = None, "right"
        try:
            with fault(point):
                result = scenario.act()
        except MemoryError as error:
            outcome = type(error).__name__
        except NumbertError as error:
            outcome = type(error).__name__
            require(0 < len(str(error)) < 2000 and "\n" not in str(error), f"no clear message: {error}")
        except BaseException as error:
            raise BadEndError(f"outside the taxonomy: {error!r}") from error
        if result is not None:
            require(scenario.answer(result) == expected, "wrong answer")
        scenario.check(point, result)
        del result
        _await_state(point, before)
        left = [str(path) for path in scenario.temporary.iterdir()]
        require(is_excused(point) or not left, f"temporary files left behind: {left}")
        require(expected_of(scenario) == expected, "wrong answer afterwards")
        scenario.check(None, "again")
    return outcome


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder)
        folder.mkdir()


class State(NamedTuple):
    """What a process must not lose or gain."""

    descriptors: int
    threads: int
    cores: set[int] | None  # that it may use


def _state(point: Point) -> State:
    gc.collect()
    linux = sys.platform == "linux"
    # A core that is not given back because the system forbids that is what was asked for.
    cores = os.sched_getaffinity(0) if linux and point.seam != "affinity" else None
    return State(len(os.listdir("/proc/self/fd")) if linux else 0, threading.active_count(), cores)


def _await_state(point: Point, before: State) -> None:
    deadline = time.monotonic() + 5  # threads that are no longer needed end soon, but not at once
    while True:
        after = _state(point)
        if after.descriptors <= before.descriptors and after.threads <= before.threads and after.cores == before.cores:
            return
        require(time.monotonic() < deadline, f"found {after}, expected {before}")
        time.sleep(0.01)
