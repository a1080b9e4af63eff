"""Truncation against the tokenizers library itself, windows, and the layout of a batch."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbert.engine.tokenization import (
    TokenPair,
    beginning,
    lay_out,
    tokenize,
    tokenize_windows,
    truncate_longest_first,
)
from numbert.loaders.bert import read_spec
from numbert.loaders.files import ModelFiles
from numbert.loaders.source import EMBEDDED_FOLDER
from numbert.loaders.spec import Config
from numbert.loaders.tokenizer import load_tokenizer
from recording_backend import NumberTokenizer
from tokenizers import Tokenizer

SPEC = read_spec(Config.read(ModelFiles(EMBEDDED_FOLDER), "config.json"))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(ModelFiles(EMBEDDED_FOLDER), 10_000, 2)


@given(st.integers(0, 600), st.integers(0, 600), st.integers(1, 512))
def test_truncation_keeps_the_budget_and_favours_the_shorter(first, second, budget):
    kept = truncate_longest_first(first, second, budget)
    assert sum(kept) == min(first + second, budget)
    assert kept[0] <= first
    assert kept[1] <= second
    if min(first, second) <= budget // 2:
        assert min(first, second) in kept


@pytest.mark.parametrize("max_length", [4, 5, 12, 13, 64])
def test_truncation_is_that_of_the_library(tokenizer, max_length):
    library = Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json"))
    library.enable_truncation(max_length, strategy="longest_first")
    sizes = [0, 1, 3, 4, 5, 8, 20, 30, 31, 70]
    pairs = [("one " * a, "two " * b) for a in sizes for b in sizes]
    tokens = tokenize(pairs, tokenizer, max_length)
    batch = lay_out(tokens, tokenizer.template, SPEC)
    for i, pair in enumerate(pairs):
        encoding = library.encode(*pair)
        part = slice(batch.offsets[i], batch.offsets[i + 1])
        assert batch.ids[part].tolist() == encoding.ids, pair
        assert batch.type_ids[part].tolist() == encoding.type_ids, pair
        assert batch.position_ids[part].tolist() == list(range(len(encoding.ids)))


def test_a_batch_lies_end_to_end(tokenizer):
    batch = lay_out([TokenPair([7, 8], [9]), TokenPair([], [])], tokenizer.template, SPEC)
    assert batch.ids.tolist() == [2, 7, 8, 3, 9, 3, 2, 3, 3]
    assert batch.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 1]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert batch.offsets.tolist() == [0, 6, 9]
    assert [array.dtype for array in batch] == [np.int32, np.int32, np.int32, np.int64]


def test_a_padding_token_in_a_text_takes_its_own_row_and_no_place_in_the_count(tokenizer):
    spec = dataclasses.replace(SPEC, pad_token_id=9, first_position=10)
    batch = lay_out([TokenPair([7, 9, 8], [9]), TokenPair([9], [7])], tokenizer.template, spec)
    assert batch.ids.tolist() == [2, 7, 9, 8, 3, 9, 3, 2, 9, 3, 7, 3]
    assert batch.position_ids.tolist() == [10, 11, 9, 12, 13, 9, 14, 10, 9, 11, 12, 13]


def test_without_a_padding_token_positions_are_counted_from_the_first(tokenizer):
    batch = lay_out(
        [TokenPair([7], [0]), TokenPair([], [])], tokenizer.template, dataclasses.replace(SPEC, first_position=4)
    )
    assert batch.position_ids.tolist() == [4, 5, 6, 7, 8, 4, 5, 6]


ODD_WORDS = ["a", "Berlin", "éa", "a\u0301", "東京", "🙂", "[SEP]", "[MASK]"]
ODD_WORDS += ["\t", "\n", "\u3000", "\u0301", "##s", "x" * 120, "\0"]


@given(st.lists(st.sampled_from(ODD_WORDS), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 20))
def test_a_beginning_gives_the_first_tokens_of_the_text(tokenizer, words, repeats, budget):
    text = " ".join(words * repeats)
    start = beginning(text, budget)
    assert text.startswith(start)
    some, every = tokenizer.encode([start, text])
    assert every[: len(some)] == some


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=3), st.integers(4, 40))
def test_long_texts_are_truncated_as_if_they_were_encoded_whole(tokenizer, sizes, max_length):
    pairs = [("one big " * a, "two " * b) for a, b in sizes]
    budget = max_length - 3
    for (first, second), got in zip(pairs, tokenize(pairs, tokenizer, max_length), strict=True):
        whole = tokenizer.encode([first, second])
        keep = truncate_longest_first(len(whole[0]), len(whole[1]), budget)
        assert got == (whole[0][: keep[0]], whole[1][: keep[1]])


def test_of_a_huge_text_only_the_beginning_is_encoded(tokenizer):
    seen: list[str] = []

    def encode(texts, **options):
        seen.extend(texts)
        return tokenizer.tokenizer.encode_batch_fast(texts, **options)

    spy = tokenizer._replace(tokenizer=SimpleNamespace(encode_batch_fast=encode))
    tokenize([("query", "word " * 200_000)], spy, 512)
    assert max(map(len, seen)) < 10_000


@pytest.mark.parametrize(
    ("text", "budget", "expected"),
    [
        ("aaaa " * 10, 1, "aaaa aaaa aaaa aaaa"),  # the first space behind 16 characters
        ("aaaa aaaa aaa aa", 1, "aaaa aaaa aaa aa"),
        ("aaaa aaaa aaa a b", 1, "aaaa aaaa aaa a b"),  # there is none behind them
        ("a" * 20 + " b c", 1, "a" * 20),
        ("a" * 20 + " (b) c" + " d", 1, "a" * 20 + " (b) c"),  # none between a letter and a bracket
        ("é é " * 10, 1, "é é " * 10),
        ("aaaa " * 10, 2, "aaaa aaaa aaaa aaaa aaaa aaaa aaaa"),
    ],
)
def test_where_a_text_is_cut(text, budget, expected):
    assert beginning(text, budget) == expected


# ---- which texts are encoded; each word is one token here, and SIZE characters are a long text


class CountingTokenizer(NumberTokenizer):
    """Remembers what it encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode(self, texts: list[str], on_one_thread: bool = False) -> list[list[int]]:
        self.encoded += texts
        return super().encode(texts)


BUDGET = 6
MAX_LENGTH = BUDGET + 3
MANY_TOKENS = "5 " * 100  # of its 200 characters, 96 and more are 48 tokens
FEW_TOKENS = f"{'5' * 50} " * 4  # of its 204, 96 and more are 2


def times_encoded(text: str, other: str, *, reverse: bool) -> tuple[int, int]:
    """Return how often a text and another are encoded, in parts or whole, for this pair or its reverse."""
    counting, pair = CountingTokenizer(), (other, text) if reverse else (text, other)
    (tokens,) = tokenize([pair], counting, MAX_LENGTH)
    first, second = NumberTokenizer().encode(list(pair))
    keep_first, keep_second = truncate_longest_first(len(first), len(second), BUDGET)
    assert tokens == (first[:keep_first], second[:keep_second])
    return sum(text.startswith(part) for part in counting.encoded), counting.encoded.count(other)


@pytest.mark.parametrize(
    ("text", "other", "times"),
    [
        ("5", "6", (1, 1)),
        (MANY_TOKENS, "6 6", (1, 1)),  # the other is kept, and this one cut to what remains
        (MANY_TOKENS, "6 6 6", (2, 1)),  # which of them is longer?
        (MANY_TOKENS, "6 6 6 6 6 6 6", (2, 1)),
        (FEW_TOKENS, "6", (2, 1)),  # the beginning does not fill the budget
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_text_is_encoded_as_a_whole_only_where_its_beginning_does_not_decide(text, other, times, reverse):
    assert times_encoded(text, other, reverse=reverse) == times


def test_a_tokenizer_that_leaves_out_a_text_is_an_error():
    tokenizer = NumberTokenizer()
    tokenizer.encode = lambda texts, on_one_thread: [[5]][: len(texts)]
    with pytest.raises(ValueError, match="zip"):
        tokenize([("5", "6")], tokenizer, MAX_LENGTH)


def test_a_text_of_many_pairs_is_encoded_once():
    counting = CountingTokenizer()
    pairs = [("1 2", "3"), ("1 2", "4"), ("3", "1 2"), ("1 2", "3")]
    tokens = tokenize(pairs, counting, 20)
    assert tokens == [([1, 2], [3]), ([1, 2], [4]), ([3], [1, 2]), ([1, 2], [3])]
    assert sorted(counting.encoded) == ["1 2", "3", "4"]


# ---- windows


@pytest.mark.parametrize(
    ("query", "passage", "budget", "expected"),
    [
        (2, 10, 8, [(2, 0, 6), (2, 4, 10)]),  # windows of 6; the last ends with the passage
        (2, 17, 8, [(2, 0, 6), (2, 5, 11), (2, 10, 16), (2, 11, 17)]),  # a quarter of 6 is 1
        (2, 11, 8, [(2, 0, 6), (2, 5, 11)]),
        (4, 12, 12, [(4, 0, 8), (4, 4, 12)]),
        (9, 8, 8, [(4, 0, 4), (4, 3, 7), (4, 4, 8)]),  # the query is cut to half
        (9, 2, 8, [(6, 0, 2)]),  # or to what a short passage leaves
        (3, 2, 8, [(3, 0, 2)]),
        (9, 0, 8, [(8, 0, 0)]),
        (1, 4, 2, [(1, 0, 1), (1, 1, 2), (1, 2, 3), (1, 3, 4)]),
        (5, 3, 1, [(0, 0, 1), (0, 1, 2), (0, 2, 3)]),
    ],
)
def test_windows(query, passage, budget, expected):
    first, second = list(range(query)), list(range(100, 100 + passage))
    windows = tokenize_windows((" ".join(map(str, first)), " ".join(map(str, second))), NumberTokenizer(), budget + 3)
    assert windows == [(first[:size], second[start:end]) for size, start, end in expected]


@given(st.integers(0, 40), st.integers(0, 200), st.integers(1, 50))
def test_windows_show_the_whole_passage_and_overlap(query, passage, budget):
    first, second = list(range(query)), list(range(100, 100 + passage))
    windows = tokenize_windows((" ".join(map(str, first)), " ".join(map(str, second))), NumberTokenizer(), budget + 3)
    assert all(len(window.first) + len(window.second) <= budget for window in windows)
    assert sorted({number for window in windows for number in window.second}) == second
    assert windows[-1].second == second[len(second) - len(windows[-1].second) :]
    for window, following in itertools.pairwise(windows):
        overlap = set(window.second) & set(following.second)
        assert len(overlap) >= len(window.second) // 4
        assert following.second[0] > window.second[0]
