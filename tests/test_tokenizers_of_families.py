"""Tokenizers of ModernBERT's and Gemma's kind: what the files beside tokenizer.json change, and where texts are cut."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import GOLDENS, edit_json
from numbert import TokenizerError
from numbert.engine.tokenization import TokenPair, tokenize
from numbert.loaders.borders import keeps_borders
from numbert.loaders.files import ModelFiles
from numbert.loaders.tokenizer import PairTokenizer, load_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers


@pytest.fixture
def copy(tmp_path) -> Callable[[str], Path]:
    """A function that copies the files of a recorded tokenizer into a folder that a test may spoil."""

    def action(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for path in (GOLDENS / name).glob("tokenizer*.json"):
            shutil.copyfile(path, folder / path.name)
        return folder

    return action


def load(folder: Path) -> PairTokenizer:
    return load_tokenizer(ModelFiles(folder), vocab_size=503, num_token_types=2)


def words(folder: Path, text: str) -> list[str]:
    tokenizer = load(folder)
    return [tokenizer.tokenizer.id_to_token(number) for number in tokenizer.encode([text])[0]]


# ---- added tokens


@pytest.mark.parametrize(("lstrip", "expected"), [(True, ["a", "[MASK]"]), (False, ["a", "  ", "[MASK]"])])
def test_flags_of_added_tokens_are_those_of_tokenizer_config(copy, lstrip, expected):
    folder = copy("tokenizers/modernbert")

    def change(config):
        token = next(token for token in config["added_tokens_decoder"].values() if token["content"] == "[MASK]")
        token["lstrip"] = lstrip

    edit_json(folder / "tokenizer_config.json", change)
    assert words(folder, "a  [MASK]") == expected


@pytest.mark.parametrize("settings", [{"mask_token": "[MASK]"}, {"additional_special_tokens": ["[MASK]"]}], ids=str)
def test_a_word_that_tokenizer_config_names_special_is_found_in_texts(copy, settings):
    folder = copy("narrow")
    edit_json(folder / "tokenizer.json", lambda content: content.update(added_tokens=[]))
    (folder / "tokenizer_config.json").write_text("{}")
    assert "[MASK]" not in words(folder, "a [MASK]")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert words(folder, "a [MASK]") == ["a", "[MASK]"]


NO_WORDS = [{"mask_token": "<nothing>"}, {"mask_token": None}, {"answer_token": {"content": "a"}}, {"add_token": True}]


@pytest.mark.parametrize("settings", NO_WORDS, ids=str)
def test_what_names_no_word_of_the_tokenizer_adds_none(copy, settings):
    folder = copy("narrow")
    before = load(folder).tokenizer.get_added_tokens_decoder()
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(settings))
    assert load(folder).tokenizer.get_added_tokens_decoder().keys() == before.keys()


@pytest.mark.parametrize(("rstrip", "expected"), [(True, []), (False, ["  "])])
def test_a_special_word_is_found_with_its_flags(copy, rstrip, expected):
    folder = copy("tokenizers/modernbert")
    token = {"__type": "AddedToken", "content": "s", "rstrip": rstrip, "normalized": False}
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(mask_token=token))
    assert words(folder, "a s  b") == ["a", "\u0120", "s", *expected, "b"]


@pytest.mark.parametrize("value", [3, "x", None])
def test_a_flag_that_is_none_is_refused(copy, value):
    folder = copy("tokenizers/modernbert")
    edit_json(folder / "tokenizer_config.json", lambda config: config["added_tokens_decoder"]["0"].update(lstrip=value))
    with pytest.raises(TokenizerError, match="found no usable tokenizer"):
        load(folder)


def test_a_described_token_is_looked_at_before_the_library_normalizes_it(copy):
    folder = copy("tokenizers/modernbert")
    step = {"type": "Replace", "pattern": {"String": "["}, "content": "[["}
    chain = {"type": "Sequence", "normalizers": [step] * 33}
    edit_json(folder / "tokenizer.json", lambda content: content.update(normalizer=chain, added_tokens=[]))
    edit_json(folder / "tokenizer.json", lambda content: content["model"]["vocab"].update({"[[": 490}))
    token = {"content": "[[", "normalized": True}
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder={"490": token}))
    with pytest.raises(TokenizerError, match="found a normalizer that makes"):
        load(folder)


def test_described_tokens_are_few_since_the_library_compares_each_with_all(copy, monkeypatch):
    folder = copy("tokenizers/modernbert")
    many = {"0" * (size + 1): {"content": "|||IP_ADDRESS|||"} for size in range(200)}
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder=many))
    load(folder)
    monkeypatch.setattr("numbert.loaders.added_tokens.MOST_ADDED_TOKENS", 199)
    with pytest.raises(TokenizerError, match="found 200 added tokens, expected at most 199"):
        load(folder)


# ---- where long texts may be cut


WORD = "ab" * 20  # longer than 32 characters, which two tokens are taken to have at most
TEXT = f"{WORD} ba"


def byte_pairs(merges: list[tuple[str, str]], **settings: str) -> Tokenizer:
    letters = ["a", "b", " "]
    ends = [letter + settings.get("end_of_word_suffix", "") for letter in letters]
    words = dict.fromkeys([*letters, *ends, *("".join(merge) for merge in merges)])
    return Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, **settings))


def gathering(last: str) -> list[tuple[str, str]]:
    """Merges that gather the letters of the word from its end, where `last` stands, to its fourth letter."""
    return [(WORD[i], WORD[i + 1 : -1] + last) for i in range(len(WORD) - 2, 2, -1)]


def word_pieces() -> Tokenizer:
    pieces = ["[UNK]", "a", "##a", "##b"]
    return Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))


def with_added(content: str) -> Tokenizer:
    tokenizer = byte_pairs([])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens([AddedToken(content)])
    return tokenizer


# In each, what stands behind the word decides what its first two tokens are.
ACROSS = {
    "a merge": byte_pairs([("b", " "), *gathering("b "), ("a", "b")]),
    "a mark at the end": byte_pairs([*gathering("b</w>"), ("a", "b")], end_of_word_suffix="</w>"),
    "an unknown word": word_pieces(),
    "an added token": with_added(TEXT),
}


@pytest.mark.parametrize("library", ACROSS.values(), ids=ACROSS)
def test_texts_are_not_cut_where_a_token_could_reach_across(library):
    tokenizer = load(GOLDENS / "tokenizers" / "gemma")
    tokenizer = tokenizer._replace(tokenizer=library, keeps_borders=keeps_borders(library, library.get_vocab()))
    whole, part = tokenizer.encode([TEXT, WORD])
    assert len(part) > 2
    assert whole[:2] != part[:2]
    assert tokenize([(TEXT, "")], tokenizer, 2 + tokenizer.template.num_special) == [TokenPair(whole[:2], [])]


def with_normalizer(pattern: str, content: str) -> Tokenizer:
    tokenizer = byte_pairs([("a", "b")])
    tokenizer.normalizer = normalizers.Replace(pattern, content)
    return tokenizer


def with_one_word_for_all() -> Tokenizer:
    tokenizer = byte_pairs([("a", "b")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="_", split=False)
    return tokenizer


@pytest.mark.parametrize("library", [with_normalizer(" ", ""), with_normalizer(" ", "_"), with_one_word_for_all()])
def test_texts_are_not_cut_where_a_blank_is_no_longer_one(library):
    assert not keeps_borders(library, library.get_vocab())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"1" * 5000: {"content": "w1"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "\ud800"}}}),
        ("tokenizer_config.json", {"extra_special_tokens": ["\ud800"]}),
        ("added_tokens.json", {"\ud800": 3}),
    ],
)
def test_added_tokens_that_no_tokenizer_takes_are_refused(copy, name, content):
    folder = copy("tokenizers/modernbert")
    path = folder / name
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**before, **content}))
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json|added_tokens\.json"):
        load(folder)


@pytest.mark.parametrize("kind", ["modernbert", "gemma"])
def test_recorded_kinds_may_be_cut(kind):
    assert load(GOLDENS / "tokenizers" / kind).keeps_borders


def test_a_file_with_a_token_that_reaches_across_is_not_cut(copy):
    folder = copy("tokenizers/modernbert")
    token = {"id": 490, "content": "a b", "single_word": False, "lstrip": False, "rstrip": False}
    token |= {"normalized": False, "special": False}
    edit_json(folder / "tokenizer.json", lambda content: content["added_tokens"].append(token))
    assert not load(folder).keeps_borders


def test_words_as_a_whole_may_be_cut_where_they_are_split(copy):
    tokenizer = word_pieces()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    assert keeps_borders(tokenizer, tokenizer.get_vocab())
    tokenizer.pre_tokenizer = pre_tokenizers.Digits()
    assert not keeps_borders(tokenizer, tokenizer.get_vocab())
