"""Whether the beginning of a long text has the tokens that the text begins with."""

import json
import re
from collections.abc import Iterable

from tokenizers import Tokenizer, models

# A letter or digit and a blank, as vocabularies write it: plainly, as sentencepiece does, or as a byte.
BORDER = re.compile("[A-Za-z0-9][ \u2581\u0120]")
SPLITTERS = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")


def keeps_borders(tokenizer: Tokenizer, words: Iterable[str]) -> bool:
    """Tell whether no token, of all these, reaches from a letter or digit over the blank behind it.

    If so, a text can be cut at such a place, and each part tokenized by itself: merges and pieces are chosen on each
    side of it for themselves. That holds too where the pre-tokenizer does not split there (Gemma's splits nothing). A
    model that takes words as a whole needs one that does.
    """
    if not _blank_survives(tokenizer) or BORDER.search("\n".join(words)):  # faster than word by word
        return False
    model = tokenizer.model
    if isinstance(model, models.BPE | models.Unigram) and not getattr(model, "end_of_word_suffix", None):
        return True
    step = json.loads(tokenizer.pre_tokenizer.__getstate__()) if tokenizer.pre_tokenizer else {}
    while step.get("type") == "Sequence" and step["pretokenizers"]:
        step = step["pretokenizers"][0]
    return step.get("type") in SPLITTERS


def _blank_survives(tokenizer: Tokenizer) -> bool:
    """Tell whether a blank ends a word, or comes to the model as one that BORDER knows."""
    text = tokenizer.normalizer.normalize_str("a b") if tokenizer.normalizer else "a b"
    parts = [part for part, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] if tokenizer.pre_tokenizer else [text]
    return len(parts) > 1 or bool(BORDER.search("".join(parts)))
