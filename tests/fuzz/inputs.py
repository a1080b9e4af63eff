"""Hostile Python objects and strings as arguments of `predict`, `rank` and the constructor."""

import enum
import functools
import math
from collections import UserList, UserString
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hostile import HOSTILE, NUMBERS, PASSAGES, QUERIES, Random, text
from numbert import CrossEncoder
from numbert.loaders.errors import NumbertError
from verdict import Failed

FLOAT32 = 1e-4  # float32 against float64 on the embedded model: see case.py


class ForeignError(Exception):
    """What a caller's own object raises; it may come through."""


class Rude:
    """An object that answers every question with an error."""

    def _refuse(self, *args: Any) -> Any:
        raise ForeignError

    __iter__ = __len__ = __getitem__ = __bool__ = __eq__ = __index__ = __int__ = __float__ = __array__ = _refuse
    __repr__ = __str__ = __call__ = __fspath__ = _refuse
    __hash__ = object.__hash__


class Shy(str):
    """A string with another face."""

    def __str__(self) -> str:
        return "another"

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0

    def __len__(self) -> int:
        return 3


class Word(str, enum.Enum):  # noqa: UP042  # its __str__ is the trap
    """A string with a name."""

    PASSAGE = "Berlin has 3,520,031 inhabitants."


def _odd(rng: Random) -> Any:
    """Return an object that is no text."""
    loop: list[Any] = []
    loop.append(loop)
    return rng.choice([
        None, True, math.nan, -1, 10**5000, 2**70, 1j, b"bytes", bytearray(b"x"), {}, {"a": 1}, {"a", "b"}, [], (),
        loop, Rude(), object(),
        UserString("text"), UserList(["a", "b"]), np.array(["a", "b"]), np.array([]), np.array(3), np.str_("text"),
        np.float32(1),
        np.array([["a", "b"], ["c", "d"]]), np.array(["a", None], object), np.zeros((2, 2)), np.datetime64("2020"),
        range(2), iter(["a", "b"]),
        memoryview(b"ab"), Ellipsis, NotImplemented, int, len, "\ud800", "a\udfffb", Shy("x"), Word.PASSAGE,
        np.array(["a\x00", "b"]), [["a", "b"], ["c"]], [[["a", "b"]]], (x for x in "ab"), map(str, [1, 2]), "", " ",
    ])  # fmt: skip


def _number(rng: Random) -> Any:
    return rng.choice(
        [*NUMBERS, 1, 2, 3, 8, 32, np.int64(3), np.float32(0.5), True, None, "3", 10**4000, -1, 0, [], Rude()]
    )


def _some(rng: Random, good: Callable[[Random], Any], share: float = 0.85) -> Any:
    return good(rng) if rng.random() < share else _odd(rng)


def _pair(rng: Random) -> Any:
    kind = rng.choice([tuple, list, tuple, list, np.array])
    size = 2 if rng.random() < 0.95 else rng.randrange(4)
    parts = [_some(rng, text, 0.97) for _ in range(size)]
    if kind is np.array and not all(type(part) is str and not part.endswith("\x00") for part in parts):
        kind = tuple  # NumPy takes trailing zeros off a string, as it must
    return kind(parts)


def _pairs(rng: Random) -> Any:
    pairs = [_some(rng, _pair, 0.97) for _ in range(rng.choice([0, 1, 2, 3, 8, 40]))]
    return rng.choice([list, list, list, tuple, iter])(pairs * rng.choice([1, 1, 1, 2]))


def _activation(rng: Random) -> Any:
    def broken(logits: Any) -> Any:
        raise ForeignError

    return rng.choice([
        "sigmoid", "identity", "tanh", "softmax", "Sigmoid", "relu", "", "\ud800", 3, Rude(), broken, np.tanh, abs,
        len, str, list,
        lambda x: x + np.nan, lambda x: x[:1], lambda x: x.tolist(), lambda x: None, lambda x: x > 0, lambda x: x + 1j,
        lambda x: -x,
        lambda x: x.astype(object), lambda x: x.astype(str), lambda x: x.astype(np.float16), lambda x: x.fill(7),
        lambda x: x + np.inf,
    ])  # fmt: skip


OPTIONS: dict[str, Callable[[Random], Any]] = {
    "prompt_name": lambda rng: rng.choice(["q", "x", "", None, 3, [], "\ud800"]),
    "prompt": lambda rng: _some(rng, text, 0.7),
    "batch_size": _number,
    "activation_fn": _activation,
    "device": lambda rng: rng.choice(
        [None, "cpu", "cuda", "cuda:1", "CPU", ["cpu", "cpu"], [], 3, Rude(), "\ud800", [["cpu"]]]
    ),
    "chunk_size": _number,
    "pool": _odd,
}
OF_PREDICT = {
    **OPTIONS,
    "apply_softmax": _odd,
    "convert_to_numpy": lambda rng: rng.choice([True, False, 0, None]),
    "processing_kwargs": lambda rng: rng.choice(
        [None, {}, {"text": {"max_length": _number(rng)}}, {"text": _odd(rng)}, _odd(rng)]
    ),
}
OF_RANK = {
    **OPTIONS,
    "top_k": _number,
    "return_documents": _odd,
    "score_threshold": _number,
    "long_documents": lambda rng: rng.choice(["truncate", "windows", "windows", "x", None, 3, Rude()]),
}
OF_MAKING: dict[str, Callable[[Random], Any]] = {
    "model_name_or_path": lambda rng: rng.choice(["", " ", "\x00", "a\x00b", "x" * 5000, "/" + "x" * 300, "\ud800",
    "~", "..", "/", "a/b/c", b"x", 3, Rude(), "\udcff/x", "/dev/null", "/dev/zero", "/proc/self/mem", "./no",
    "C:\\x", [], object()]),
    "device": OPTIONS["device"],
    "prompts": lambda rng: rng.choice([{"q": "x: "}, {3: "x"}, {"q": None}, {"q": "\ud800"}, [], "x", Rude()]),
    "default_prompt_name": OPTIONS["prompt_name"],
    "model_kwargs": lambda rng: rng.choice([{}, {"dtype": "float32"}, {"dtype": Rude()}, {"x": 1}, {3: 4}, [], 3,
    {"attn_implementation": []}]),
    "processor_kwargs": lambda rng: rng.choice([{"model_max_length": _number(rng)}, {"max_length": _odd(rng)},
    {"x": 1}, 3]),
    "config_kwargs": lambda rng: rng.choice([{"num_labels": _number(rng)}, {"num_labels": _odd(rng)},
    {"classifier_dropout": 0.1}, {3: 3}]),
    "modules": _odd,
    "backend": lambda rng: rng.choice(["cpu", "reference", "torch", "auto", "onnx", "CPU", "", 3, None, [], Rude()]),
    "num_labels": _number,
    "max_length": _number,
    "activation_fn": _activation,
    "keep_in_fp32_modules": _odd,
    "dtype": lambda rng: rng.choice(["float32", "bfloat16", "int8", "float64", "float16", 3, None, [], Rude(),
    np.float32]),
    "matmul_precision": lambda rng: rng.choice(["highest", "high", "medium", 3, None, [], Rude()]),
    "num_threads": lambda rng: rng.choice([1, 2, 3, 0, -1, True, 1.0, "2", None, [], np.int32(2), Rude()]),
}  # fmt: skip


@functools.cache
def _model(backend: str) -> CrossEncoder:
    return CrossEncoder(
        backend=backend,
        dtype="float64" if backend == "reference" else "float32",
        num_threads=2,
        prompts={"q": "query: "},
    )


def warm_up() -> None:
    """Let the kernels of every precision be compiled before a case is timed."""
    for options in ({"dtype": "bfloat16"}, {"dtype": "int8"}, {"matmul_precision": "high"}, {}):
        CrossEncoder(num_threads=2, **options).predict((QUERIES[0], PASSAGES[0]))


def _choose(options: dict[str, Callable[[Random], Any]], rng: Random) -> dict[str, Any]:
    names = rng.sample(sorted(options), rng.choice([0, 0, 1, 1, 2, 3]))
    return {"show_progress_bar": False, **{name: options[name](rng) for name in names}}


def run(seed: str) -> tuple[str, str]:
    """Run a case: one call with random arguments."""
    rng = Random(f"inputs:{seed}")
    call = rng.choice([_predict, _predict, _predict, _rank, _rank, _make, _others])
    what: list[str] = []
    try:
        return f"{call.__name__.strip('_')}: {call(rng, what)}", "; ".join(what)
    except (NumbertError, TypeError) as error:
        from case import check_message

        check_message(error)
        return f"{call.__name__.strip('_')}: refused: {type(error).__name__}", "; ".join(what)
    except (ForeignError, MemoryError) as error:
        return f"{call.__name__.strip('_')}: {type(error).__name__}", "; ".join(what)
    except Failed as error:
        raise Failed(f"{error}\n    {'; '.join(what)}") from error
    except BaseException as error:
        from case import stranger

        raise Failed(f"stranger: {stranger(error)}\n    {'; '.join(what)}") from error


def _show(value: Any) -> str:
    try:
        return f"{value!r:.80}".encode("ascii", "backslashreplace").decode()
    except Exception:
        return type(value).__name__


def _predict(rng: Random, what: list[str]) -> str:
    given = _some(rng, rng.choice([_pairs, _pairs, _pair]), 0.95)
    options = _choose(OF_PREDICT, rng)
    what += [f"predict({_show(given)}, {', '.join(f'{k}={_show(v)}' for k, v in options.items())})"]
    kept = list(given) if isinstance(given, Iterator) else given
    scores = _model("cpu").predict(iter(kept) if kept is not given else given, **options)
    pairs = _as_pairs(kept)
    if pairs is None:
        raise Failed("silent: a score of something that is no pair of texts")
    if set(options) <= {"show_progress_bar", "batch_size", "device", "pool", "chunk_size", "apply_softmax"}:
        _check_scores(np.atleast_1d(scores), pairs)
    return "right"


def _as_pairs(given: Any) -> list[tuple[str, str]] | None:
    """Return the pairs if all are pairs of texts by the strictest reading."""
    given = given.tolist() if isinstance(given, np.ndarray) else given
    if isinstance(given, list | tuple) and len(given) == 2 and all(isinstance(part, str) for part in given):
        given = [given]
    pairs = []
    for pair in given:
        pair = pair.tolist() if isinstance(pair, np.ndarray) else list(pair)
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            return None
        pairs.append((str.__str__(pair[0]), str.__str__(pair[1])))
    return pairs


def _check_scores(scores: np.ndarray, pairs: list[tuple[str, str]]) -> None:
    """Hold a few scores to the same pair by itself (the same bits), and to the float64 reference."""
    if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
        raise Failed(f"wrong: scores of shape {scores.shape} for {len(pairs)} pairs")
    for i in {0, len(pairs) // 2, len(pairs) - 1} if pairs else ():
        if _model("cpu").predict(pairs[i]) != scores[i]:
            raise Failed(f"wrong: pair {i} has another score by itself")
        exact = _model("reference").predict(pairs[i])
        if abs(exact - scores[i]) > FLOAT32 * (1 + abs(exact)):
            raise Failed(f"wrong: pair {i} has score {scores[i]}, the reference {exact}")


def _rank(rng: Random, what: list[str]) -> str:
    query = _some(rng, text, 0.95)
    documents = _some(rng, lambda rng: [_some(rng, text, 0.98) for _ in range(rng.choice([0, 1, 3, 20]))], 0.95)
    options = _choose(OF_RANK, rng)
    what += [f"rank({_show(query)}, {_show(documents)}, {', '.join(f'{k}={_show(v)}' for k, v in options.items())})"]
    kept = list(documents) if isinstance(documents, Iterator) else documents
    results = _model("cpu").rank(query, iter(kept) if kept is not documents else documents, **options)
    texts = kept.tolist() if isinstance(kept, np.ndarray) else list(kept)
    if not isinstance(query, str) or not all(isinstance(part, str) for part in texts):
        raise Failed("silent: a ranking of something that is no text")
    places, scores = [result["corpus_id"] for result in results], [result["score"] for result in results]
    if len(set(places)) != len(places) or not set(places) <= set(range(len(texts))):
        raise Failed("wrong: places that are not there, or twice")
    if scores != sorted(scores, reverse=True) or any(score != score for score in scores):
        raise Failed(f"wrong: scores that are not sorted: {scores[:5]}")
    if "top_k" not in options and "score_threshold" not in options and len(results) != len(texts):
        raise Failed("wrong: passages were lost")
    if set(options) <= {"show_progress_bar", "top_k", "return_documents", "batch_size", "score_threshold"}:
        _check_scores(np.array(scores), [(str.__str__(query), str.__str__(texts[place])) for place in places])
    return "right"


def _make(rng: Random, what: list[str]) -> str:
    options = {name: OF_MAKING[name](rng) for name in rng.sample(sorted(OF_MAKING), rng.choice([1, 1, 2, 3]))}
    what += [f"CrossEncoder({', '.join(f'{k}={_show(v)}' for k, v in options.items())})"]
    try:
        model = CrossEncoder(local_files_only=True, **{"num_threads": 1, **options})
    except NotADirectoryError:
        return "refused: NotADirectoryError"  # documented in loaders/source.py
    if options.get("model_name_or_path") is not None:
        raise Failed("silent: a model of a name that is none")
    model.describe()
    return "right" if np.isfinite(model.predict((QUERIES[0], PASSAGES[0]), activation_fn="identity")) else "no number"


def _others(rng: Random, what: list[str]) -> str:
    """Setters, saving, and the smaller methods."""
    model = CrossEncoder(num_threads=1, backend="reference")
    odd, number = _odd(rng), _number(rng)
    path = rng.choice(
        ["", "\x00", "/dev/null", "/dev/null/x", "/proc/x", "x" * 300, "/nonexistent/\ud800", 3, None, Rude(), b"x"]
    )
    calls: dict[str, Callable[[], Any]] = {
        "max_seq_length": lambda: setattr(model, "max_seq_length", number),
        "find_truncated": lambda: model.find_truncated(odd),
        "supports": lambda: model.supports(odd),
        "is_singular_input": lambda: model.is_singular_input(odd),
        "save_pretrained": lambda: model.save_pretrained(path),
        "find_truncated of pairs": lambda: model.find_truncated([(text(rng), text(rng))]),
        "start_multi_process_pool": lambda: model.start_multi_process_pool(odd),
    }
    name = rng.choice(list(calls))
    what += [f"{name}: {_show(odd)}, {_show(number)}, {_show(path)}, {len(HOSTILE)} texts"]
    calls[name]()
    return "right"
