"""Truncation against the tokenizers library itself, and the layout of a batch."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbert.engine.tokenization import TokenPair, beginning, lay_out, tokenize, truncate_longest_first
from numbert.loaders.bert import read_spec
from numbert.loaders.files import ModelFiles
from numbert.loaders.source import EMBEDDED_FOLDER
from numbert.loaders.spec import Config
from numbert.loaders.tokenizer import load_tokenizer
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
