"""Records as JSON: the nested records of a specification or of packed weights, and back.

Arrays are not written but named; whoever reads hands them over by name.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

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
    if not isinstance(value, dict):
        raise RecordError(f"found {type(value).__name__}, expected a record")
    if set(value) == {"array"}:
        if value["array"] not in arrays:
            raise RecordError(f"found an array {value['array']!r:.100} that is not there")
        return arrays[value["array"]]
    if set(value) == {"set"}:
        return frozenset(value["set"])
    name = value.get("record")
    if not isinstance(name, str) or name not in kinds:
        raise RecordError(f"found a record {name!r:.100}, expected one of {sorted(kinds)}")
    try:
        return kinds[name](**{key: decode(part, kinds, arrays) for key, part in value.items() if key != "record"})
    except TypeError as error:  # fields that the record does not have
        raise RecordError(f"{name}: {error}") from error


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
