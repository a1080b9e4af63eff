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

    family: str  # model_type of the config
    vocab_size: int
    hidden_size: int  # C
    num_layers: int
    num_heads: int  # H
    intermediate_size: int  # F
    max_positions: int  # rows of the position table
    num_token_types: int  # 0: the model has none
    norm_eps: float
    num_labels: int
    embedding_size: int  # of the tables; a linear layer leads to C where it differs
    head_activation: str = "tanh"  # between the two layers of the head
    first_position: int = 0  # row of the first token
    pad_token_id: int | None = None  # set: a literal padding token in a text takes this row, and no place in the count
    relative_buckets: int = 0  # distances that attention tells apart; 0: none

    @property
    def usable_length(self) -> int:
        """Longest pair in tokens."""
        return self.max_positions - self.first_position


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


def read_sizes(config: Config, **rules: Any) -> ModelSpec:
    """Read the sizes that encoders have under BERT's names, and refuse rules that no encoder here implements.

    Parameters
    ----------
    config : Config
    **rules
        Fields of `ModelSpec` that the family decides; all others are read.

    Raises
    ------
    ConfigError
        When a size is impossible or a rule is asked for that numbert does not compute.
    """
    config.require("hidden_act", "gelu", ("gelu",), "the exact GELU is the only activation implemented")
    positions = "relative and ALiBi positions are not implemented"
    config.require("position_embedding_type", "absolute", ("absolute", None), positions)
    config.require("is_decoder", False, (False, None), "decoders are not rerankers of this kind")
    config.require("add_cross_attention", False, (False, None), "cross-attention is not implemented")
    sizes: dict[str, Any] = {
        "family": config.values["model_type"],
        "vocab_size": config.integer("vocab_size", high=1 << 22),
        "hidden_size": config.integer("hidden_size"),
        "num_layers": config.integer("num_hidden_layers", high=1024),
        "num_heads": config.integer("num_attention_heads", high=1024),
        "intermediate_size": config.integer("intermediate_size", high=1 << 18),
        "max_positions": config.integer("max_position_embeddings", high=1 << 20),
        "norm_eps": config.number("layer_norm_eps", 1e-12, low=0, high=1e-2),
        "num_labels": config.num_labels(),
    }
    sizes |= {"embedding_size": sizes["hidden_size"], **rules}
    if "num_token_types" not in sizes:
        sizes["num_token_types"] = config.integer("type_vocab_size", 2, high=1024)
    spec = ModelSpec(**sizes)
    if spec.hidden_size % spec.num_heads:
        raise ConfigError(
            f"{config.path}: hidden_size {spec.hidden_size} is not a multiple of"
            f" num_attention_heads {spec.num_heads}; correct the file"
        )
    if spec.usable_length < 1:
        raise config.error("max_position_embeddings", spec.max_positions, f"more than {spec.first_position}")
    return spec


def positions_after_padding(config: Config) -> dict[str, int]:
    """Return the rule of RoBERTa and MPNet: positions are counted from the row behind that of the padding token."""
    pad = config.integer("pad_token_id", 1, low=0)
    return {"first_position": pad + 1, "pad_token_id": pad}
