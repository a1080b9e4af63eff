"""Token ids of kinds of tokenizers of which no checkpoint is recorded, against those of transformers."""

import importlib
import shutil

import pytest
from checkpoints import TOKENIZERS, edit_json, tokens_of
from hostile_pairs import PAIRS, make_pairs
from numbert.loaders.files import ModelFiles
from numbert.loaders.tokenizer import PairTokenizer, load_tokenizer
from random_models import make_spec
from tokenizers_of_families import added_tokens, write

pytest.importorskip("transformers", reason="transformers is not installed")
record_goldens = importlib.import_module("record_goldens")

pytestmark = pytest.mark.parity

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
    assert len(used) >= 0.8 * tokenizer.tokenizer.get_vocab_size()  # not the bytes that need no token of their own


# transformers keeps every combination of pieces that truncation cuts off the two texts, which takes minutes where
# pieces are short: so the shortest length is tried on fewer pairs, and not on the very long ones.
@pytest.mark.parametrize(
    ("max_length", "step", "longest"),
    [
        (16, 50, 1000),
        (64, 10, 10_000),
        *(pytest.param(*case, marks=pytest.mark.long) for case in ((16, 5, 1000), (64, 1, 10_000), (512, 1, 10_000))),
    ],
)
def test_hostile_pairs_are_tokenized_as_by_transformers(folder, pairs, max_length, step, longest):
    pairs = [pair for pair in pairs[::step] if max(map(len, pair)) <= longest]
    assert len(pairs) >= MADE / step
    theirs = record_goldens.tokens_of_modernbert(folder, pairs, max_length)
    ids, type_ids = tokens_of(pairs, load(folder), SPEC, max_length)
    wrong = [pair for pair, our_ids, their_ids in zip(pairs, ids, theirs, strict=True) if our_ids != their_ids]
    assert not wrong, f"{len(wrong)} of {len(pairs)}, the first: {wrong[0]!a}"
    assert not any(number for row in type_ids for number in row)


def without_blanks(config):
    for token in config["added_tokens_decoder"].values():
        token["lstrip"] = False


def taking_blanks(config):
    for token in config["added_tokens_decoder"].values():
        token.update(rstrip=True, normalized=False)


def with_whole_words(config):
    for token in config["added_tokens_decoder"].values():
        token["single_word"] = True


def with_an_ordinary_word_for_mask(config):
    config["mask_token"] = "e"


def with_a_word_that_takes_blanks_for_mask(config):
    config["mask_token"] = {"__type": "AddedToken", "content": "s", "rstrip": True, "normalized": False}


def with_more_special_words(config):
    config["additional_special_tokens"] = ["a", "s"]


def with_a_special_word_of_its_own(config):
    del config["added_tokens_decoder"]
    config["answer_token"] = "o"


def with_a_described_word_of_its_own(config):
    config["answer_token"] = {"__type": "AddedToken", "content": "o", "normalized": False}


def with_specific_words(config):
    config["model_specific_special_tokens"] = {"answer_token": "e"}


CHANGES = [without_blanks, taking_blanks, with_whole_words, with_an_ordinary_word_for_mask, with_more_special_words]
CHANGES += [
    with_specific_words,
    with_a_described_word_of_its_own,
    with_a_word_that_takes_blanks_for_mask,
    with_a_special_word_of_its_own,
]


@pytest.mark.parametrize("change", CHANGES)
def test_added_tokens_of_tokenizer_config_are_those_of_transformers(folder, tmp_path, change):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    pairs = make_pairs(300, added_tokens(folder), seed=2)
    before, _ = tokens_of(pairs, load(tmp_path), SPEC, 64)
    edit_json(tmp_path / "tokenizer_config.json", change)
    ours, _ = tokens_of(pairs, load(tmp_path), SPEC, 64)
    assert ours == record_goldens.tokens_of_modernbert(tmp_path, pairs, 64)
    if change is not without_blanks or folder.name.startswith("modernbert"):  # none of Gemma's takes blanks
        assert ours != before


@pytest.mark.parametrize("bos", [True, False])
def test_the_template_is_that_of_tokenizer_json_whatever_ends_the_settings_ask_for(tmp_path, bos):
    write("gemma", tmp_path)
    edit_json(tmp_path / "tokenizer_config.json", lambda config: config.update(add_bos_token=bos, add_eos_token=True))
    ours, _ = tokens_of([("", "")], load(tmp_path), SPEC, 64)
    assert ours == record_goldens.tokens_of_modernbert(tmp_path, [("", "")], 64)
