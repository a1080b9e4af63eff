"""Records as JSON: the nested records of a specification or of packed weights, and back.

Arrays are not written but named; whoever reads hands them over by name.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np


class RecordError(ValueError):
    """A JSON value that is no record of those expected."""


def encode(value: Any, name_of: Callable[[Any], str]) -> Any:
    """Return a JSON value for a record, tuple, set of names, number, text, None, or an array under its name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        return {"array": name_of(value)}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}
    fields = _fields(value)
    if fields is not None:
        return {"record": type(value).__name__, **{key: encode(part, name_of) for key, part in fields.items()}}
    if isinstance(value, tuple):
        return [encode(part, name_of) for part in value]
    raise TypeError(f"no record: {type(value).__name__}")


def decode(value: Any, kinds: Mapping[str, Callable[..., Any]], arrays: Mapping[str, Any]) -> Any:
    """Return what `encode` was given.

    Parameters
    ----------
    value : JSON value
    kinds : mapping
        The classes of records by name.
    arrays : mapping
        By name.

    Raises
    ------
    RecordError
        When a record, its fields or an array are unknown.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return tuple(decode(part, kinds, arrays) for part in value)
    try:
        if set(value) == {"array"}:
            return arrays[value["array"]]
        if set(value) == {"set"}:
            return frozenset(value["set"])
        fields = {key: decode(part, kinds, arrays) for key, part in value.items() if key != "record"}
        return kinds[value["record"]](**fields)
    except (KeyError, TypeError) as error:  # a name that is none, an array or record that is not there, its fields
        raise RecordError(f"found {value!r:.100}: {error}, expected a record") from error


def check_kinds(record: Any, place: str) -> None:
    """Prove that each field of a record, and of all within, is of the kind that its annotation says.

    Raises
    ------
    RecordError
        When one is not; the message begins with the place.
    """
    of: Any = type(record)
    for field, kind in _annotations(of).items():
        value = getattr(record, field)
        if not _is_of(value, kind):
            raise RecordError(f"{place}.{field}: found {value!r:.100}, expected {getattr(kind, '__name__', kind)}")


@functools.cache
def _annotations(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_of(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is_of(value, part) for part in parts)
    if type(value) is not (origin or kind):
        return False
    if origin is dict:
        return all(_is_of(key, parts[0]) and _is_of(part, parts[1]) for key, part in value.items())
    if origin is frozenset or parts[1:] == (...,):
        return all(_is_of(part, parts[0]) for part in value)
    if origin is tuple:
        return len(value) == len(parts) and all(map(_is_of, value, parts))
    return not _is_kind(kind) or all(_is_of(getattr(value, name), part) for name, part in _annotations(kind).items())


def kinds_of(*modules: Any) -> dict[str, Any]:
    """Return the classes of records that modules define, by name."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and _is_kind(value)
    }


def _is_kind(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


def _fields(value: Any) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    fields = getattr(value, "_fields", None)
    return None if fields is None else dict(zip(fields, value, strict=True))
