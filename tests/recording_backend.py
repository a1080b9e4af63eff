"""A backend that computes no transformer: it records what reaches a forward pass, and its logits tell pairs apart.

With it tests see what a scorer does with pairs (how often each is computed, with which neighbours, in what order, on
how many threads) without knowing how the scorer is made. It also watches what the scorer promises to every backend:
a workspace serves one thread at a time, none that met an error is used again, and the members of a team run at once.
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numbert.engine.scorer import Scorer
from numbert.engine.workers import Crew
from numbert.loaders.checkpoint import Checkpoint
from numbert.loaders.spec import LayerRule, ModelSpec, two_layers
from numbert.loaders.tokenizer import PairTemplate

Ids = tuple[int, ...]  # of one pair, with its special tokens
MEETING = 10  # seconds that members of a team wait for each other; they arrive within milliseconds

SPEC = ModelSpec("bert", 1000, 8, 2, 16, 64, 2, 1e-12, 1, 8, (LayerRule(),) * 2, two_layers(8, "tanh", 1))
TEMPLATE = PairTemplate((1,), (2,), (2,), (0, 0, 0, 1, 1))


def tell_apart(ids: Ids) -> list[float]:
    """Return logits that differ for other tokens and for another order of them; exact in float32."""
    return [float(sum((place + 1) * number for place, number in enumerate(ids)) % 65_521)]


class RecordingWorkspace:
    """What one thread computes in: it notices when two threads, or a second forward pass, find it in use."""

    def __init__(self, meeting: threading.Barrier, number: int) -> None:
        self.meeting, self.number = meeting, number
        self.in_use = False

    def leave(self) -> None:
        """Let the other members wait no longer."""
        self.meeting.abort()

    def divide(self, speeds: list[int]) -> None:
        """Give every member its share of the pairs; all are equal here."""
        assert len(speeds) == self.meeting.parties


class RecordingBackend:
    """Implements the protocol `Backend` of engine/backend.py.

    Parameters
    ----------
    logits : callable
        From the token ids of a pair to its list of logits.
    largest_shard, shares_shards
        LARGEST_SHARD and SHARES_SHARDS.
    before_head : callable
        Is called in each forward pass with its pairs and the number of the team's member, and may raise.
    """

    def __init__(
        self,
        logits: Callable[[Ids], list[float]] = tell_apart,
        *,
        largest_shard: int = 384,
        shares_shards: bool = False,
        before_head: Callable[[list[Ids], int], object] = lambda pairs, member: None,
    ) -> None:
        self.LARGEST_SHARD, self.SHARES_SHARDS, self.MOST_WORKERS = largest_shard, shares_shards, None
        self.DTYPES, self.LOWERS_FLOAT32, self.PICKLES, self.PEAK = ("float32", "float64"), False, True, None
        self.logits, self.before_head = logits, before_head
        self.lookups: list[tuple[Any, Any, Any]] = []  # ids, types, positions of each forward pass that began
        self.shards: list[list[Ids]] = []  # the pairs of each shard, in the order in which they were computed
        self.team_sizes: list[int] = []  # of each shard
        self.dtypes: list[str] = []  # the precision of each weight that was packed

    @property
    def pairs(self) -> list[Ids]:
        """All pairs that were computed."""
        return [pair for shard in self.shards for pair in shard]

    def forget(self) -> None:
        """Begin a new recording."""
        self.lookups, self.shards, self.team_sizes = [], [], []

    def describe(self) -> dict[str, str]:
        return {"instruction_set": "fingers", "kernel_cache": "none"}

    def _pack(self, record: Any, precision: str) -> None:
        self.dtypes.append(precision)

    pack_positions = pack_embedding = pack_attention = pack_feed_forward = pack_head = _pack

    def make_team(self, size: int) -> list[RecordingWorkspace]:
        meeting = threading.Barrier(size, timeout=MEETING)
        return [RecordingWorkspace(meeting, number) for number in range(size)]

    def embedding(self, ids: Any, type_ids: Any, position_ids: Any, weights: Any, workspace: Any) -> Any:
        assert not workspace.in_use, "a workspace serves one forward pass at a time, and none after an error"
        workspace.in_use = True
        self.lookups.append((ids, type_ids, position_ids))
        return ids

    def attention_block(self, stream: Any, offsets: Any, weights: Any, rows: Any, workspace: Any) -> Any:
        return stream

    def feed_forward_block(self, stream: Any, weights: Any, workspace: Any) -> Any:
        return stream

    def head(self, stream: Any, offsets: Any, weights: Any, workspace: Any) -> Any:
        """Return the logits of the pairs that this member of the team computes."""
        pairs = [tuple(part.tolist()) for part in np.split(stream, offsets[1:-1])]
        self.before_head(pairs, workspace.number)
        members = workspace.meeting.parties
        if workspace.meeting.wait() == 0:  # one of them records the shard
            self.shards.append(pairs)
            self.team_sizes.append(members)
        places = np.array_split(np.arange(len(pairs)), members)[workspace.number]
        workspace.in_use = False
        return np.array([self.logits(pair) for pair in pairs])[places]


class NumberTokenizer:
    """Texts are numbers with spaces between them, and each number is a token id."""

    keeps_borders = True

    def __init__(self, template: PairTemplate = TEMPLATE) -> None:
        self.template = template
        self.most_texts = 0  # that were encoded in one call

    def encode(self, texts: list[str], on_one_thread: bool = False) -> list[list[int]]:
        self.most_texts = max(self.most_texts, len(texts))
        return [[int(word) for word in text.split()] for text in texts]


def take_place_of_reference(patch: pytest.MonkeyPatch, backend: RecordingBackend) -> None:
    """Let whoever chooses the backend "reference" get this one."""
    patch.setitem(sys.modules, "numbert.kernels.reference.blocks", backend)


def make_scorer(
    backend: RecordingBackend,
    *,
    num_threads: int = 1,
    spec: ModelSpec = SPEC,
    tokenizer: NumberTokenizer | None = None,
    dtype: str = "float32",
) -> Scorer:
    """Return a scorer that computes with this backend, of a model that has no weights and reads numbers."""
    parts: dict[str, Any] = dict.fromkeys(Checkpoint._fields)
    parts.update(spec=spec, weights=defaultdict(lambda: None), tokenizer=tokenizer or NumberTokenizer())
    with pytest.MonkeyPatch.context() as patch:
        take_place_of_reference(patch, backend)
        return Scorer(Checkpoint(**parts), "reference", dtype, "highest", num_threads)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what happens within milliseconds."""
    end = time.monotonic() + MEETING
    while not condition():
        assert time.monotonic() < end, "what was waited for has not happened"
        time.sleep(0.0002)


def wait_until_idle(crew: Crew) -> None:
    """Wait until all threads could help a small request."""
    wait_until(lambda: not crew.is_busy and all(seat.is_free for seat in list(crew._threads.values())))


def ids_of(pair: tuple[str, str], template: PairTemplate = TEMPLATE) -> Ids:
    """Return the token ids of a pair of numbers that is not too long."""
    first, second = ([int(word) for word in text.split()] for text in pair)
    return (*template.before, *first, *template.between, *second, *template.after)
