"""Input checks: what the caller gave becomes a list of (query, passage) strings, or an error that names the place."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .errors import InputError, InputTypeError

Pair = tuple[str, str]
# Iterable, and never meant as a list of texts.
NOT_A_COLLECTION = (str, bytes, bytearray, dict)


def check_pairs(inputs: Any) -> tuple[list[Pair], bool]:
    """Return the pairs, and whether the input was one pair by itself.

    One pair is a flat list, tuple or NumPy array of two strings; anything else that can be iterated is a collection of
    pairs (lists, tuples or arrays). The rule is that of sentence-transformers.

    Raises
    ------
    InputError
        When something has the wrong number of items or holds a lone surrogate.
    InputTypeError
        When something is no collection or no string.
    """
    if isinstance(inputs, NOT_A_COLLECTION):
        expected = "expected a pair (query, passage) or a list of pairs"
        raise InputError(f"inputs: found {_describe(inputs)}, {expected}; to rank passages, call rank(query, passages)")
    if is_one_pair(inputs):
        return [_check_pair(inputs, "inputs")], True
    return [_check_pair(pair, f"inputs[{i}]") for i, pair in enumerate(_iterate(inputs, "inputs"))], False


def check_query(query: Any) -> str:
    """Return the query of `rank`."""
    return check_text(query, "query")


def check_threshold(value: Any) -> float | None:
    """Return the `score_threshold` of `rank`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputTypeError(f"score_threshold: found {_describe(value)}, expected a number; pass one")
    if value != value:
        raise InputError("score_threshold: found nan, expected a number; pass one")
    return float(min(max(value, -sys.float_info.max), sys.float_info.max))


def check_documents(documents: Any) -> tuple[list[str], list[Any]]:
    """Return the texts of `rank`'s documents, and the objects as they were given.

    Raises
    ------
    InputError, InputTypeError
        As `check_pairs`.
    """
    if isinstance(documents, NOT_A_COLLECTION):
        raise InputError(
            f"documents: found {_describe(documents)}, expected a list of passages; put a single passage into a list"
        )
    given = list(_iterate(documents, "documents"))
    return [check_text(text, f"documents[{i}]") for i, text in enumerate(given)], given


def check_count(value: Any, name: str, *, low: int) -> int:
    """Return an integer that is not smaller than `low`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputTypeError(f"{name}: found {_describe(value)}, expected an integer; pass one")
    if value < low:
        requirement = "a positive integer" if low == 1 else f"{low} or more"
        raise InputError(f"{name} must be {requirement}, got {value}.")
    return int(value)


def is_one_pair(inputs: Any) -> bool:
    """Tell whether the input is one pair by itself: a flat list, tuple or array of strings."""
    if isinstance(inputs, np.ndarray):
        return inputs.size > 0 and inputs.ndim < 2 and not isinstance(inputs.flat[0], list | tuple | np.ndarray)
    return isinstance(inputs, list | tuple) and len(inputs) > 0 and isinstance(inputs[0], str)


def _iterate(values: Any, place: str) -> Iterator[Any]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    try:
        iterator: Iterator[Any] = iter(values)
        return iterator
    except TypeError:
        raise InputTypeError(f"{place}: found {_describe(values)}, expected a list; pass one") from None


def _check_pair(pair: Any, place: str) -> Pair:
    if isinstance(pair, np.ndarray):
        pair = pair.tolist()
    if isinstance(pair, NOT_A_COLLECTION) or not isinstance(pair, Sequence):
        raise InputTypeError(f"{place}: found {_describe(pair)}, expected a pair (query, passage); pass two strings")
    if len(pair) != 2:
        raise InputError(f"{place}: found {len(pair)} items, expected 2, (query, passage); join or split the texts")
    return check_text(pair[0], f"{place}[0]"), check_text(pair[1], f"{place}[1]")


def check_text(text: Any, place: str) -> str:
    """Return a text that is a string of valid Unicode."""
    if not isinstance(text, str):
        raise InputTypeError(f"{place}: found {_describe(text)}, expected str; convert it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = f"a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}"
            raise InputError(
                f"{place}: found {found}, expected valid Unicode; decode the text again, or replace with"
                " text.encode(errors='replace').decode()"
            ) from None
    return str.__str__(text)  # an enumeration's own __str__ would give its name


def _describe(value: Any) -> str:
    try:
        shown = repr(value)
    except Exception:  # a value may refuse to be shown, as integers of thousands of digits do
        return type(value).__name__
    return f"{type(value).__name__} ({shown if len(shown) <= 40 else shown[:37] + '...'})"
