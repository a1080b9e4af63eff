"""Input checks: what the caller gave becomes a list of (query, passage) strings, or an error that names the place.

Values of the caller's own classes are asked as little as possible: `type` decides what they are, and of strings and
numbers the content is taken as the built-in type has it. What a caller's iterator or sequence raises passes unchanged.
"""

import itertools
import math
import operator
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InputError, InputTypeError

Pair = tuple[str, str]
# Iterable, and never meant as a list of texts.
NOT_A_COLLECTION = (str, bytes, bytearray, memoryview, Mapping)
MOST_COUNTED = 1000  # items of what is no pair
MOST_THREADS = 1024  # more than pairs are tokenized at once (scorer.CHUNK), so more could never all have work

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 40


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
        raise InputError(f"inputs: found {describe(inputs)}, {expected}; to rank passages, call rank(query, passages)")
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
    if not _is_a(value, int, float, np.integer, np.floating) or _is_a(value, bool):
        raise InputTypeError(f"score_threshold: found {describe(value)}, expected a number; pass one")
    try:
        number = float(operator.index(value) if _is_a(value, int, np.integer) else value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf if operator.index(value) > 0 else -math.inf
    if number != number:
        raise InputError("score_threshold: found nan, expected a number; pass one")
    return number


def check_documents(documents: Any) -> tuple[list[str], list[Any]]:
    """Return the texts of `rank`'s documents, and the objects as they were given.

    Raises
    ------
    InputError, InputTypeError
        As `check_pairs`.
    """
    if isinstance(documents, NOT_A_COLLECTION):
        raise InputError(
            f"documents: found {describe(documents)}, expected a list of passages; put a single passage into a list"
        )
    if isinstance(documents, np.ndarray) and documents.ndim == 0:
        raise InputTypeError("documents: found an array of no dimension, expected a list of passages; pass one")
    given = list(_iterate(documents, "documents"))
    return [check_text(text, f"documents[{i}]") for i, text in enumerate(given)], given


def check_count(value: Any, name: str, *, low: int) -> int:
    """Return an integer that is not smaller than `low`."""
    if not _is_a(value, int, np.integer) or _is_a(value, bool):
        raise InputTypeError(f"{name}: found {describe(value)}, expected an integer; pass one")
    number = operator.index(value)
    if number < low:
        requirement = "a positive integer" if low == 1 else f"{low} or more"
        raise InputError(f"{name} must be {requirement}, got {show(number)}.")
    return number


def check_threads(value: Any) -> int:
    """Return a number of threads."""
    number = check_count(value, "num_threads", low=1)
    if number > MOST_THREADS:
        raise InputError(
            f"num_threads: found {show(number)}, expected at most {MOST_THREADS}; leave it out to use all cores"
        )
    return number


def check_flag(value: Any, name: str) -> bool:
    """Return whether an option is on. An array, for example, is neither true nor false."""
    try:
        return bool(value)
    except Exception:
        raise InputTypeError(f"{name}: found {describe(value)}, expected True or False; pass one") from None


def is_one_pair(inputs: Any) -> bool:
    """Tell whether the input is one pair by itself: a flat list, tuple or array of strings."""
    if isinstance(inputs, np.ndarray):
        return inputs.size > 0 and inputs.ndim < 2 and not isinstance(inputs.flat[0], list | tuple | np.ndarray)
    return isinstance(inputs, list | tuple) and any(_is_a(first, str) for first in itertools.islice(inputs, 1))


def _iterate(values: Any, place: str) -> Iterator[Any]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    try:
        iterator: Iterator[Any] = iter(values)
        return iterator
    except TypeError:
        raise InputTypeError(f"{place}: found {describe(values)}, expected a list; pass one") from None


def _check_pair(pair: Any, place: str) -> Pair:
    if isinstance(pair, np.ndarray):
        pair = pair.tolist()
    if isinstance(pair, NOT_A_COLLECTION) or not isinstance(pair, Sequence):
        raise InputTypeError(f"{place}: found {describe(pair)}, expected a pair (query, passage); pass two strings")
    items = list(itertools.islice(pair, MOST_COUNTED))  # a sequence of the caller's own may be wrong about its length
    if len(items) != 2:
        raise InputError(f"{place}: found {len(items)} items, expected 2, (query, passage); join or split the texts")
    return check_text(items[0], f"{place}[0]"), check_text(items[1], f"{place}[1]")


def check_text(text: Any, place: str) -> str:
    """Return a text that is a string of valid Unicode."""
    if not _is_a(text, str):
        raise InputTypeError(f"{place}: found {describe(text)}, expected str; convert it")
    plain: str = str.__str__(text)  # an enumeration's own __str__ would give its name
    if not plain.isascii():
        try:
            plain.encode()
        except UnicodeEncodeError as error:
            found = f"a lone surrogate U+{ord(plain[error.start]):04X} at character {error.start}"
            raise InputError(
                f"{place}: found {found}, expected valid Unicode; decode the text again, or replace with"
                " text.encode(errors='replace').decode()"
            ) from None
    return plain


def describe(value: Any) -> str:
    """Return type and value for a message."""
    shown = show(value)
    name = type(value).__name__
    return name if shown == name else f"{name} ({shown})"


def show(value: Any) -> str:
    """Return a value, shortened, for a message; its type where it cannot be shown.

    A value may refuse to be shown, as integers of thousands of digits and nests of thousands of lists do.
    """
    try:
        shown = _short.repr(str.__str__(value) if _is_a(value, str) else value)
    except Exception:
        return type(value).__name__
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _is_a(value: Any, *types: type) -> bool:
    """Tell whether a value really has one of the types: a mock, for example, only says so."""
    return issubclass(type(value), types)
