"""Values and texts that a program could choke on."""

import json
import random
from typing import Any

from hostile_pairs import HOSTILE, PASSAGE, PASSAGES, QUERIES, QUERY

Random = random.Random
RAW = "\x01RAW:"  # a string that begins so is written into a JSON file as it stands, without quotes
TWICE = "\x01TWICE:"  # a key that begins so is written without this beginning: the key then stands there twice

NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    127,
    255,
    256,
    65535,
    65536,
    65537,
    2**31 - 1,
    2**31,
    2**32,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63),
]
NUMBERS += [
    0.0,
    -0.0,
    0.5,
    1.0,
    2.0,
    1e-12,
    1e-320,
    1e-45,
    1e30,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
]
TEXTS = [
    "",
    " ",
    "\x00",
    "a",
    "None",
    "null",
    "0",
    "1e5",
    "[PAD]",
    "[SEP]",
    "[CLS]",
    "[UNK]",
    "</s>",
    "gelu",
    "gelu_new",
    "relu",
    "tanh",
]
TEXTS += [
    "../x",
    "/etc/passwd",
    "C:\\x",
    "model.safetensors",
    "config.json",
    "torch.nn.Sigmoid",
    "os.system",
    "\ud800",
    "a\udfff",
]
TEXTS += [
    "\U0010ffff",
    "\u202e",
    "e\u0301" * 50,
    "%s%n{0}",
    "\n\r\n",
    "absolute",
    "relative_key",
    "cuda",
    "float16",
    "x" * 300,
]
RAWS = [
    "1" * 5000,
    "-" + "9" * 400,
    "1e999999",
    "[" * 3000 + "]" * 3000,
    '{"a":' * 3000 + "1" + "}" * 3000,
    "[" * 200_000,
]
RAWS += [
    '"\\ud800"',
    '"' + "y" * 2_000_000 + '"',
    "0.1e-999999",
    "[1,",
    "truE",
    "'a'",
    "1.",
    "\\",
    '"\x02"',
    "-Infinity",
    "/**/1",
]


def value(rng: Random, depth: int = 0) -> Any:
    """Return any JSON value, or something that only looks like one."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(NUMBERS)
    if kind < 0.6:
        return rng.choice(TEXTS)
    if kind < 0.75:
        return rng.choice([None, True, False, [], {}])
    if kind < 0.85:
        return RAW + rng.choice(RAWS)
    if depth > 2:
        return "leaf"
    if kind < 0.92:
        return [value(rng, depth + 1) for _ in range(rng.randrange(1, 5))]
    return {rng.choice(TEXTS): value(rng, depth + 1) for _ in range(rng.randrange(1, 5))}


def text(rng: Random) -> str:
    """Return a text of valid Unicode: any script, special tokens, sometimes very long."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(HOSTILE)
    if kind < 0.6:
        return rng.choice([*QUERIES, *PASSAGES, QUERY, PASSAGE])
    if kind < 0.8:
        pieces = [chr(_code_point(rng)) for _ in range(rng.randrange(1, 40))]
        return rng.choice(["", " "]).join(pieces)
    if kind < 0.97:
        return rng.choice([" ", "", "\n"]).join(rng.choice(HOSTILE) for _ in range(rng.randrange(2, 12)))
    unit = rng.choice(["a", "a ", "\u6771", "[SEP]", "e\u0301", "\x00", "\U0001f469\u200d", "ab c1 ", " ", "\ufdfa"])
    return unit * rng.choice([1_000, 10_000, 100_000])


def _code_point(rng: Random) -> int:
    """Return a character of any plane, with a preference for the lower ones; no surrogates."""
    point = int(0x110000 ** rng.random())
    return point if not 0xD800 <= point < 0xE000 else point - 0x800


def render(tree: Any) -> bytes:
    """Write a JSON file, with the raw pieces and the doubled keys that `RAW` and `TWICE` stand for."""
    written = json.dumps(tree)
    raw, twice = json.dumps(RAW)[1:-1], json.dumps(TWICE)[1:-1]
    parts = written.split('"' + raw)
    for i, part in enumerate(parts[1:], 1):
        body, rest = _split_string(part)
        parts[i] = json.loads(f'"{body}"') + rest
    return "".join(parts).replace(twice, "").replace(raw, "").encode("utf-8", "surrogatepass")


def _split_string(part: str) -> tuple[str, str]:
    """Split behind the quote that ends a JSON string."""
    at = 0
    while part[at] != '"':
        at += 2 if part[at] == "\\" else 1
    return part[:at], part[at + 1 :]
