"""A second reading of tokenizer files: the library's own classes, with the file's own template."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from tokenizers.implementations import BertWordPieceTokenizer
from verdict import Refusable, Unsure


def read_tokenizer(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    """Return the library's tokenizer with the file's own template."""
    if settings.get("truncation_side", "right") != "right":
        raise Refusable("truncation from the left")
    path = folder / "tokenizer.json"
    if path.exists():
        tokenizer = Tokenizer.from_file(str(path))
        model = json.loads(path.read_bytes())["model"]
        if model.get("type") == "BPE" and model.get("dropout"):
            raise Refusable("dropout: another score at each call")
    elif (folder / "vocab.txt").exists():
        tokenizer = _wordpiece(folder / "vocab.txt", settings)
    else:
        tokenizer = _byte_pairs(folder, settings)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _add(tokenizer, settings)
    return tokenizer


def _add(tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
    """Add tokens as transformers does: those that are described, and the special ones that are words already."""
    described = settings.get("added_tokens_decoder") or {}
    rows = described.values() if isinstance(described, dict) else described
    own = {row["content"]: _added(row) for row in rows if isinstance(row, dict)}
    present = {*own, *(token.content for token in tokenizer.get_added_tokens_decoder().values())}
    typed = [value for value in settings.values() if isinstance(value, dict) and value.get("__type") == "AddedToken"]
    special = [
        value for key, value in settings.items() if key.endswith("_token") and (value in typed or value == str(value))
    ]
    for key in ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"):
        extra = settings.get(key) or []
        special += extra.values() if isinstance(extra, dict) else extra
    for token in special:
        if isinstance(token, dict):
            token = _added({"normalized": False} | token | {"special": True})
        elif isinstance(token, str):
            token = AddedToken(token, special=True, normalized=False)
        if (
            isinstance(token, AddedToken)
            and token.content not in present
            and tokenizer.token_to_id(token.content) is not None
        ):
            own[token.content] = token
    tokenizer.add_tokens(list(own.values()))


def _added(row: dict[str, Any]) -> AddedToken:
    known = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(**{key: value for key, value in row.items() if key in known})


def _token(settings: dict[str, Any], name: str, default: str) -> str:
    token = settings.get(f"{name}_token", default)
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str) or not token:
        raise Unsure(f"{name}_token is no token")
    return token


def _wordpiece(path: Path, settings: dict[str, Any]) -> Tokenizer:
    with path.open(encoding="utf-8") as stream:  # ends of lines are those of all systems, as transformers reads them
        vocabulary = {line.rstrip("\n"): i for i, line in enumerate(stream)}
    flags = {name: settings.get(name, True) for name in ("tokenize_chinese_chars", "do_lower_case")}
    if not all(isinstance(flag, bool) for flag in flags.values()) or settings.get("strip_accents") not in (
        None,
        True,
        False,
    ):
        raise Unsure("a flag is no truth value")
    special = {name: _token(settings, name, f"[{name.upper()}]") for name in ("unk", "sep", "pad", "cls", "mask")}
    if missing := {special[name] for name in ("unk", "sep", "cls")} - set(vocabulary):
        raise Refusable(f"special tokens that are no words: {missing}")
    return BertWordPieceTokenizer(
        vocabulary, handle_chinese_chars=flags["tokenize_chinese_chars"], lowercase=flags["do_lower_case"],
        strip_accents=settings.get("strip_accents"), **{f"{name}_token": token for name, token in special.items()},
    )._tokenizer  # fmt: skip


def _byte_pairs(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    prefix = settings.get("add_prefix_space", False)
    if not isinstance(prefix, bool):
        raise Unsure("add_prefix_space is no truth value")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    names = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    special = {name: _token(settings, name, token) for name, token in names.items()}
    numbers = {name: tokenizer.token_to_id(token) for name, token in special.items()}
    if None in numbers.values():
        raise Refusable("special tokens that are no words")
    tokenizer.post_processor = processors.RobertaProcessing(
        *((special[name], numbers[name]) for name in ("sep", "cls"))
    )
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer
