"""Token ids of kinds of tokenizers of which no checkpoint is recorded, against those of transformers."""

import importlib

import pytest
from checkpoints import TOKENIZERS, tokens_of
from hostile_pairs import PAIRS, make_pairs
from numbert.loaders.files import ModelFiles
from numbert.loaders.tokenizer import PairTokenizer, load_tokenizer
from random_models import make_spec
from tokenizers_of_families import added_tokens, write

pytest.importorskip("transformers", reason="transformers is not installed")
record_goldens = importlib.import_module("record_goldens")

pytestmark = pytest.mark.parity

LENGTHS = (16, 64, 512)
SPEC = make_spec(8, 1, 8, 1, 1)
MADE = 5000  # pairs, that is 10,000 strings


@pytest.fixture(scope="module", params=TOKENIZERS)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write(request.param, folder)
    return folder


@pytest.fixture(scope="module")
def pairs(folder):
    return [*PAIRS, *make_pairs(MADE, added_tokens(folder))]


def load(folder) -> PairTokenizer:
    return load_tokenizer(ModelFiles(folder), vocab_size=503, num_token_types=2)


def test_the_pairs_are_different_ones_and_use_nearly_every_token(folder, pairs):
    texts = {text for pair in pairs[len(PAIRS) :] for text in pair}
    assert len(texts) >= 0.95 * 2 * MADE  # the others are empty, or one short piece
    tokenizer = load(folder)
    used = {number for ids in tokenizer.encode(list(texts)) for number in ids}
    assert len(used) >= 0.9 * tokenizer.tokenizer.get_vocab_size()  # not the bytes that no character has


@pytest.mark.parametrize("max_length", LENGTHS)
def test_hostile_pairs_are_tokenized_as_by_transformers(folder, pairs, max_length):
    theirs = record_goldens.tokens_of_modernbert(folder, pairs, max_length)
    ids, type_ids = tokens_of(pairs, load(folder), SPEC, max_length)
    wrong = [pair for pair, our_ids, their_ids in zip(pairs, ids, theirs, strict=True) if our_ids != their_ids]
    assert not wrong, f"{len(wrong)} of {len(pairs)}, the first: {wrong[0]!a}"
    assert not any(number for row in type_ids for number in row)
