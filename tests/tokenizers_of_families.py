"""Small tokenizers of kinds that no recorded checkpoint has: ModernBERT's, and Gemma's, which mmBERT has taken over.

Then those of DeBERTa, Jina, XLM-RoBERTa as gte and Jina have it, and ALBERT. Each is trained on texts of the tests, and
written as the files of published models are.
"""

import json
import struct
import unicodedata
from pathlib import Path
from typing import Any

from hostile_pairs import FRAGMENTS, PASSAGES, QUERIES
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LONGEST_RUN = 24  # blanks; GPT-NeoX has a token for each run of 2 to 24
UNUSED = 83
MERGES = 110  # so that all ids are below 503, the rows of most recorded checkpoints
ORDINARY = QUERIES + PASSAGES
Settings = dict[str, Any]


def modernbert() -> tuple[Tokenizer, Settings]:
    """Train byte pairs as OLMo has them, with the special tokens that ModernBERT added to OLMo's.

    Of the added tokens, those that are not special are looked for in the text after normalization; before `[MASK]`,
    blanks belong to the token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    first = [AddedToken("|||IP_ADDRESS|||", special=False), AddedToken("<|padding|>", special=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=len(first) + len(alphabet) + MERGES,
        special_tokens=[token.content for token in first],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer = _trained(tokenizer, trainer, [*ORDINARY * 4, *FRAGMENTS])
    blanks = [" " * size for size in range(LONGEST_RUN, 1, -1)]
    plain = [*blanks, "|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||"]
    special = ["<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer.add_tokens([*first, *(AddedToken(content, special=False, normalized=True) for content in plain)])
    tokenizer.add_tokens([AddedToken(content, special=True, normalized=False) for content in special])
    tokenizer.add_tokens([AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken(f"[unused{i}]", special=False, normalized=True) for i in range(UNUSED)])
    tokenizer.post_processor = _template(tokenizer, "[CLS]", "[SEP]")
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    return tokenizer, {**names, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}


def gemma() -> tuple[Tokenizer, Settings]:
    """Train byte pairs as sentencepiece does: blanks are written as a character, rare characters as bytes.

    The pre-tokenizer is the published one. It splits at blanks, of which the normalizer has left none: so the whole
    text is one word, and what keeps words apart are the merges, none of which has a blank behind a letter.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")  # for training only
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 256 + len(set("".join(ORDINARY))) + MERGES,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer = _trained(tokenizer, trainer, ORDINARY)  # other letters become bytes
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_tokens([AddedToken(content, special=True, normalized=False) for content in special])
    blanks = ["\n" * size for size in range(2, 6)] + ["\u2581" * size for size in range(2, 9)]
    tokenizer.add_tokens([AddedToken(content, special=False, normalized=False) for content in blanks])
    tokenizer.add_tokens([AddedToken("<start_of_turn>", special=True, normalized=False)])
    tokenizer.post_processor = _template(tokenizer, "<bos>", "<eos>")
    names = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    names |= {"cls": "<bos>", "sep": "<eos>"}
    settings = {f"{name}_token": token for name, token in names.items()}
    return tokenizer, {**settings, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}


def deberta_v2(lower: bool = False, by_punctuation: bool = False) -> tuple[Tokenizer, Settings]:
    """Train pieces as DeBERTa-v2 and -v3 have them, and `[MASK]` behind the vocabulary, as v3 has it (128000)."""
    steps = [normalizers.Strip(), normalizers.Precompiled(compatible_letters()), RUNS_OF_BLANKS]
    splits = [pre_tokenizers.Punctuation("isolated")] if by_punctuation else []
    tokenizer = _pieces(
        [normalizers.Lowercase(), *steps] if lower else steps,
        [*splits, pre_tokenizers.Metaspace(prepend_scheme="always")],
        ["[PAD]", "[CLS]", "[SEP]", "[UNK]"],
        "[UNK]",
    )
    tokenizer.add_tokens([AddedToken(f"[{name}]", special=True, normalized=False) for name in ("PAD", "CLS", "SEP")])
    tokenizer.add_tokens([AddedToken("[UNK]", special=True, normalized=True)])  # as published
    tokenizer.add_tokens([AddedToken("[MASK]", special=True, normalized=False)])
    tokenizer.post_processor = _template(tokenizer, "[CLS]", "[SEP]", second=1)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    names |= {"bos_token": "[CLS]", "eos_token": "[SEP]", "tokenizer_class": "DebertaV2Tokenizer"}
    return tokenizer, {**names, "do_lower_case": lower, "split_by_punct": by_punctuation, "model_max_length": 512}


def deberta() -> tuple[Tokenizer, Settings]:
    """Train GPT-2's byte pairs, with the special tokens of DeBERTa's first version; blanks belong to `[MASK]`."""
    tokenizer = _byte_pairs([f"[{name}]" for name in ("PAD", "CLS", "SEP", "UNK", "MASK")], mask="[MASK]")
    tokenizer.post_processor = _template(tokenizer, "[CLS]", "[SEP]", second=1)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    names |= {"bos_token": "[CLS]", "eos_token": "[SEP]", "tokenizer_class": "DebertaTokenizer"}
    return tokenizer, {**names, "add_prefix_space": False, "model_max_length": 512}


def jina() -> tuple[Tokenizer, Settings]:
    """Train RoBERTa's byte pairs, which jina-reranker-v1 has with 8,192 positions."""
    tokenizer = _byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], mask="<mask>")
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    settings = {**ROBERTAS_NAMES, "tokenizer_class": "RobertaTokenizer", "add_prefix_space": False}
    return tokenizer, {**settings, "model_max_length": 8192}


def xlm_roberta(newer: bool = False) -> tuple[Tokenizer, Settings]:
    """Train pieces as XLM-RoBERTa has them, whose files jina-reranker-v2 and gte-multilingual-reranker have.

    Files that transformers wrote since 2023 do not split at blanks, and make runs of them one.
    """
    map_of_letters = normalizers.Precompiled(compatible_letters())
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer = _pieces(
        [map_of_letters, RUNS_OF_BLANKS] if newer else [map_of_letters],
        [metaspace] if newer else [pre_tokenizers.WhitespaceSplit(), metaspace],
        ["<s>", "<pad>", "</s>", "<unk>"],
        "<unk>",
    )
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    )
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    return tokenizer, {**ROBERTAS_NAMES, "tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 8192}


def albert() -> tuple[Tokenizer, Settings]:
    """Train pieces as ALBERT has them: quotes made one kind, accents and capitals taken away."""
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()]
    steps += [normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Precompiled(compatible_letters())]
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    tokenizer = _pieces([*steps, RUNS_OF_BLANKS], splits, special, "<unk>")
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special[:-1]])
    tokenizer.add_tokens([AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    tokenizer.post_processor = _template(tokenizer, "[CLS]", "[SEP]", second=1)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "mask")}
    names |= {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "pad_token": "<pad>"}
    names |= {"tokenizer_class": "AlbertTokenizer", "do_lower_case": True, "keep_accents": False}
    return tokenizer, {**names, "model_max_length": 512}


def compatible_letters() -> bytes:
    """Make sentencepiece's map of characters: to NFKC, blanks to one kind, controls to none; an array that is a trie.

    A unit of the array has a byte of the key, a bit that says whether a value follows, and the way to the next units.
    """
    values, blob, trie = {}, b"", {}
    for point in (*range(1, 0x3400), *range(0xFB00, 0xFFF0)):
        character = chr(point)
        kind = unicodedata.category(character)
        new = "" if kind in ("Cc", "Cf") and not character.isspace() else unicodedata.normalize("NFKC", character)
        new = " " if character.isspace() else new
        if new != character:
            values[character.encode()] = len(blob)
            blob += new.encode() + b"\0"
    blocks = {b"": 256}  # of each beginning of a key: where its next bytes are
    for key in values:
        for size in range(1, len(key)):
            blocks.setdefault(key[:size], 256 * (len(blocks) + 1))
    end = 256 * (len(blocks) + 1)
    trie = {0: blocks[b""] << 10}
    for key, block in blocks.items():
        if key:
            unit = blocks[key[:-1]] + key[-1]
            trie[unit] = key[-1] | (unit ^ block) << 10
    for place, (key, value) in enumerate(values.items(), end):
        unit = blocks[key[:-1]] + key[-1]
        trie[unit] = key[-1] | 1 << 8 | (unit ^ place) << 10
        trie[place] = value | 1 << 31
    units = [trie.get(i, 0) for i in range(end + len(values) + 256)]  # the library looks behind the last one
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + blob


RUNS_OF_BLANKS = normalizers.Replace(Regex(" {2,}"), " ")
ROBERTAS_NAMES = {
    **{f"{name}_token": f"<{name}>" for name in ("unk", "pad", "mask")},
    **{"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"},
}
KINDS = {"modernbert": modernbert, "gemma": gemma}
# transformers 5 makes these anew from the vocabulary and what the class says, some of them otherwise than published.
REBUILT = {
    "deberta-v2": deberta_v2,
    "deberta-v2-lower": lambda: deberta_v2(lower=True, by_punctuation=True),
    "deberta": deberta,
    "jina": jina,
    "xlm-roberta": xlm_roberta,
    "xlm-roberta-newer": lambda: xlm_roberta(newer=True),
    "albert": albert,
}


def write(kind: str, folder: Path) -> None:
    """Train a tokenizer and write its files."""
    tokenizer, settings = {**KINDS, **REBUILT}[kind]()
    content = json.loads(tokenizer.to_str())
    added = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in content["added_tokens"]}
    settings["added_tokens_decoder"] = added
    if kind in KINDS:  # the others' classes know
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    settings["clean_up_tokenization_spaces"] = True
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), "utf-8")


def added_tokens(folder: Path) -> list[str]:
    """Return the texts of the added tokens of a tokenizer.json."""
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    return [token["content"] for token in content["added_tokens"]]


def _trained(tokenizer: Tokenizer, trainer: Any, texts: list[str]) -> Tokenizer:
    """Train, and make the special words plain ones: which of them are added tokens is said afterwards, with flags."""
    tokenizer.train_from_iterator(texts, trainer)
    return Tokenizer.from_str(json.dumps({**json.loads(tokenizer.to_str()), "added_tokens": []}))


def _pieces(steps: list[Any], splits: list[Any], special: list[str], unknown: str) -> Tokenizer:
    """Train pieces of words, each with how likely it is."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits) if len(splits) > 1 else splits[0]
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=480, special_tokens=special, unk_token=unknown, show_progress=False, max_piece_length=8
    )
    # Special words would be learned a second time.
    fragments = [text for text in FRAGMENTS if not set("[<") & set(text)]
    return _trained(tokenizer, trainer, [*ORDINARY * 4, *fragments])


def _byte_pairs(special: list[str], mask: str) -> Tokenizer:
    """Train byte pairs as GPT-2 has them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet) + MERGES,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer = _trained(tokenizer, trainer, [*ORDINARY * 4, *FRAGMENTS])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special if token != mask])
    tokenizer.add_tokens([AddedToken(mask, lstrip=True, special=True, normalized=False)])
    return tokenizer


def _template(tokenizer: Tokenizer, begin: str, end: str, second: int = 0) -> Any:
    return processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin}:0 $A:0 {end}:0 $B:{second} {end}:{second}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
