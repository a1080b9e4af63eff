"""Turned queries and keys: the base of their rates in the spellings of config.json, and what the tables may take."""

from typing import Any

from .spec import Config

SMALLEST_THETA = 1e-30  # below it, rates leave float32
LARGEST_TABLE = 1 << 22  # angles: the files hold no table of positions that would bound them


def check_turning_heads(config: Config, hidden_size: int, num_heads: int, max_positions: int) -> None:
    """Refuse heads that cannot turn, and more angles than there is room for."""
    width = hidden_size // num_heads
    config.require("head_dim", None, (None, width), "hidden_size / num_attention_heads")
    if width % 2:
        raise config.error("num_attention_heads", num_heads, "heads of an even width, of which halves turn")
    if max_positions * width > 2 * LARGEST_TABLE:
        expected = f"at most {2 * LARGEST_TABLE // width} with heads of {width}"
        raise config.error("max_position_embeddings", max_positions, expected)


def read_theta(config: Config, key: str, rule: Any, older: str, default: float) -> float:
    """Read the base of the rates from an object, the value of `key`, or else from the `older` key beside it."""
    rule = {} if rule is None else rule
    known = isinstance(rule, dict) and set(rule) <= {"rope_type", "rope_theta"}
    if not known or rule.get("rope_type", "default") != "default":
        expected = "an object with rope_theta and the rope_type 'default', the only one implemented"
        raise config.error(key, rule, expected)
    if "rope_theta" in rule:
        name = f"{key}: rope_theta"
        return Config(config.path, {name: rule["rope_theta"]}).number(name, low=SMALLEST_THETA, high=1e12)
    return config.number(older, default, low=SMALLEST_THETA, high=1e12)
