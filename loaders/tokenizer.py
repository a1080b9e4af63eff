"""From tokenizer files to a tokenizer that never changes after it is made.

The `tokenizers` library turns one text into token ids. The template of a pair and truncation are ours
(engine/tokenization.py): the library's own are settings of the shared object, and setting them for one call silently
truncates the calls of other threads. tokenizer.json is taken as published.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from .added_tokens import MOST_ADDED_TOKENS, adopt_added_tokens, check_added_tokens
from .borders import keeps_borders
from .errors import ConfigError, TokenizerError
from .expansion import NO_WORDS, Growth, check_growth, measure_growth
from .files import ModelFiles
from .spec import Config, ModelSpec

Result = TypeVar("Result")
BERTS_SPECIAL = {name: f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
ROBERTAS_SPECIAL = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
CLASSES_OF_VOCABULARY = ("Bert", "Electra", "DistilBert", "PreTrained")  # the last names no class in particular
CLASSES_OF_MERGES = ("Roberta", "PreTrained")
CLASSES_WITHOUT_TYPES = ("Roberta", "XLMRoberta", "Camembert", "MPNet", "DistilBert", "Albert")
FEW_TEXTS = 4
MANY_TEXTS = 64
LARGEST_FILE = 64 * 2**20  # bytes; a tokenizer.json of 250,000 words takes 17 MB
LONGEST_WORD = 1000  # characters; WordPiece takes time that grows with the cube of it, and BERT's is 100
# A pair shows the template; two with other words, and other numbers of them, show whether it was understood; the last
# has characters that are rarely in a vocabulary, on which no tokenizer must fail.
NORMALIZED = re.compile(r'"normalized"\s*:\s*true')
TEMPLATE_PAIR = ("a", "a")
PROBES = (("one", "two three"), ("four five six", "7"), ("\u9f98", "\U0001f9ff"))


class PairTemplate(NamedTuple):
    """What surrounds the two texts of a pair: for BERT ``[CLS] query [SEP] passage [SEP]``, types 0 0 0 1 1."""

    before: tuple[int, ...]  # ids of the special tokens before the first text
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, int, int, int, int]  # token type of: before, first text, between, second text, after

    @property
    def num_special(self) -> int:
        """Number of tokens that are not of the texts."""
        return len(self.before) + len(self.between) + len(self.after)


class PairTokenizer(NamedTuple):
    """A tokenizer and what surrounds the texts that it encodes."""

    tokenizer: Tokenizer
    template: PairTemplate
    max_length: int | None  # as the files say; None when they set no limit
    path: Path  # the file that it was made from
    pad_token: str | None
    growth: Growth
    keeps_borders: bool  # a text may be cut at a blank behind a letter

    def encode(self, texts: list[str], on_one_thread: bool = False) -> list[list[int]]:
        """Return the token ids of each text, without special tokens, not truncated. Safe in any number of threads.

        The library shares the texts out among threads of its own, unless they are few or `on_one_thread` forbids it.
        """
        # For a few texts, waking threads would take longer than the texts. More are given in parts, between which an
        # interrupt is seen.
        size = 1 if on_one_thread or len(texts) <= FEW_TEXTS else MANY_TEXTS
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]

        def encode() -> list[list[int]]:
            encoded = (self.tokenizer.encode_batch_fast(batch, add_special_tokens=False) for batch in batches)
            return [encoding.ids for batch in encoded for encoding in batch]

        for text in texts if self.growth.steps else ():
            check_growth(self.path, self.growth, text)
        return _guard(self.path, encode)


def load_tokenizer(files: ModelFiles, vocab_size: int, num_token_types: int) -> PairTokenizer:
    """Read tokenizer.json, or what older checkpoints have: vocab.txt, or vocab.json with merges.txt.

    The token types of a pair are all 0 where the model has none, and where the tokenizer is of a class that
    gives none: transformers then passes none on, whatever the template in tokenizer.json says.

    Raises
    ------
    TokenizerError
        When a file is damaged, knows ids for which the model has no row, or asks for what numbert does not do.
    """
    config = Config.read_if_there(files, "tokenizer_config.json")
    side = config.values.get("truncation_side", "right")
    if side != "right":
        raise TokenizerError(
            f"{config.path}: truncation_side: found {side!r:.40}, expected 'right', all there is; correct the file"
        )
    path, tokenizer = _make_tokenizer(files, config)
    _check_model(path, tokenizer)
    _guard(config.path, lambda: check_added_tokens(files, config, tokenizer))
    growth = _guard(path, lambda: measure_growth(tokenizer))
    _guard(config.path, lambda: adopt_added_tokens(path, config, tokenizer, growth))
    for text in (*TEMPLATE_PAIR, *(text for pair in PROBES for text in pair)):
        check_growth(path, growth, text)
    tokenizer.no_truncation()  # some files carry the settings of whoever saved them
    tokenizer.no_padding()
    template = _guard(path, lambda: _observe_template(path, tokenizer))
    if num_token_types == 0 or not _gives_types(config):
        template = template._replace(types=(0, 0, 0, 0, 0))
    words = tokenizer.get_vocab(with_added_tokens=True)
    _check_ids(path, words, template, vocab_size)
    if isinstance(tokenizer.model, models.BPE):
        _check_one_token_an_id(path, tokenizer.get_vocab(with_added_tokens=False))
    limit = _max_length(config, low=template.num_special + 1)
    pad_token = _special_token(config, "pad") if "pad_token" in config.values else None
    borders = _guard(path, lambda: keeps_borders(tokenizer, words))
    return PairTokenizer(tokenizer, template, limit, path, pad_token, growth, borders)


def check_template(config: Config, spec: ModelSpec, template: PairTemplate) -> None:
    """Refuse special tokens that leave no position for text, or token types that the model has no row for.

    Raises
    ------
    ConfigError
        When there are such.
    """
    if spec.usable_length <= template.num_special:
        expected = f"more than the {template.num_special} special tokens of a pair, {spec.first_position} rows unused"
        raise config.error("max_position_embeddings", spec.max_positions, expected)
    if max(spec.num_token_types, 1) <= max(template.types):
        expected = f"at least {max(template.types) + 1}, as the tokenizer gives types 0 to {max(template.types)}"
        raise config.error("type_vocab_size", spec.num_token_types, expected)


def _make_tokenizer(files: ModelFiles, config: Config) -> tuple[Path, Tokenizer]:
    """Return the tokenizer, and the file that it was made from."""

    def content(name: str) -> str:
        return files.open(name, TokenizerError).read(LARGEST_FILE).decode()

    if "tokenizer.json" in files:
        path = files.folder / "tokenizer.json"
        return path, _guard(path, lambda: _from_json(path, content(path.name)))
    if "vocab.txt" in files:
        path = files.folder / "vocab.txt"
        return path, _guard(path, lambda: _from_vocabulary(path, content(path.name), config))
    path = files.folder / "merges.txt"
    vocabulary = Config.read(files, "vocab.json", LARGEST_FILE)
    return path, _guard(path, lambda: _from_merges(vocabulary, content(path.name), config))


def _from_json(path: Path, content: str) -> Tokenizer:
    """Read a tokenizer.json, and prove first that the library can read it in reasonable time.

    The library normalizes those added tokens that say so while it reads the file, before anyone can look at the
    normalizer. So a file with such tokens is first read without them. (Most have none, which is seen without parsing
    them, as long as no name is written in escapes.)
    """
    plain = "\\u" not in content
    if plain and content.count('"normalized"') <= MOST_ADDED_TOKENS and not NORMALIZED.search(content):
        return Tokenizer.from_str(content)
    try:
        settings = json.loads(content)
    except RecursionError as error:
        raise TokenizerError(
            f"{path}: found JSON that is nested deeper than the call stack has room, expected some levels; choose"
            " another model, or load it from a function that is not called so deep in a recursion"
        ) from error
    added = settings.get("added_tokens") or [] if isinstance(settings, dict) else []
    if len(added) > MOST_ADDED_TOKENS:
        raise ValueError(f"found {len(added)} added tokens, expected at most {MOST_ADDED_TOKENS}")
    growth = measure_growth(_without_words(settings))
    for token in added if growth.steps else ():
        check_growth(path, growth, str(token.get("content")))
    return Tokenizer.from_str(content)


def _without_words(settings: dict[str, Any]) -> Tokenizer:
    """Make what a tokenizer.json says of normalization alone: its words would be read a second time."""
    steps = {key: settings.get(key) for key in ("normalizer", "pre_tokenizer")}
    return Tokenizer.from_str(json.dumps({"version": "1.0", "model": NO_WORDS, **steps}))


def _check_model(path: Path, tokenizer: Tokenizer) -> None:
    """Refuse what makes ids a matter of chance, or of hours."""
    dropout = getattr(tokenizer.model, "dropout", None)
    if dropout:
        raise TokenizerError(
            f"{path}: model.dropout: found {dropout:g}, which gives a text other tokens each time, expected none;"
            " set it to null"
        )
    longest = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    if longest > LONGEST_WORD:
        raise TokenizerError(
            f"{path}: model.max_input_chars_per_word: found {longest}, expected at most {LONGEST_WORD}; set it to 100"
        )


def _gives_types(config: Config) -> bool:
    """Tell whether transformers' class of the tokenizer returns token types."""
    names = config.values.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return not str(config.values.get("tokenizer_class", "")).startswith(CLASSES_WITHOUT_TYPES)


def _guard(path: Path, action: Callable[[], Result]) -> Result:
    """Run what may fail inside the library, and name the file when it does."""
    try:
        return action()
    except (ConfigError, TokenizerError, MemoryError, RecursionError):  # the last two are not the file's fault
        raise
    except BaseException as error:
        # Hostile files make the library panic, and its PanicException is not an Exception.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerError(f"{path}: found no usable tokenizer ({error}); download the file again") from error
        raise


def _observe_template(path: Path, tokenizer: Tokenizer) -> PairTemplate:
    """Learn the template by encoding a pair: every kind of post-processor can be read this way."""
    encoding = tokenizer.encode(*TEMPLATE_PAIR)
    sequences, ids, types = encoding.sequence_ids, encoding.ids, encoding.type_ids
    if 0 not in sequences or 1 not in sequences:
        raise TokenizerError(
            f"{path}: found no place for two texts in its template, expected one for a pair; is this a cross-encoder?"
        )
    first, second = sequences.index(0), sequences.index(1)
    first_end = len(sequences) - sequences[::-1].index(0)
    second_end = len(sequences) - sequences[::-1].index(1)
    parts = (
        slice(0, first),
        slice(first, first_end),
        slice(first_end, second),
        slice(second, second_end),
        slice(second_end, None),
    )
    before, _, between, _, after = (tuple(ids[part]) for part in parts)
    if not before or first_end > second or any(len(set(types[part])) > 1 for part in parts):
        raise TokenizerError(
            f"{path}: found a template that numbert cannot reproduce, expected special tokens around two texts"
        )
    kinds = [types[part][0] if types[part] else 0 for part in parts]
    template = PairTemplate(before, between, after, (kinds[0], kinds[1], kinds[2], kinds[3], kinds[4]))
    for pair in PROBES:
        _check_template(path, tokenizer, template, pair)
    return template


def _check_template(path: Path, tokenizer: Tokenizer, template: PairTemplate, pair: tuple[str, str]) -> None:
    """Refuse a template that gives another pair other tokens than the library does."""
    expected = tokenizer.encode(*pair)
    first, second = (tokenizer.encode(text, add_special_tokens=False).ids for text in pair)
    parts = (template.before, first, template.between, second, template.after)
    ids = [number for part in parts for number in part]
    types = [kind for part, kind in zip(parts, template.types, strict=True) for _ in part]
    if (ids, types) != (expected.ids, expected.type_ids):
        raise TokenizerError(
            f"{path}: found a template that numbert cannot reproduce: {pair} should become tokens {expected.ids} of"
            f" types {expected.type_ids}; expected special tokens around two texts, each of which stands there once"
        )


def _check_ids(path: Path, words: Mapping[str, int], template: PairTemplate, vocab_size: int) -> None:
    """Refuse ids for which the model has no row. (The number of tokens does not tell: ids may leave gaps.)"""
    largest = max([*words.values(), *template.before, *template.between, *template.after])
    if largest >= vocab_size:
        raise TokenizerError(
            f"{path}: found token id {largest}, but the model's word embeddings have {vocab_size} rows;"
            " the files are of different models"
        )


def _check_one_token_an_id(path: Path, words: Mapping[str, int]) -> None:
    """Refuse byte pairs of which two have one id: merges are of ids, and which is meant would be a matter of chance."""
    if len(set(words.values())) == len(words):
        return
    tokens: dict[int, str] = {}
    for token, number in words.items():
        if number in tokens:
            raise TokenizerError(
                f"{path}: found id {number} for both {tokens[number]!r:.60} and {token!r:.60}, expected an id of its"
                " own for each token; download the file again"
            )
        tokens[number] = token


def _max_length(config: Config, low: int) -> int | None:
    value = config.values.get("model_max_length")
    if value is None or (isinstance(value, int | float) and value > 1e9):  # transformers writes 1e30 for "no limit"
        return None
    return config.integer("model_max_length", low=low, high=10**9)


def _from_vocabulary(path: Path, content: str, config: Config) -> Tokenizer:
    """Build BERT's WordPiece tokenizer from its vocabulary, one token a line, and tokenizer_config.json."""
    kind = str(config.values.get("tokenizer_class", "Bert"))
    if not kind.startswith(CLASSES_OF_VOCABULARY):
        raise TokenizerError(
            f"{path}: found tokenizer_class {kind!r:.100}, expected BERT's; others need a tokenizer.json: let"
            " transformers load the tokenizer and save it"
        )
    tokens = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    vocabulary = {token: i for i, token in enumerate(tokens) if token or i < len(tokens) - 1}
    special = {name: _special_token(config, name) for name in BERTS_SPECIAL}
    for name in ("unk", "sep", "cls"):
        if special[name] not in vocabulary:
            raise TokenizerError(
                f"{path}: found no token {special[name]!r}, expected it in the vocabulary; download the file again"
            )
    settings: dict[str, Any] = config.values
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special['cls']}:0 $A:0 {special['sep']}:0",
        pair=f"{special['cls']}:0 $A:0 {special['sep']}:0 $B:1 {special['sep']}:1",
        special_tokens=[(special[name], vocabulary[special[name]]) for name in ("cls", "sep")],
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in special.values() if token in vocabulary]
    )
    return tokenizer


def _from_merges(vocabulary: Config, merges: str, config: Config) -> Tokenizer:
    """Build RoBERTa's tokenizer: byte pairs, with two separators between the texts of a pair."""
    kind = str(config.values.get("tokenizer_class", "Roberta"))
    if not kind.startswith(CLASSES_OF_MERGES):
        raise TokenizerError(
            f"{vocabulary.path}: found tokenizer_class {kind!r:.100}, expected RoBERTa's; others need a tokenizer.json:"
            " let transformers load the tokenizer and save it"
        )
    lines = [line.removesuffix("\r") for line in merges.removesuffix("\n").split("\n")]
    lines = [line for line in lines if not line.startswith("#version")]
    tokenizer = Tokenizer(models.BPE(vocabulary.values, [_merge(line) for line in lines]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.values.get("add_prefix_space")))
    special = {name: _special_token(config, name, ROBERTAS_SPECIAL) for name in ROBERTAS_SPECIAL}
    ids = {}
    for name, token in special.items():
        number = tokenizer.token_to_id(token)
        if number is None:
            raise TokenizerError(
                f"{vocabulary.path}: found no {name} token {token!r}, expected it; download the file again"
            )
        ids[name] = (token, number)
    tokenizer.post_processor = processors.RobertaProcessing(ids["sep"], ids["cls"])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special.values()])
    return tokenizer


def _merge(line: str) -> tuple[str, str]:
    first, _, second = line.partition(" ")
    if not first or not second or " " in second:
        raise ValueError(f"{line!r:.60} is no pair of tokens with a space between")
    return first, second


def _special_token(config: Config, name: str, defaults: Mapping[str, str] = BERTS_SPECIAL) -> str:
    token = config.values.get(f"{name}_token", defaults[name])
    if isinstance(token, dict):
        token = token.get("content")
    if not isinstance(token, str) or not token:
        raise config.error(f"{name}_token", token, "a token")
    return token
