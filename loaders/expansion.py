"""How much longer a tokenizer may make a text before it looks for tokens.

A normalizer that writes "aa" for "a" doubles a text of a's, and a chain of thirty of them makes a billion of one: from
a file of two kilobytes. So each step may write only so much for what it reads; and where the steps together could
still make a text much longer, each text is taken through them one by one, and refused when it grows.
"""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from .errors import TokenizerError

# Unicode's normal forms write up to 18 characters for one (U+FDFA), capital letters become up to 2 small ones, and
# BERT's normalizer puts spaces round ideographs.
GROWTH_OF_UNICODE = {"NFD": 4, "NFC": 3, "NFKD": 18, "NFKC": 18, "Lowercase": 2, "BertNormalizer": 12}
GROWTH_OF_BYTES = {"ByteLevel": 4, "Metaspace": 2}  # a character for each byte; a mark before each word
MOST_OF_A_STEP = 64  # characters for one
UNCHECKED = 64  # characters for one, of all steps together: what usual tokenizers stay below, and is soon computed
MOST_OF_A_TEXT = 32  # characters for one, of a text that is checked
LARGEST_TEXT = 1 << 27  # characters that a step may write: some gigabytes of memory
MOST_STEPS = 64
NO_WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}  # a model must be there, and this is the least


class Step(NamedTuple):
    """A normalizer by itself."""

    normalizer: Any
    growth: int  # characters that it may write for one


class Growth(NamedTuple):
    """What is known of a tokenizer's normalizer."""

    steps: tuple[Step, ...]  # to be taken one by one; () where no text can become too long

    def find_excess(self, text: str) -> int | None:
        """Return the length that a text grows to, if that is too much."""
        grown = text
        for step in self.steps:
            if len(grown) * step.growth > LARGEST_TEXT:
                return len(grown) * step.growth
            grown = step.normalizer.normalize_str(grown)
            if len(grown) > MOST_OF_A_TEXT * (len(text) + MOST_OF_A_STEP):
                return len(grown)
        return None


def measure_growth(tokenizer: Tokenizer) -> Growth:
    """Bound what the normalizer and the pre-tokenizer write for a character.

    Raises
    ------
    ValueError
        When a step, or the chain of pre-tokenizers, may write more than `MOST_OF_A_STEP` characters for one.
    """
    _measure(_state(tokenizer.pre_tokenizer, "pretokenizers"), MOST_OF_A_STEP)
    normalizers = _state(tokenizer.normalizer, "normalizers")
    if _measure(normalizers, None) <= UNCHECKED:
        return Growth(())
    return Growth(tuple(Step(_build(step), _growth(step)) for step in normalizers))


def check_growth(path: Path, growth: Growth, text: str) -> None:
    """Refuse a text that the normalizer makes too long."""
    excess = growth.find_excess(text)
    if excess is not None:
        raise TokenizerError(
            f"{path}: found a normalizer that makes {excess} characters of a text of {len(text)}, expected at"
            f" most {MOST_OF_A_TEXT} times as many; choose another model"
        )


def _state(component: Any, key: str) -> list[dict[str, Any]]:
    """Return the settings of each step of a normalizer or pre-tokenizer, in order."""
    if component is None:
        return []
    flat: list[dict[str, Any]] = []
    waiting = [json.loads(component.__getstate__())]
    while waiting:
        step = waiting.pop()
        if step["type"] == "Sequence":
            waiting += reversed(step[key])
        else:
            flat.append(step)
        if len(flat) > MOST_STEPS:
            raise ValueError(f"found more than {MOST_STEPS} {key}, expected some")
    return flat


def _measure(steps: list[dict[str, Any]], limit: int | None) -> int:
    """Return how many characters the steps together may write for one."""
    together = 1
    for step in steps:
        growth = _growth(step)
        together *= growth
        if growth > MOST_OF_A_STEP or (limit is not None and together > limit):
            written = max(growth, together)
            raise ValueError(
                f"{step['type']} may write {written} characters for one, expected at most {MOST_OF_A_STEP}"
            )
    return together


def _growth(step: dict[str, Any]) -> int:
    """Return how many characters a step may write for one, rounded up."""
    kind = step["type"]
    if kind == "Replace":
        pattern = step["pattern"].get("String")
        if not pattern:  # a regular expression, or nothing, may match between any two characters
            return len(step["content"]) + 1
        return max(-(-len(step["content"]) // len(pattern)), 1)
    if kind == "Prepend":
        return max(len(step["prepend"]), 1)  # once, and not for each character
    if kind == "Precompiled":
        return _longest_of_table(step["precompiled_charsmap"])
    return GROWTH_OF_UNICODE.get(kind) or GROWTH_OF_BYTES.get(kind) or 1


def _longest_of_table(charsmap: str) -> int:
    """Return the length of the longest text in sentencepiece's table of characters.

    The table is the size of a trie (4 bytes, little-endian), the trie, and the texts that it leads to, each with a zero
    byte at its end.
    """
    table = base64.b64decode(charsmap)
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    return max(len(text.decode("utf-8", "replace")) for text in texts.split(b"\0"))


def _build(step: dict[str, Any]) -> Any:
    """Make one step by itself."""
    return Tokenizer.from_str(json.dumps({"version": "1.0", "normalizer": step, "model": NO_WORDS})).normalizer
