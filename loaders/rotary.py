"""What families with rotary positions check alike: sizes of the tables that are made at load, and the base of rates."""

from typing import Any

from .spec import LARGEST_TABLE, Config

SMALLEST_THETA = 1e-30  # below it, rates leave float32
LARGEST_THETA = 1e12


def check_rotary_sizes(config: Config, hidden_size: int, num_heads: int, max_positions: int) -> int:
    """Refuse heads without halves that could turn, and positions that make a table of any size; return the width D."""
    width = hidden_size // num_heads
    config.require("head_dim", None, (None, width), "hidden_size / num_attention_heads")
    if width % 2:
        raise config.error("num_attention_heads", num_heads, "heads of an even width, of which halves turn")
    if max_positions * width > 2 * LARGEST_TABLE:
        expected = f"at most {2 * LARGEST_TABLE // width} with heads of {width}"
        raise config.error("max_position_embeddings", max_positions, expected)
    return width


def read_plain_theta(config: Config, rule: Any, where: str, key: str, default: float) -> float:
    """Read the base of rates as `read_theta`, and refuse a rule that says anything else."""
    rule = {} if rule is None else rule
    known = isinstance(rule, dict) and set(rule) <= {"rope_type", "rope_theta"}
    if not known or rule.get("rope_type", "default") != "default":
        expected = "an object with rope_theta and the rope_type 'default', the only one implemented"
        raise config.error(where, rule, expected)
    return read_theta(config, rule, where, key, default)


def read_theta(config: Config, rule: dict[str, Any], where: str, key: str, default: float) -> float:
    """Read the base of rates: from a rule, whose place in the file is `where`, or else from a key beside it."""
    if "rope_theta" in rule:
        place = f"{where}: rope_theta"
        config, key = Config(config.path, {place: rule["rope_theta"]}), place
    return config.number(key, default, low=SMALLEST_THETA, high=LARGEST_THETA)
