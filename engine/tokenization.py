"""From pairs of text to token ids: each distinct text is encoded once a chunk, pairs are cut, and laid end to end.

Truncation and the template of special tokens are done here on lists of ids, so that the tokenizer itself is never
changed: see loaders/tokenizer.py.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import int32, int64
from numpy.typing import NDArray

from ..loaders.spec import ModelSpec
from ..loaders.tokenizer import PairTemplate, PairTokenizer
from .inputs import Pair

# More than any language needs on average: beginnings that turn out too short are encoded again, as a whole.
CHARACTERS_PER_TOKEN = 16
CUT = re.compile(r"[A-Za-z0-9] (?=[A-Za-z0-9])")


class TokenPair(NamedTuple):
    """The ids of both texts of a pair, truncated, without special tokens."""

    first: list[int]
    second: list[int]


class TokenBatch(NamedTuple):
    """The tokens of some pairs, one after the other, without padding."""

    ids: NDArray[int32]  # (T,)
    type_ids: NDArray[int32]  # (T,)
    position_ids: NDArray[int32]  # (T,)
    offsets: NDArray[int64]  # (B+1,): pair b is tokens offsets[b] to offsets[b+1]


def tokenize(
    pairs: Sequence[Pair], tokenizer: PairTokenizer, max_length: int, on_one_thread: bool = False
) -> list[TokenPair]:
    """Encode pairs, and cut each to `max_length` tokens with its special tokens.

    A text that occurs more than once (the query of `rank`) is encoded once, and of a very long text only the beginning.
    `on_one_thread` leaves the other cores to those who compute.
    """
    budget = max_length - tokenizer.template.num_special
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    starts = [beginning(text, budget) for text in texts] if tokenizer.keeps_borders else texts
    ids = dict(zip(texts, tokenizer.encode(starts, on_one_thread), strict=True))
    cut = [text for text, start in zip(texts, starts, strict=True) if len(start) < len(text)]
    whole = _find_undecided(cut, pairs, ids, budget)
    ids.update(zip(whole, tokenizer.encode(whole, on_one_thread), strict=True))
    result = []
    for query, passage in pairs:
        first, second = ids[query], ids[passage]
        if len(first) + len(second) > budget:
            keep_first, keep_second = truncate_longest_first(len(first), len(second), budget)
            first, second = first[:keep_first], second[:keep_second]
        result.append(TokenPair(first, second))
    return result


def tokenize_windows(pair: Pair, tokenizer: PairTokenizer, max_length: int) -> list[TokenPair]:
    """Encode a pair whose passage is longer than a model can read, as several pairs that together show all of it.

    Each has the query (cut to half of the budget) and a window of the passage. Windows overlap by a quarter, so that a
    sentence at a border stands whole in one of them; the last one ends with the passage.
    """
    budget = max_length - tokenizer.template.num_special
    query, passage = tokenizer.encode(list(pair))
    query = query[: max(budget // 2, budget - len(passage))]
    size = max(budget - len(query), 1)
    step = max(size - size // 4, 1)
    starts = [*range(0, max(len(passage) - size, 0), step), max(len(passage) - size, 0)]
    return [TokenPair(query, passage[start : start + size]) for start in starts]


def beginning(text: str, budget: int) -> str:
    """Return a beginning of the text that almost always has more than `budget` tokens; a short text as a whole.

    The cut is made at a space between two ASCII letters or digits. No token reaches over it where loaders/borders.py
    says so, and then the tokens of the beginning are the first tokens of the text. (A text of a million characters
    takes a second to encode, and 512 of its tokens are used.)
    """
    size = CHARACTERS_PER_TOKEN * budget
    if len(text) > size:
        for match in CUT.finditer(text, size):
            return text[: match.start() + 1]
    return text


def _find_undecided(cut: Sequence[str], pairs: Sequence[Pair], ids: dict[str, list[int]], budget: int) -> list[str]:
    """Return those long texts whose beginning does not decide how their pairs are truncated.

    It decides if it fills the budget and the other text of the pair is shorter than half: then the other is kept, and
    this one cut to the rest. Otherwise the true lengths are compared.
    """
    suspects = set(cut)
    whole = {text for text in suspects if len(ids[text]) <= budget}
    for pair in pairs if suspects else ():
        for text, other in (pair, pair[::-1]):
            if text in suspects and len(ids[other]) >= budget // 2:
                whole |= {text, other} & suspects
    return list(whole)


def truncate_longest_first(first: int, second: int, budget: int) -> tuple[int, int]:
    """Return how many tokens of each text are kept, as the ``longest_first`` strategy of transformers does.

    The longer text is cut down to what the shorter leaves of the budget, but not below half of it; if that is not
    enough, both get half, and the longer (of two equals, the second) the odd token.

    Examples
    --------
    >>> truncate_longest_first(3, 20, 9), truncate_longest_first(20, 8, 9), truncate_longest_first(8, 8, 9)
    ((3, 6), (5, 4), (4, 5))
    """
    if first + second <= budget:
        return first, second
    short = min(first, second, budget // 2)
    return (budget - short, short) if first > second else (short, budget - short)


def lay_out(pairs: Sequence[TokenPair], template: PairTemplate, spec: ModelSpec) -> TokenBatch:
    """Put the special tokens round each pair and lay the pairs end to end."""
    ids: list[int] = []
    sizes: list[tuple[int, ...]] = []
    for first, second in pairs:
        ids += [*template.before, *first, *template.between, *second, *template.after]
        sizes.append((len(template.before), len(first), len(template.between), len(second), len(template.after)))
    counts = np.array(sizes, int64)  # (B, 5)
    offsets = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])  # (B+1,)
    type_ids = np.repeat(np.tile(np.array(template.types, int32), len(pairs)), counts.ravel())  # (T,)
    id_array = np.array(ids, int32)
    return TokenBatch(id_array, type_ids, number_positions(id_array, offsets, spec), offsets)


def number_positions(ids: NDArray[int32], offsets: NDArray[int64], spec: ModelSpec) -> NDArray[int32]:
    """Return the row of the position table of each token: (T,).

    They are counted from the spec's first position. Where the spec names a padding token, one that stands in a text
    literally takes that token's row and does not advance the count (transformers' create_position_ids_from_input_ids).
    """
    counted = np.ones(len(ids), int64) if spec.pad_token_id is None else (ids != spec.pad_token_id).astype(int64)
    before = np.concatenate([[0], np.cumsum(counted)])  # tokens counted before each place
    index = before[1:] - np.repeat(before[offsets[:-1]], np.diff(offsets))  # 1, 2, 3 ... in each pair
    return np.where(counted, index - 1 + spec.first_position, spec.pad_token_id or 0).astype(int32)
