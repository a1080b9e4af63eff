"""Models of usual large shapes with random weights: what they cost to compute is what real ones cost."""

import contextlib
import importlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import model_folder

SEED = 20
WEIGHT_SPREAD = 0.05  # with the usual 0.02 the logits of all pairs are almost equal, and a comparison shows nothing
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@contextlib.contextmanager
def open_model(name: str | None) -> Iterator[Path]:
    """Yield the folder of a model; for one of RANDOM a temporary one.

    Parameters
    ----------
    name : str or None
        One of RANDOM, a folder, a hub id, or None for the model that comes with numbert.
    """
    if name not in RANDOM:
        yield model_folder(name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, name).resolve()
        write_random(folder, name)
        yield folder


def write_random(folder: Path, name: str) -> None:
    """Write a model of a shape, with the tokenizer of the model that comes with numbert."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    source = model_folder(None)
    torch.manual_seed(SEED)
    vocabulary = len(transformers.AutoTokenizer.from_pretrained(source))
    model = RANDOM[name](transformers, vocabulary)
    model.save_pretrained(folder)
    tokenizer, settings = (json.loads((source / file).read_text("utf-8")) for file in TOKENIZER_FILES)
    settings["model_max_length"] = model.config.max_position_embeddings
    if not hasattr(model.config, "type_vocab_size"):
        for piece in tokenizer["post_processor"]["pair"]:
            next(iter(piece.values()))["type_id"] = 0
    for file, content in zip(TOKENIZER_FILES, (tokenizer, settings), strict=True):
        (folder / file).write_text(json.dumps(content), "utf-8")


def _bert_base(transformers: Any, vocabulary: int) -> Any:
    config = transformers.BertConfig(
        vocab_size=vocabulary, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=512, num_labels=1, initializer_range=WEIGHT_SPREAD,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def _modernbert_base(transformers: Any, vocabulary: int) -> Any:
    config = transformers.ModernBertConfig(
        vocab_size=vocabulary, hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1152,
        max_position_embeddings=8192, local_attention=128, global_attn_every_n_layers=3, num_labels=1,
        initializer_range=WEIGHT_SPREAD, classifier_pooling="mean", pad_token_id=0, bos_token_id=None,
        eos_token_id=None, cls_token_id=None, sep_token_id=None,
    )  # fmt: skip
    return transformers.ModernBertForSequenceClassification(config)


def _deberta_base(transformers: Any, vocabulary: int) -> Any:
    """Make DeBERTa-v3-base, but for its vocabulary."""
    config = transformers.DebertaV2Config(
        vocab_size=vocabulary, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=512, num_labels=1, initializer_range=WEIGHT_SPREAD, relative_attention=True,
        position_buckets=256, share_att_key=True, norm_rel_ebd="layer_norm", pos_att_type=["p2c", "c2p"],
        position_biased_input=False, type_vocab_size=0, layer_norm_eps=1e-7,
    )  # fmt: skip
    return transformers.DebertaV2ForSequenceClassification(config)


def _gte_base(transformers: Any, vocabulary: int) -> Any:
    """Make gte-multilingual-reranker-base, but for its vocabulary, token types and the rates of its own code."""
    config = transformers.GteConfig(
        vocab_size=vocabulary, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=8192, num_labels=1, initializer_range=WEIGHT_SPREAD, type_vocab_size=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.GteForSequenceClassification(config)


def _nomic_base(transformers: Any, vocabulary: int) -> Any:
    config = transformers.NomicBertConfig(
        vocab_size=vocabulary, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=2048, num_labels=1, initializer_range=WEIGHT_SPREAD,
    )  # fmt: skip
    return transformers.NomicBertForSequenceClassification(config)


def _albert_base(transformers: Any, vocabulary: int) -> Any:
    config = transformers.AlbertConfig(
        vocab_size=vocabulary, embedding_size=128, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072, max_position_embeddings=512, num_labels=1, initializer_range=WEIGHT_SPREAD,
    )  # fmt: skip
    return transformers.AlbertForSequenceClassification(config)


def _bge_m3(transformers: Any, vocabulary: int) -> Any:
    """Make bge-reranker-v2-m3, with all its rows of words, and a second token type."""
    config = transformers.XLMRobertaConfig(
        vocab_size=250_002, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        max_position_embeddings=8194, num_labels=1, initializer_range=WEIGHT_SPREAD, type_vocab_size=2,
        layer_norm_eps=1e-5,
    )  # fmt: skip
    return transformers.XLMRobertaForSequenceClassification(config)


RANDOM = {
    "random-base": _bert_base,
    "random-modernbert": _modernbert_base,
    "random-deberta": _deberta_base,
    "random-gte": _gte_base,
    "random-nomic": _nomic_base,
    "random-albert": _albert_base,
    "random-bge-m3": _bge_m3,
}
