"""Change tokenizer files where the library reads them: normalizers, pre-tokenizers, models, templates, added tokens."""

import copy
from collections.abc import Callable
from typing import Any

from hostile import HOSTILE, RAW, Random

Tree = dict[str, Any]


def structure(tree: Tree, rng: Random) -> tuple[Tree, str]:
    """Return a changed copy of tokenizer.json and a description."""
    tree = copy.deepcopy(tree)
    change = rng.choice(CHANGES)
    return tree, f"{change.__name__.strip('_')}: {change(tree, rng)!r:.200}"


def _normalizer(tree: Tree, rng: Random) -> Any:
    tree["normalizer"] = new = rng.choice([None, _any_normalizer(rng), _chain(rng)])
    return new


def _any_normalizer(rng: Random, depth: int = 0) -> Any:
    plain = [{"type": kind} for kind in "NFC NFD NFKC NFKD Lowercase StripAccents Nmt ByteLevel".split()]
    plain += [
        {"type": "BertNormalizer", "clean_text": rng.random() < 0.5, "handle_chinese_chars": rng.random() < 0.5,
         "strip_accents": rng.choice([None, True, False]), "lowercase": rng.random() < 0.5},
        {"type": "Strip", "strip_left": True, "strip_right": rng.random() < 0.5},
        {"type": "Prepend", "prepend": rng.choice(["", "\u2581", "x" * 1000, "[SEP]", " "])},
        {"type": "Replace", "pattern": _pattern(rng), "content": rng.choice(["", " ", "aa", "[SEP]", "y" * 500])},
        {"type": "Precompiled", "precompiled_charsmap": rng.choice(["", "AAAA", "////", "A" * 1000, 3])},
        {"type": "Sequence", "normalizers": []}, {"type": "Unknown"},
    ]  # fmt: skip
    if depth < 3 and rng.random() < 0.4:
        return {"type": "Sequence", "normalizers": [_any_normalizer(rng, depth + 1) for _ in range(rng.randrange(4))]}
    if rng.random() < 0.1:
        return _nested({"type": "Lowercase"}, "normalizers", rng)
    return rng.choice(plain)


def _chain(rng: Random) -> Any:
    """Return normalizers of which each makes the text longer."""
    pattern, content = rng.choice([("a", "aa"), ("a", "aaaaaaaa"), ("", "a"), (" ", "  "), ("e", "ee a")])
    count = rng.choice([1, 2, 3, 5, 8, 12, 16, 24, 33, 60, 300])
    step = {"type": "Replace", "pattern": {"String": pattern}, "content": content}
    if rng.random() < 0.3:
        step = {"type": "Prepend", "prepend": "a" * 100_000}
    return {"type": "Sequence", "normalizers": [step] * count}


def _nested(inner: Any, name: str, rng: Random) -> Any:
    for _ in range(rng.choice([2, 10, 60, 200])):
        inner = {"type": "Sequence", name: [inner]}
    return inner


def _pattern(rng: Random) -> Any:
    regexes = [
        "a*",
        "",
        ".",
        "\\s+",
        "(a+)+$",
        "(a|a)*b",
        "(?=a)",
        "^",
        "\\b",
        "[",
        "(x{1,1000}){1,1000}",
        "\\p{L}+",
        "(?i)e",
    ]
    return rng.choice([{"String": rng.choice(["a", "", " ", "ab", "\x00"])}, {"Regex": rng.choice(regexes)}, {}, 3])


def _pre_tokenizer(tree: Tree, rng: Random) -> Any:
    tree["pre_tokenizer"] = new = rng.choice([None, _any_pre_tokenizer(rng), _any_pre_tokenizer(rng)])
    return new


def _any_pre_tokenizer(rng: Random, depth: int = 0) -> Any:
    behavior = rng.choice("Removed Isolated MergedWithPrevious MergedWithNext Contiguous".split())
    plain = [{"type": kind} for kind in "Whitespace WhitespaceSplit BertPreTokenizer UnicodeScripts".split()]
    plain += [
        {"type": "Punctuation", "behavior": behavior}, {"type": "Digits", "individual_digits": rng.random() < 0.5},
        {"type": "Split", "pattern": _pattern(rng), "behavior": behavior, "invert": rng.random() < 0.5},
        {"type": "CharDelimiterSplit", "delimiter": rng.choice(["a", " ", "\u6771", "", "ab"])},
        {"type": "FixedLength", "length": rng.choice([0, 1, 3, 2**40, -1])},
        {"type": "ByteLevel", "add_prefix_space": rng.random() < 0.5, "trim_offsets": True,
        "use_regex": rng.random() < 0.5},
        {"type": "Metaspace", "replacement": rng.choice(["\u2581", "", "ab", "a"]), "split": rng.random() < 0.5,
         "prepend_scheme": rng.choice(["always", "never", "first", "x"])},
    ]  # fmt: skip
    if depth < 3 and rng.random() < 0.3:
        parts = [_any_pre_tokenizer(rng, depth + 1) for _ in range(rng.randrange(4))]
        return {"type": "Sequence", "pretokenizers": parts}
    if rng.random() < 0.05:
        return _nested({"type": "Whitespace"}, "pretokenizers", rng)
    return rng.choice(plain)


def _model(tree: Tree, rng: Random) -> Any:
    """Change a setting of the model."""
    settings: dict[str, list[Any]] = {
        "dropout": [0.0, 0.1, 0.5, 1.0, 0, 1, -1, 2.0, "0.1", float("nan")],
        "unk_token": [None, "", "[UNK]", "nowhere", "a", 3],
        "unk_id": [None, 0, 1, -1, 2**32, 10**6],
        "byte_fallback": [True, False, None], "fuse_unk": [True, 1], "ignore_merges": [True, "x"],
        "continuing_subword_prefix": ["", "##", "#", None, "x" * 100], "end_of_word_suffix": ["", "</w>", None],
        "max_input_chars_per_word": [0, 1, 5, -1, 2**63, 2**64, 100.0],
        "type": ["BPE", "WordPiece", "WordLevel", "Unigram", "", None, "bpe"],
        "merges": [[], [["a", "b"]], ["a b"], ["a"], [["a", "b", "c"]], [["", ""]], [["zzz", "yyy"]], None],
    }  # fmt: skip
    key = rng.choice([name for name in settings if name in tree["model"]] * 3 + list(settings))
    tree["model"][key] = new = rng.choice(settings[key])
    return key, new


def _vocabulary(tree: Tree, rng: Random) -> Any:
    """Change words or ids of the vocabulary."""
    vocab = tree["model"].get("vocab")
    if isinstance(vocab, list):  # Unigram: words with log probabilities
        i = rng.randrange(len(vocab))
        new = rng.choice(
            [["x", 0], ["", -1.0], [vocab[0][0], -2.0], ["x", float("nan")], ["x", RAW + "1e999"], ["x"], None]
        )
        if rng.random() < 0.3:
            vocab.insert(i, new)
        else:
            vocab[i] = new
        return i, new
    words = list(vocab)
    word, other = rng.choice(words), rng.choice(words)
    change = rng.randrange(6)
    if change == 0:
        vocab[word], vocab[other] = vocab[other], vocab[word]
    elif change == 1:
        vocab[word] = rng.choice([vocab[other], len(words), 2**32 - 1, 2**32, -1, "3", None, 1.0, 502, 503])
    elif change == 2:
        vocab[rng.choice(["", " ", "##", "new", "a b", "\x00", *HOSTILE])] = rng.choice([0, 5, len(words), vocab[word]])
    elif change == 3:
        del vocab[word]
    elif change == 4:
        tree["model"]["vocab"] = rng.choice(
            [{}, [], None, {"a": 0}, dict.fromkeys(words, 0), [[w, -1.0] for w in words]]
        )
    else:
        tree["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": rng.choice(words[:5])}
    return change, word, other


def _template(tree: Tree, rng: Random) -> Any:
    """Put another template in the place of the pair's."""
    vocab = [token["content"] for token in tree.get("added_tokens", [])][:5] or ["a"]
    ids = {token["content"]: token["id"] for token in tree.get("added_tokens", [])}

    def piece() -> Any:
        type_id = rng.choice([0, 0, 0, 1, 1, 2, 2**31])
        if rng.random() < 0.5:
            return {"Sequence": {"id": rng.choice("AB"), "type_id": type_id}}
        return {"SpecialToken": {"id": rng.choice(vocab), "type_id": type_id}}

    special = {
        word: {"id": word, "ids": rng.choice([[ids.get(word, 0)]] * 8 + [[0, 1], [], [10**6]]), "tokens": [word]}
        for word in vocab
    }
    for entry in special.values():
        entry["tokens"] = [entry["id"]] * len(entry["ids"])
    cls, a, sep, b = ({"SpecialToken": {"id": vocab[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                      {"SpecialToken": {"id": vocab[-1], "type_id": 0}}, {"Sequence": {"id": "B",
                      "type_id": 1}})  # fmt: skip
    pair = [cls, a, sep, b, sep]
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(pair) + 1)
        pair[at : at + rng.randrange(2)] = [piece()]
    proper = {"type": "TemplateProcessing", "single": [cls, a, sep], "pair": pair, "special_tokens": special}
    tokens = list(ids.items()) or [("a", 0)]
    others = [
        {
            "type": kind,
            "sep": list(rng.choice(tokens)),
            "cls": list(rng.choice(tokens)),
            "trim_offsets": True,
            "add_prefix_space": False,
        }
        for kind in ("RobertaProcessing", "BertProcessing")
    ]
    others += [None, {"type": "ByteLevel", "trim_offsets": False}, {"type": "Sequence", "processors": [proper,
    others[0]]},
               {"type": "Sequence", "processors": []}]  # fmt: skip
    tree["post_processor"] = new = rng.choice([proper, proper, proper, *others])
    return new


def _added(tree: Tree, rng: Random) -> Any:
    """Add a token, or change one."""
    flags = {name: rng.random() < 0.3 for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    content = rng.choice(
        ["", " ", "a", "the", "e", "\u6771", "[SEP]", "</s>", "bridge", "x" * 1000, "\x00", " a ", *HOSTILE]
    )
    number = rng.choice([0, 1, 4, 5, 100, 216, 502, 503, 10**6, 2**32 - 1, 2**32, -1, None])
    token = {"id": number, "content": content, **flags}
    tokens = tree.setdefault("added_tokens", [])
    if tokens and rng.random() < 0.5:
        chosen = rng.choice(tokens)
        chosen.update(rng.choice([flags, {"content": content}, {"id": number}]))
        return chosen
    tokens.insert(rng.randrange(len(tokens) + 1), token)
    return token


def _baked_in(tree: Tree, rng: Random) -> Any:
    """Set truncation or padding, as some files have them."""
    tree["truncation"] = rng.choice([None, {
        "direction": rng.choice(["Left", "Right", "x"]), "max_length": rng.choice([0, 1, 8, 2**63]),
        "stride": rng.choice([0, 4, 99]),
        "strategy": rng.choice(["LongestFirst", "OnlyFirst", "OnlySecond"])}])  # fmt: skip
    tree["padding"] = rng.choice([None, {
        "strategy": rng.choice(["BatchLongest", {"Fixed": 99}, {"Fixed": 2**40}]), "direction": rng.choice(["Left",
        "Right"]),
        "pad_to_multiple_of": rng.choice([None, 8, 0]), "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]"}])  # fmt: skip
    return tree["truncation"], tree["padding"]


CHANGES: list[Callable[[Tree, Random], Any]] = [
    _normalizer,
    _pre_tokenizer,
    _model,
    _vocabulary,
    _template,
    _added,
    _baked_in,
]


def lines(content: str, rng: Random) -> tuple[str, str]:
    """Return a changed vocab.txt or merges.txt and a description."""
    rows = content.split("\n")
    at, other = rng.randrange(len(rows)), rng.randrange(len(rows))
    change = rng.randrange(7)
    if change == 0:
        rows[at] = rng.choice(
            ["", " ", "\x00", "a b c", "\ufeff", rows[other], "x" * 100_000, rows[at] + " ", rows[at] + "\r", *HOSTILE]
        )
    elif change == 1:
        del rows[at]
    elif change == 2:
        rows.insert(at, rng.choice(["", rows[other], "new", "#version", "[SEP]"]))
    elif change == 3:
        rows[at], rows[other] = rows[other], rows[at]
    elif change == 4:
        rows = rows[:at]
    elif change == 5:
        rows = rows * rng.choice([2, 50])
    else:
        return content.replace("\n", rng.choice(["\r\n", "\r", "", "\n\n", "\u2028"])), "other ends of lines"
    return "\n".join(rows), f"change {change} of line {at}: {rows[at] if at < len(rows) else '':.60}"
