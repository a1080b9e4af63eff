"""Small tokenizers of kinds that no recorded checkpoint has: ModernBERT's, and Gemma's, which mmBERT has taken over.

Each is trained on texts of the tests, and written as the files of published models are.
"""

import json
from pathlib import Path
from typing import Any

from hostile_pairs import FRAGMENTS, PASSAGES, QUERIES
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

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


KINDS = {"modernbert": modernbert, "gemma": gemma}


def write(kind: str, folder: Path) -> None:
    """Train a tokenizer and write its files."""
    tokenizer, settings = KINDS[kind]()
    content = json.loads(tokenizer.to_str())
    added = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in content["added_tokens"]}
    settings |= {"added_tokens_decoder": added, "model_input_names": ["input_ids", "attention_mask"]}
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


def _template(tokenizer: Tokenizer, begin: str, end: str) -> Any:
    return processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin}:0 $A:0 {end}:0 $B:0 {end}:0",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
