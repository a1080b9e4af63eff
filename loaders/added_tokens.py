"""Tokens that are looked for in a text before it is split into words, as the files beside tokenizer.json have them.

transformers adds these tokens to the tokenizer after it has read tokenizer.json, and their flags (do blanks on the left
belong to the token? is it looked for before the text is normalized?) replace those that the tokenizer had.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from .errors import TokenizerError
from .expansion import Growth, check_growth
from .files import ModelFiles
from .spec import Config

MOST_ADDED_TOKENS = 20_000  # the library compares each with all before it
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
EXTRA = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")


def check_added_tokens(files: ModelFiles, config: Config, tokenizer: Tokenizer) -> None:
    """Refuse tokens that transformers adds from other files, and that the tokenizer does not have already."""
    added = Config.read_if_there(files, "added_tokens.json")
    pairs: list[tuple[Path, Any, Any]] = [(added.path, token, number) for token, number in added.values.items()]
    for number, token in _items(config, "added_tokens_decoder"):
        pairs.append((config.path, _content(token), int(number) if number.isdecimal() else number))
    for key in EXTRA:
        for token in (_content(token) for _, token in _items(config, key)):
            pairs.append((config.path, token, tokenizer.token_to_id(token) if isinstance(token, str) else None))
    for path, token, number in pairs:
        if not isinstance(token, str) or number is None or tokenizer.token_to_id(token) != number:
            raise TokenizerError(
                f"{path}: found a token {token!a:.100} with id {number!a:.20} that the tokenizer lacks or numbers"
                " otherwise, expected those of tokenizer.json; let transformers load the tokenizer and save it"
            )


def adopt_added_tokens(path: Path, config: Config, tokenizer: Tokenizer, growth: Growth) -> None:
    """Add what transformers adds from tokenizer_config.json: tokens with their flags, and words that become special.

    Raises
    ------
    TypeError
        When a flag is none.
    TokenizerError
        When the normalizer makes a token too long.
    """
    described = [token for _, token in _items(config, "added_tokens_decoder") if isinstance(token, dict)]
    if len(described) > MOST_ADDED_TOKENS:
        raise ValueError(f"found {len(described)} added tokens, expected at most {MOST_ADDED_TOKENS}")
    tokens = [AddedToken(token["content"], **_flags(token)) for token in described]
    named = [token for key, token in config.values.items() if key.endswith("_token") and _is_token(token)]
    named += [token for key in EXTRA for _, token in _items(config, key)]
    known = {token.content for token in (*tokenizer.get_added_tokens_decoder().values(), *tokens)}
    for token in named:
        word = _content(token)
        if isinstance(word, str) and word not in known and tokenizer.token_to_id(word) is not None:
            tokens.append(AddedToken(word, **{"normalized": False, **_flags(token), "special": True}))
    for added in tokens:
        check_growth(path, growth, added.content)
    tokenizer.add_tokens(tokens)


def _flags(token: Any) -> dict[str, bool]:
    return {flag: token[flag] for flag in FLAGS if flag in token} if isinstance(token, dict) else {}


def _items(config: Config, key: str) -> list[tuple[str, Any]]:
    """Return the items of a setting that is an object or a list."""
    values = config.values.get(key) or {}
    if isinstance(values, list):
        values = {str(i): value for i, value in enumerate(values)}
    if not isinstance(values, dict):
        raise config.error(key, values, "an object or a list")
    return list(values.items())


def _is_token(value: Any) -> bool:
    """Tell whether transformers takes a setting for a token: a text, or what it writes for a token with flags."""
    return isinstance(value, str) or (isinstance(value, dict) and value.get("__type") == "AddedToken")


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
