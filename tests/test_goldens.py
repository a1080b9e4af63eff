"""numbert against what transformers computed: token ids equal, logits close. Runs without torch and transformers."""

from functools import cache

import numpy as np
import pytest
from checkpoints import (
    NAMES,
    TOKENIZER_LENGTHS,
    TOKENIZERS,
    Golden,
    load_golden,
    load_golden_tokens,
    logits_of,
    tokens_of,
)
from hostile_pairs import PAIRS
from numbert import CrossEncoder
from numbert.loaders.files import ModelFiles
from numbert.loaders.tokenizer import load_tokenizer
from random_models import make_spec

# Absolute, on logits of -7 to 7: what numbert promises for float32. transformers computed in float32 too, and is itself
# up to 5e-6 from the float64 result, so that no backend can come much closer than that.
TOLERANCE = 1e-4  # worst seen: cpu 1.0e-5, reference 7.6e-6, in float64 4.6e-6

golden = pytest.mark.parametrize("name", NAMES)
cached_golden = cache(load_golden)


def largest_difference(model: CrossEncoder, expected: Golden, some: slice) -> float:
    difference = logits_of(model, PAIRS[some]) - expected.logits[some]
    return float(np.abs(difference).max())


@golden
def test_token_ids_and_types_equal_those_of_transformers(name: str) -> None:
    expected = cached_golden(name)
    model = CrossEncoder(expected.folder, backend="reference")
    ids, type_ids = tokens_of(PAIRS, model._scorer.tokenizer, model.spec, model.max_seq_length)
    for pair, *ours_and_theirs in zip(PAIRS, ids, expected.ids, type_ids, expected.type_ids, strict=True):
        our_ids, their_ids, our_types, their_types = ours_and_theirs
        assert our_ids == their_ids, pair
        assert our_types == their_types, pair


@pytest.mark.parametrize("max_length", TOKENIZER_LENGTHS)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_token_ids_of_tokenizers_without_a_model_equal_those_of_transformers(kind: str, max_length: int) -> None:
    expected = load_golden_tokens(kind)
    tokenizer = load_tokenizer(ModelFiles(expected.folder), vocab_size=503, num_token_types=2)
    spec = make_spec(8, 1, 8, 1, 1)
    ids, type_ids = tokens_of(expected.pairs, tokenizer, spec, max_length)
    for pair, ours, theirs in zip(expected.pairs, ids, expected.ids[max_length], strict=True):
        assert ours == theirs, pair
    assert not any(number for row in type_ids for number in row)  # transformers gives none


@golden
def test_cpu_logits_are_those_of_transformers(name: str) -> None:
    expected = cached_golden(name)
    worst = largest_difference(CrossEncoder(expected.folder, backend="cpu"), expected, slice(None))
    assert worst <= TOLERANCE, worst


@golden
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reference_logits_are_those_of_transformers(name: str, dtype: str) -> None:
    expected = cached_golden(name)
    model = CrossEncoder(expected.folder, backend="reference", dtype=dtype)
    every = 17 if name == "tiny-reranker" else 5  # of which the two dtypes, which share their code, take turns
    worst = largest_difference(model, expected, slice(every * (dtype == "float32"), None, 2 * every))
    assert worst <= TOLERANCE, worst
