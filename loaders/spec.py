"""What a model computes: the numbers of its config.json, checked, in one frozen record."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError

LARGEST_JSON = 64 * 2**20  # bytes; a tokenizer.json of 250,000 words takes 17 MB


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The sizes and rules of a checkpoint, proven to be ones that numbert computes."""

    family: str  # "bert"
    vocab_size: int
    hidden_size: int  # C
    num_layers: int
    num_heads: int  # H
    intermediate_size: int  # F
    max_positions: int  # rows of the position table that a token can use
    num_token_types: int
    norm_eps: float
    num_labels: int


class Config:
    """A config.json with its path, whose values are checked as they are read.

    Raises
    ------
    ConfigError
        From every method, when a value is absent or not what it must be; the message names file and key.
    """

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    @classmethod
    def read(cls, path: Path) -> "Config":
        """Read a JSON object."""
        values = read_json(path)
        if not isinstance(values, dict):
            raise ConfigError(
                f"{path}: found a JSON {type(values).__name__}, expected an object; download the file again"
            )
        return cls(path, values)

    def integer(self, key: str, default: int | None = None, *, low: int = 1, high: int = 1 << 16) -> int:
        """Return an integer within bounds."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(key, value, f"an integer from {low} to {high}")
        return value

    def number(self, key: str, default: float | None = None, *, low: float, high: float) -> float:
        """Return a finite number strictly between bounds."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
            raise self.error(key, value, f"a number between {low} and {high}")
        return float(value)

    def require(self, key: str, default: Any, allowed: tuple[Any, ...], why: str) -> None:
        """Refuse a rule that numbert does not implement."""
        value = self.values.get(key, default)
        if value not in allowed:
            expected = " or ".join(repr(choice) for choice in allowed)
            raise self.error(key, value, f"{expected} ({why})")

    def error(self, key: str, found: Any, expected: str) -> ConfigError:
        """Make the error for a key."""
        return ConfigError(
            f"{self.path}: {key}: found {found!r}, expected {expected}; correct the file or choose another model"
        )

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise ConfigError(f"{self.path}: {key}: found nothing, expected a value; download the file again")
        return value

    def num_labels(self) -> int:
        """Return the number of logits: the entries of id2label; 2 when absent, as transformers has it."""
        labels = self.values.get("id2label")
        if labels is None:
            return self.integer("num_labels", 2, high=4096)
        if not isinstance(labels, dict) or not labels:
            raise self.error("id2label", labels, "an object with one entry for each label")
        return len(labels)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ConfigError
        When it is missing, too large, or no JSON.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ConfigError(
                f"{path}: found {path.stat().st_size} bytes, expected at most {LARGEST_JSON}; is this the file?"
            )
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; check the file and its permissions") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise ConfigError(f"{path}: found no valid JSON: {error}; download the file again") from error


def check_heads(config: Config, hidden_size: int, num_heads: int) -> None:
    """Refuse a hidden size that the heads do not divide."""
    if hidden_size % num_heads:
        raise ConfigError(
            f"{config.path}: hidden_size {hidden_size} is not a multiple of"
            f" num_attention_heads {num_heads}; correct the file"
        )
