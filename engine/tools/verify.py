"""Compare a model on this machine with transformers, when that is installed, and with the float64 reference always.

Where a model has modules behind its encoder, sentence-transformers computes them.
"""

import importlib
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...loaders.checkpoint import load_checkpoint
from ...loaders.frozen import check_files
from ..cross_encoder import CrossEncoder
from ..errors import BackendError, InputError
from ..frozen import NAME
from ..inputs import Pair
from ..tokenization import lay_out, tokenize

LOGIT_BOUND = 1e-4  # what numbert promises of float32; logits differ by 1e-5 between two correct float32 engines
# Transformers would ask the hub for what a folder lacks, and whether to run code that the model names.
AS_STRICT_AS_NUMBERT = {"local_files_only": True, "trust_remote_code": False}
TIE = 2 * LOGIT_BOUND  # two pairs whose exact logits are closer than this may be ranked either way
TOKEN_PAIRS = 5000  # 10,000 strings
LOGIT_PAIRS = 60  # some of the same pairs; the float64 reference is slow

WORDS = (
    "the river Berlin people how many? Seven museum's e-mail@example.org 3,520,031 naïve café Straße İstanbul ΣΊΣΥΦΟΣ "
    "москва 東京 北京大学 한국어 שלום مرحبا हिन्दी ไทย ﬁn Ⅷ ½ x² "
    "🙂 👩‍👩‍👧 🇩🇪 ❤️ [SEP] [CLS] [MASK] [PAD] <s> </s> <pad> <mask> ##ing ▁ Ġ "
    "don't (((a))) --- ... ?! supercalifragilisticexpialidocious \u0301 e\u0301 \u200b \u00ad \ufeff \x00 \x07 \u202e"
).split(" ")
SPACES = (" ", " ", " ", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "")


class Check(NamedTuple):
    """One line of the report."""

    what: str
    bound: str
    seen: str
    passed: bool | None  # None: not compared

    @property
    def verdict(self) -> str:
        """What the last column says."""
        return {True: "ok", False: "BROKEN", None: "not compared"}[self.passed]


def make_pairs(count: int) -> list[Pair]:
    """Make pairs of texts of which a tokenizer could get something wrong; the same at every call."""
    source = random.Random(1)

    def text(longest: int) -> str:
        parts: list[str] = []
        for _ in range(source.randrange(longest)):
            odd = source.random() < 0.1
            parts.append(
                chr(source.choice((source.randrange(0x2FFF), 0x4E00 + source.randrange(0x5000)))) if odd else ""
            )
            parts.append(source.choice(WORDS) + source.choice(SPACES))
        return "".join(parts)

    longest = itertools.cycle((4, 12, 30, 12, 4, 300))
    return [(text(12), text(size)) for size, _ in zip(longest, range(count), strict=False)]


def verify(name: str | None, num_threads: int | None = None, against: str | None = None) -> list[Check]:
    """Compare what numbert computes for a model with independent computations of the same.

    Parameters
    ----------
    name : str or None
        As for `CrossEncoder`.
    num_threads : int, optional
    against : str, optional
        The model that a frozen one was made from; what it computes is compared with what that computes here.

    Returns
    -------
    list of Check
        The model is right when none is broken. What cannot be compared here, because something is not installed, has
        neither passed nor failed.

    Raises
    ------
    InputError
        When `against` is given and the model is not frozen, or the other way round.
    """
    model = CrossEncoder(name, activation_fn="identity", num_threads=num_threads)
    if (against is not None) != (model.backend == NAME):
        raise InputError(
            f"against: found {against!r} for backend {model.backend!r}, expected the model that a frozen one was made"
            " from, and for others nothing; give it, or leave it out"
        )
    if against is not None:
        return _verify_frozen(model, against, num_threads)
    exact = CrossEncoder(name, activation_fn="identity", backend="reference", dtype="float64", num_threads=num_threads)
    pairs = make_pairs(TOKEN_PAIRS)
    few = pairs[:: TOKEN_PAIRS // LOGIT_PAIRS][:LOGIT_PAIRS]
    ours, reference = _logits(model, few), _logits(exact, few)
    checks = [
        _compare_logits("float64 reference", ours, reference),
        _compare_ranking("float64 reference", ours, reference),
    ]
    library = _SentenceTransformers if model._loaded and model._loaded.chain.behind else _Transformers
    try:
        theirs = library(model.model_path, model.max_seq_length)
    except BackendError as error:
        return [*checks, Check("against transformers", "", str(error), None)]
    expected = theirs.logits(few)
    return [
        *checks,
        _compare_tokens(model, theirs, pairs),
        _compare_logits(theirs.name, ours, expected),
        _compare_ranking(theirs.name, ours, expected),
    ]


def _verify_frozen(model: CrossEncoder, against: str, num_threads: int | None) -> list[Check]:
    """Compare a frozen model with the one that it was made from: its files, ids, bits, and the distance to exact."""
    with load_checkpoint(model.model_path) as checkpoint:
        if checkpoint.frozen is not None:
            check_files(checkpoint.files, checkpoint.frozen)
    pairs = make_pairs(TOKEN_PAIRS)
    few = pairs[:: TOKEN_PAIRS // LOGIT_PAIRS][:LOGIT_PAIRS]
    options: dict[str, Any] = {"activation_fn": "identity", "num_threads": num_threads}
    exact = CrossEncoder(against, backend="reference", dtype="float64", **options)
    ours, reference = _logits(model, few), _logits(exact, few)
    checks = [Check("files of another size or SHA-256 than the manifest has", "0", "0", True)]
    if model.dtype == "float32":
        checks += [_compare_logits("float64 reference", ours, reference)]
    try:
        compiled = CrossEncoder(against, backend="cpu", dtype=model.dtype, **options)
    except BackendError as error:
        return [*checks, Check("against the cpu backend", "", str(error), None)]
    here, there = (str(each.describe()["instruction_set"]) for each in (model, compiled))
    if here != there:
        return [*checks, Check("against the cpu backend", "", f"it computes with {there}, not with {here}", None)]
    scorers = model._scorer, compiled._scorer
    ids = [tokenize(pairs, scorer.tokenizer, model.max_seq_length) for scorer in scorers]
    tokens = sum(a != b for a, b in zip(*ids, strict=True))
    bits = int((_logits(compiled, few).view(np.uint32) != ours.view(np.uint32)).any(axis=1).sum())
    return [
        *checks,
        Check(f"pairs with other token ids than {against} has, of {len(pairs)}", "0", str(tokens), tokens == 0),
        Check(f"pairs with a logit of other bits than the cpu backend's, of {len(few)}", "0", str(bits), bits == 0),
    ]


class _Transformers:
    """The same folder in transformers, in float32."""

    name = "transformers"

    def __init__(self, folder: Path, max_length: int) -> None:
        try:
            self.torch, library = importlib.import_module("torch"), importlib.import_module("transformers")
        except ImportError as error:
            raise BackendError(f"{error.name} is not installed") from error
        self.max_length = max_length
        self.tokenizer = library.AutoTokenizer.from_pretrained(folder, **AS_STRICT_AS_NUMBERT)
        settings = {"dtype": self.torch.float32, "attn_implementation": "eager", "use_safetensors": True}
        self.model = self._load(folder, settings).eval()

    def _load(self, folder: Path, settings: dict[str, Any]) -> Any:
        library = importlib.import_module("transformers").AutoModelForSequenceClassification
        try:
            model, found = library.from_pretrained(folder, output_loading_info=True, **settings, **AS_STRICT_AS_NUMBERT)
        except (ValueError, KeyError, RuntimeError) as error:  # a family, a rule or shapes of tensors unknown to it
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            raise BackendError(f"transformers cannot load this model: {problem:.200}") from error
        if found["missing_keys"]:  # which it would fill with random numbers
            some = min(found["missing_keys"])
            raise BackendError(f"transformers has no class for this model: that of the same name needs {some:.200}")
        return model

    def _compute(self, tensors: dict[str, Any]) -> Any:
        return self.model(**tensors).logits

    def encode(self, pairs: Sequence[Pair]) -> Any:
        """Tokenize, given as lists: of two plain strings it drops the second when that is empty."""
        queries, passages = ([pair[side] for pair in pairs] for side in (0, 1))
        return self.tokenizer(queries, passages, truncation="longest_first", max_length=self.max_length)

    def logits(self, pairs: Sequence[Pair]) -> NDArray[Any]:
        """Score each pair by itself, without padding."""
        rows = []
        for pair in pairs:
            tensors = {name: self.torch.tensor(ids) for name, ids in self.encode([pair]).items()}
            with self.torch.inference_mode():
                rows.append(self._compute(tensors)[0].numpy())
        return np.stack(rows)


class _SentenceTransformers(_Transformers):
    """The same folder in sentence-transformers, in float32."""

    name = "sentence-transformers"

    def _load(self, folder: Path, settings: dict[str, Any]) -> Any:
        try:
            library = importlib.import_module("sentence_transformers")
        except ImportError as error:
            raise BackendError(f"{error.name} is not installed") from error
        return library.CrossEncoder(str(folder), device="cpu", model_kwargs=settings, **AS_STRICT_AS_NUMBERT)

    def _compute(self, tensors: dict[str, Any]) -> Any:
        return self.model(tensors)["scores"]


def _logits(model: CrossEncoder, pairs: Sequence[Pair]) -> NDArray[Any]:
    scores: NDArray[Any] = model.predict(list(pairs))
    return scores.reshape(len(pairs), -1)


def _compare_logits(against: str, ours: NDArray[Any], theirs: NDArray[Any]) -> Check:
    difference = float(np.abs(ours.astype(np.float64) - theirs).max())
    what = f"largest difference of a logit to {against}, {len(ours)} pairs, {theirs.min():.1f} to {theirs.max():.1f}"
    return Check(what, f"{LOGIT_BOUND:.0e}", f"{difference:.1e}", difference <= LOGIT_BOUND)


def _compare_ranking(against: str, ours: NDArray[Any], theirs: NDArray[Any]) -> Check:
    """Count the pairs of pairs that are ranked the other way though their exact logits differ clearly."""
    swapped = 0
    for our_column, their_column in zip(ours.T, theirs.T, strict=True):
        our_gap, their_gap = (column[:, None] - column[None, :] for column in (our_column, their_column))
        swapped += int(((their_gap > TIE) & (our_gap <= 0)).sum())
    return Check(f"pairs ranked another way than by {against}", "0", str(swapped), swapped == 0)


def _compare_tokens(model: CrossEncoder, theirs: _Transformers, pairs: Sequence[Pair]) -> Check:
    scorer = model._scorer
    batch = lay_out(tokenize(pairs, scorer.tokenizer, model.max_seq_length), scorer.tokenizer.template, model.spec)
    ours = np.split(batch.ids, batch.offsets[1:-1])
    types = np.split(batch.type_ids, batch.offsets[1:-1])
    encoded = theirs.encode(pairs)
    their_types = encoded.get("token_type_ids")
    if their_types is None or model.spec.num_token_types == 0:  # a model without types computes nothing with them
        their_types = [[0] * len(ids) for ids in encoded["input_ids"]]
    rows = zip(ours, types, encoded["input_ids"], their_types, strict=True)
    wrong = sum(a.tolist() != c or b.tolist() != d for a, b, c, d in rows)
    return Check(
        f"pairs with other token ids or types than by transformers, of {len(pairs)}", "0", str(wrong), wrong == 0
    )
