"""Token ids of kinds that transformers 5 makes anew: of the published file, and of what transformers makes of it."""

import json

import pytest
from checkpoints import tokens_of
from hostile_pairs import PAIRS, PASSAGES, QUERIES, make_pairs
from numbert.loaders.files import ModelFiles
from numbert.loaders.tokenizer import PairTokenizer, load_tokenizer
from random_models import make_spec
from tokenizers import Tokenizer, normalizers
from tokenizers_of_families import REBUILT, added_tokens, write

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]  # the peer's own warnings are its own

SPEC = make_spec(8, 1, 8, 1, 1)
MADE = 5000  # pairs, that is 10,000 strings
ROWS = 503
WITHOUT_TYPES = ("jina", "xlm-roberta", "xlm-roberta-newer", "albert")
AS_PUBLISHED = ("jina", "albert", "xlm-roberta", "deberta")  # whose ids of a text are the same when made anew
OTHERWISE = tuple(kind for kind in REBUILT if kind not in AS_PUBLISHED)


@pytest.fixture(scope="module", params=REBUILT)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers") / request.param
    write(request.param, folder)
    return folder


@pytest.fixture(scope="module")
def pairs(folder):
    return [*PAIRS, *make_pairs(MADE, added_tokens(folder))]


@pytest.fixture(scope="module", params=[20, pytest.param(1, marks=pytest.mark.long)], ids=["some", "all"])
def texts(request, pairs):
    """Every text that is not very long, which are at least 10,000, or some of them."""
    texts = [text for pair in pairs for text in pair if len(text) <= 2000]
    assert len(texts) >= 2 * MADE
    return texts[:: request.param]


def load(folder) -> PairTokenizer:
    return load_tokenizer(ModelFiles(folder), vocab_size=ROWS, num_token_types=2)


def published(folder) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def made_anew(folder):
    """Load the class that tokenizer_config.json names, as transformers does."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, config=transformers.BertConfig())
    named = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["tokenizer_class"]
    assert type(tokenizer).__name__ == named
    return tokenizer


def words(folder, ids: list[int]) -> list[str]:
    tokenizer = published(folder)
    return [tokenizer.id_to_token(number) for number in ids]


# ---- the published file


def test_texts_are_those_of_the_published_file(folder, texts):
    theirs = published(folder).encode_batch_fast(texts, add_special_tokens=False)
    assert load(folder).encode(texts) == [encoding.ids for encoding in theirs]


# The shortest length is tried on fewer pairs, and not on very long ones: see test_parity_tokenizers.py.
@pytest.mark.parametrize(
    ("max_length", "step", "longest"),
    [
        (16, 50, 1000),
        (64, 10, 10_000),
        *(pytest.param(*case, marks=pytest.mark.long) for case in ((16, 5, 1000), (64, 1, 10_000), (512, 1, 10_000))),
    ],
)
def test_pairs_are_tokenized_as_transformers_does_with_the_published_file(folder, pairs, max_length, step, longest):
    pairs = [pair for pair in pairs[::step] if max(map(len, pair)) <= longest]
    assert len(pairs) >= MADE / step
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ids, types = tokens_of(pairs, load(folder), SPEC, max_length)
    for start in range(0, len(pairs), 32):  # the library keeps every combination of what truncation cuts off
        part = slice(start, start + 32)
        queries, passages = ([pair[side] for pair in pairs[part]] for side in (0, 1))
        settings = {"truncation": "longest_first", "max_length": max_length, "return_token_type_ids": True}
        theirs = tokenizer(queries, passages, **settings)
        assert ids[part] == theirs["input_ids"]
        if folder.name not in WITHOUT_TYPES:
            assert types[part] == theirs["token_type_ids"]


# ---- what transformers makes anew


def test_types_are_those_of_the_class(folder):
    tokens = made_anew(folder)(["one"], ["two three"])
    _, types = tokens_of([("one", "two three")], load(folder), SPEC, 64)
    assert ("token_type_ids" not in tokens) == (folder.name in WITHOUT_TYPES)
    assert any(types[0]) == (folder.name not in WITHOUT_TYPES)


@pytest.mark.parametrize("folder", AS_PUBLISHED, indirect=True)
def test_these_classes_give_the_ids_of_the_published_file(folder, texts):
    assert load(folder).encode(texts) == made_anew(folder)(texts, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("folder", OTHERWISE, indirect=True)
def test_every_class_gives_the_ids_of_the_published_file_for_ordinary_texts(folder):
    texts = QUERIES + PASSAGES
    assert load(folder).encode(texts) == made_anew(folder)(texts, add_special_tokens=False)["input_ids"]


def test_debertas_first_class_has_two_separators_and_no_second_type_where_the_model_was_trained_with_one(tmp_path):
    write("deberta", tmp_path)
    pairs = [("one", "two")]
    ids, types = tokens_of(pairs, load(tmp_path), SPEC, 64)
    theirs = made_anew(tmp_path)(["one"], ["two"])
    separator = ids[0][-1]
    second = ids[0].index(separator)
    assert theirs["input_ids"][0] == [*ids[0][: second + 1], separator, *ids[0][second + 1 :]]
    assert not any(theirs["token_type_ids"][0])
    assert types[0] == [0] * (second + 1) + [1] * (len(ids[0]) - second - 1)


@pytest.mark.parametrize("folder", ["deberta-v2", "deberta-v2-lower"], indirect=True)
def test_debertas_class_differs_by_its_normalizer_alone(folder, texts):
    # There is no map of characters: it has NFC, and makes blanks in a row, and line ends, one blank.
    theirs = made_anew(folder)
    exchanged = load(folder)
    before = exchanged.encode(texts)
    exchanged.tokenizer.normalizer = theirs.backend_tokenizer.normalizer
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert exchanged.encode(texts) == expected
    assert sum(a != b for a, b in zip(before, expected, strict=True)) > len(texts) / 10


@pytest.mark.parametrize("folder", ["xlm-roberta-newer"], indirect=True)
def test_xlm_robertas_class_differs_by_the_blanks_alone_at_which_it_splits(folder, texts):
    theirs = made_anew(folder)
    exchanged = load(folder)
    before = exchanged.encode(texts)
    exchanged.tokenizer.normalizer = theirs.backend_tokenizer.normalizer
    exchanged.tokenizer.pre_tokenizer = theirs.backend_tokenizer.pre_tokenizer
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert exchanged.encode(texts) == expected
    different = [text for text, a, b in zip(texts, before, expected, strict=True) if a != b]
    assert len(different) > len(texts) / 10


DIFFERENT = [
    ("deberta-v2", "\uff21", ["\u2581", "A"], ["\u2581", "[UNK]"]),  # full width: in the map, not in NFC
    ("deberta-v2", "\x05", [], ["\u2581", "[UNK]"]),  # a control character
    ("xlm-roberta-newer", "a ", ["\u2581a", "\u2581"], ["\u2581a"]),  # blanks behind it
]


@pytest.mark.parametrize(("folder", "text", "ours", "theirs"), DIFFERENT, indirect=["folder"])
def test_texts_that_a_class_made_anew_takes_otherwise(folder, text, ours, theirs):
    assert words(folder, load(folder).encode([text])[0]) == ours
    assert words(folder, made_anew(folder)([text], add_special_tokens=False)["input_ids"][0]) == theirs


# ---- what stands in the files of published models


def test_debertas_mask_stands_behind_the_vocabulary_and_needs_a_row(tmp_path):
    write("deberta-v2", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    size = len(content["model"]["vocab"])
    assert content["added_tokens"][-1] | {"id": size, "content": "[MASK]"} == content["added_tokens"][-1]
    tokenizer = load_tokenizer(ModelFiles(tmp_path), vocab_size=size + 1, num_token_types=0)
    assert tokenizer.encode(["[MASK]"]) == [[size]]
    assert tokenizer.template.types == (0, 0, 0, 0, 0)


def test_normalizers_of_the_trained_kinds_have_the_map_of_characters(tmp_path):
    # A map that the library does not understand would change nothing, and prove nothing.
    for kind in ("deberta-v2", "xlm-roberta", "albert"):
        write(kind, tmp_path / kind)
        assert isinstance(published(tmp_path / kind).normalizer, normalizers.Sequence)
        assert published(tmp_path / kind).normalizer.normalize_str("\uff21\u3000\ufb01\x05").lower() == "a fi"
