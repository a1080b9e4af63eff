"""Settings of all tests."""

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# Tests use the installed package. With the repository root on the path, our folder `kernels` would shadow the
# third-party package of that name that transformers imports.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


# Whoever is started in the background is deaf to Ctrl-C, and so would be the programs that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


@pytest.fixture(scope="session")
def model():
    """The embedded model with two threads."""
    from numbert import CrossEncoder

    return CrossEncoder(num_threads=2)


@pytest.fixture(scope="module")
def files_at_rest():
    """Let files be opened at once that were written a moment ago: for tests in which none changes while it is open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numbert.loaders.files.CLOCK_TICK", 0)
        yield


@pytest.fixture(scope="module")
def crew_of_four():
    """Let this process compute with four threads, however many cores the machine has."""
    from numbert.engine import workers

    crew = workers.Crew(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_crew", crew)
        yield crew
    crew.close()
