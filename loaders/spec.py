"""What a model computes: the numbers of its config.json, checked, in one frozen record."""

import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ConfigError
from .files import ModelFiles

LARGEST_JSON = 8 * 2**20  # bytes; in memory, JSON takes up to 20 times as much. The index of 1,000 layers takes 1 MB

# Backends add each token type to each position at load: a table that the files do not hold. Real models have 1 or 2.
MOST_TOKEN_TYPES = 16
LARGEST_TABLE = 1 << 22  # numbers in a table of positions that is made at load, where the files hold none to bound it


class LayerRule(NamedTuple):
    """What differs from layer to layer."""

    theta: float | None = None  # base of the rates by which queries and keys turn; None: they do not
    reach: tuple[int, int] | None = None  # tokens before and after itself that a token sees; None: all
    slower: float = 1.0  # what all rates are divided by


class DistanceRows(NamedTuple):
    """DeBERTa's rule: a table has a row for each distance, or for each bucket of distances, up to a span."""

    kinds: tuple[str, ...]  # "c2p": a query meets the row of the distance to a key; "p2c": a key that to a query
    span: int  # rows are for -span to span - 1
    buckets: int  # tell distances apart, half of them singly; 0: each has a row of its own
    farthest: int  # distance at which the last bucket begins
    normed: bool  # there is a norm over the rows
    shared: bool  # rows go through the layers of the queries and keys themselves; else there are layers for them


class ConvolutionRule(NamedTuple):
    """What mixes each token's embedding with its neighbours', behind the first layer."""

    width: int  # tokens; odd
    groups: int
    activation: str


# Layers and norms of all transformer layers that have biases or not: canonical names without the number of the layer.
ATTENTION = ("attention.query", "attention.key", "attention.value", "attention.output")
FEED_FORWARD = ("feed_forward.up", "feed_forward.gate", "feed_forward.down")
NORMS = ("embedding.norm", "attention.norm", "feed_forward.norm")
# What checkpoints call the activations of kernels/parameters.py
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


class LinearStep(NamedTuple):
    """A step of a head: a linear layer; `name` is the canonical one of its tensors."""

    name: str
    inputs: int
    outputs: int
    bias: bool


class NormStep(NamedTuple):
    """A step of a head: a LayerNorm."""

    name: str
    width: int
    eps: float
    bias: bool


class ResidualStep(NamedTuple):
    """Steps of a head whose result is added to what went in, by way of a layer where widths differ."""

    steps: "tuple[HeadStep, ...]"
    shortcut: LinearStep | None


HeadStep = LinearStep | NormStep | ResidualStep | str  # a string: kernels/parameters.py has those that there are


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The sizes and rules of a checkpoint, proven to be ones that numbert computes."""

    family: str  # model_type of the config
    vocab_size: int
    hidden_size: int  # C
    num_heads: int  # H
    intermediate_size: int  # F
    max_positions: int  # rows of the position table; where there is none, the longest pair
    num_token_types: int  # 0: the model has none
    norm_eps: float
    num_labels: int
    embedding_size: int  # of the tables
    layers: tuple[LayerRule, ...]
    head: tuple[HeadStep, ...]
    pooling: str = "first"  # of a pair's rows, before the first step of the head
    has_position_table: bool = True
    first_position: int = 0  # row of the first token
    pad_token_id: int | None = None  # set: a literal padding token in a text takes this row, and no place in the count
    projection: str | None = None  # a linear layer from the embedding size to C, "before" or "after" the norm
    relative_buckets: int = 0  # distances for which attention has a bias; 0: none
    alibi: bool = False  # attention has a bias that falls linearly with the distance
    distance_rows: DistanceRows | None = None
    score_terms: int = 1  # products of which a score is the sum: its scale is 1 / sqrt(D * terms)
    pre_norm: bool = False  # the sum of a block is kept beside what its norm makes of it
    gated: bool = False  # feed-forward blocks have a gate
    activation: str = "gelu"  # of feed-forward blocks
    without_bias: frozenset[str] = frozenset()  # parts of all layers, by names as in ATTENTION
    convolution: ConvolutionRule | None = None
    layers_with_weights: int | None = None  # fewer layers than there are have weights; None: each its own
    layers_in_group: int = 1  # of those with weights; a group is gone through again and again before the next one

    @property
    def num_layers(self) -> int:
        """Layers of the encoder."""
        return len(self.layers)

    def weights_of_layer(self, layer: int) -> int:
        """Return the number of the layer whose weights a layer has."""
        if self.layers_with_weights is None:
            return layer
        groups = self.layers_with_weights // self.layers_in_group
        turn, inner = divmod(layer, self.layers_in_group)
        turns = self.num_layers // self.layers_in_group
        return int(turn / (turns / groups)) * self.layers_in_group + inner

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
    def read(cls, files: ModelFiles, name: str, limit: int = LARGEST_JSON) -> "Config":
        """Read a file that holds a JSON object."""
        path, values = files.folder / name, read_json(files, name, limit)
        if not isinstance(values, dict):
            raise ConfigError(
                f"{path}: found a JSON {type(values).__name__}, expected an object; download the file again"
            )
        return cls(path, values)

    @classmethod
    def read_if_there(cls, files: ModelFiles, name: str) -> "Config":
        """Read a file that a model need not have; its absence is an empty object."""
        return cls.read(files, name) if name in files else cls(files.folder / name, {})

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

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def require(self, key: str, default: Any, allowed: tuple[Any, ...], why: str) -> None:
        """Refuse a rule that numbert does not implement."""
        value = self.values.get(key, default)
        if value not in allowed:
            expected = " or ".join(repr(choice) for choice in allowed)
            raise self.error(key, value, f"{expected} ({why})")

    def activation(self, key: str, default: str) -> str:
        """Return the name that an activation has here."""
        self.require(key, default, tuple(ACTIVATIONS), "the activations that are implemented")
        return ACTIVATIONS[self.values.get(key, default)]

    def error(self, key: str, found: Any, expected: str) -> ConfigError:
        """Make the error for a key."""
        return ConfigError(
            f"{self.path}: {key}: found {reprlib.repr(found)}, expected {expected}; correct the file or choose another"
            " model"
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
        stated = self.values.get("num_labels")
        if stated not in (None, len(labels)):
            raise self.error("num_labels", stated, f"{len(labels)}, the number of entries of id2label")
        return len(labels)


def read_json(files: ModelFiles, name: str, limit: int = LARGEST_JSON) -> Any:
    """Read a JSON file of at most `limit` bytes.

    Raises
    ------
    ConfigError
        When it is missing, too large, no regular file, or no JSON.
    """
    path, content = files.folder / name, files.open(name, ConfigError).read(limit)
    try:
        return json.loads(content.decode())
    except ValueError as error:  # no JSON or no UTF-8
        raise ConfigError(f"{path}: found no valid JSON: {error}; download the file again") from error
    except RecursionError as error:
        raise ConfigError(
            f"{path}: found JSON that is nested deeper than the call stack has room, expected a few levels; choose"
            " another model, or load it from a function that is not called so deep in a recursion"
        ) from error


def read_sizes(config: Config, **rules: Any) -> ModelSpec:
    """Read the sizes that encoders have under BERT's names, and refuse rules that none of BERT's kind implements.

    Parameters
    ----------
    config : Config
    **rules
        Fields of `ModelSpec` that the family decides; "head_activation", between the two layers of the head; and
        "positions", the position_embedding_type, if that is not "absolute". All others are read.

    Raises
    ------
    ConfigError
        When a size is impossible or a rule is asked for that numbert does not compute.
    """
    positions = rules.pop("positions", "absolute")
    why = "models of this family have no other rule of positions"
    config.require("position_embedding_type", positions, (positions, None), why)
    sizes = {
        "activation": config.activation("hidden_act", "gelu"),
        **read_common_sizes(config),
        "norm_eps": config.number("layer_norm_eps", 1e-12, low=0, high=1e-2),
        "layers": (LayerRule(),) * config.integer("num_hidden_layers", high=1024),
    }
    sizes["head"] = two_layers(sizes["hidden_size"], rules.pop("head_activation", "tanh"), sizes["num_labels"])
    sizes |= {"embedding_size": sizes["hidden_size"], **rules}
    if "num_token_types" not in sizes:
        sizes["num_token_types"] = config.integer("type_vocab_size", 2, high=MOST_TOKEN_TYPES)
    spec = ModelSpec(**sizes)
    if spec.usable_length < 1:
        raise config.error("max_position_embeddings", spec.max_positions, f"more than {spec.first_position}")
    return spec


def read_common_sizes(config: Config) -> dict[str, Any]:
    """Read the sizes that all encoders have under the same names, as fields of `ModelSpec`."""
    config.require("is_decoder", False, (False, None), "decoders are not rerankers of this kind")
    config.require("add_cross_attention", False, (False, None), "cross-attention is not implemented")
    sizes = {
        "family": config.values["model_type"],
        "vocab_size": config.integer("vocab_size", high=1 << 22),
        "hidden_size": config.integer("hidden_size"),
        "num_heads": config.integer("num_attention_heads", high=1024),
        "intermediate_size": config.integer("intermediate_size", high=1 << 18),
        "max_positions": config.integer("max_position_embeddings", high=1 << 20),
        "num_labels": config.num_labels(),
    }
    if sizes["hidden_size"] % sizes["num_heads"]:
        raise ConfigError(
            f"{config.path}: hidden_size {sizes['hidden_size']} is not a multiple of"
            f" num_attention_heads {sizes['num_heads']}; correct the file"
        )
    return sizes


def two_layers(width: int, activation: str, num_labels: int) -> tuple[HeadStep, ...]:
    """Return the head of BERT and its like: a layer, an activation, and the layer of the logits."""
    return (
        LinearStep("head.dense", width, width, bias=True),
        activation,
        LinearStep("head.output", width, num_labels, bias=True),
    )


def positions_after_padding(config: Config) -> dict[str, int]:
    """Return the rule of RoBERTa and MPNet: positions are counted from the row behind that of the padding token."""
    pad = config.integer("pad_token_id", 1, low=0)
    return {"first_position": pad + 1, "pad_token_id": pad}


def head_in_words(steps: tuple[HeadStep, ...]) -> str:
    """Describe a head to a reader: "24 to 40, gelu, norm, 40 to 1"."""
    words = []
    for step in steps:
        if isinstance(step, LinearStep):
            words.append(f"{step.inputs} to {step.outputs}")
        elif isinstance(step, ResidualStep):
            words.append(f"residual ({head_in_words(step.steps)})")
        else:
            words.append("norm" if isinstance(step, NormStep) else step)
    return ", ".join(words)
