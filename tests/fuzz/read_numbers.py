"""Sizes and switches of a config.json."""

from typing import Any, Protocol

from verdict import Refusable


class Number(Protocol):
    """Reads an integer."""

    def __call__(self, key: str, default: int | None = None, *, low: int = 0) -> int: ...


def integers_of(config: dict[str, Any], aliases: dict[str, str]) -> Number:
    """Return what reads the integers of a config.json, in which some keys have a second name."""

    def number(key: str, default: int | None = None, *, low: int = 0) -> int:
        values = [config[name] for name in ({aliases.get(key, key): 0} | {key: 0}) if name in config]
        value = values[0] if values else default
        if any(type(other) is not type(value) or other != value for other in values):
            raise Refusable(f"{key} is there under two names, with two values")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**31:
            raise Refusable(f"{key} {value!r:.60} is no size")
        return value

    return number


def switch(config: dict[str, Any], key: str, default: bool) -> bool:
    """Return true or false."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise Refusable(f"{key} {value!r:.60} is neither true nor false")
    return value
