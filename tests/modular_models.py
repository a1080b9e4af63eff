"""Cross-encoders of several modules, with random weights, made and computed by sentence-transformers.

Needs torch, transformers and sentence-transformers. Hidden size and positions are those of all models here.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import record_goldens
import torch
import transformers
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling

HIDDEN, POSITIONS, VOCABULARY = 24, 64, 503
KINDS = {"Dense": Dense, "LayerNorm": LayerNorm, "Normalize": Normalize}
FAMILIES = {  # what each needs beside the sizes that all have
    # Windows that are shorter than most pairs, and a padding token that the table has a row for
    "modernbert": {
        "local_attention": 16, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
        "sep_token_id": 3,
    },
    "bert": {}, "electra": {"embedding_size": 14}, "roberta": {"type_vocab_size": 1, "max_position_embeddings": 66},
    "distilbert": {}, "mpnet": {"max_position_embeddings": 66},
}  # fmt: skip
Modules = list[tuple[str, dict[str, Any]]]


def write_modular(
    folder: Path, modules: Modules, *, family: str = "modernbert", pooling: str = "mean", seed: int
) -> None:
    """Let sentence-transformers save an encoder, a pooling and the modules."""
    with tempfile.TemporaryDirectory() as encoder:
        _write_encoder(Path(encoder), family)
        chain: list[Any] = [Transformer(encoder, transformer_task="feature-extraction")]
    chain += [Pooling(HIDDEN, pooling_mode=pooling), *(KINDS[kind](**settings) for kind, settings in modules)]
    rng = np.random.default_rng(seed)
    for module in chain:
        record_goldens.randomise(module, rng)
    CrossEncoder(modules=chain, device="cpu", activation_fn=torch.nn.Identity()).save_pretrained(
        str(folder), create_model_card=False
    )


def _write_encoder(folder: Path, family: str) -> None:
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": 4, "num_attention_heads": 2,
        "intermediate_size": 36, "max_position_embeddings": POSITIONS, **FAMILIES[family],
    }  # fmt: skip
    if family == "distilbert":
        sizes["hidden_dim"] = sizes.pop("intermediate_size")
    config = transformers.AutoConfig.for_model(family, **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizers = {"modernbert": "distilbert"}  # of WordPiece, and without token types
    shape = record_goldens.Shape(
        heads=0, head_width=0, layers=0, intermediate=0, vocabulary=VOCABULARY, family=tokenizers.get(family, family)
    )
    record_goldens.make_tokenizer(shape).save_pretrained(folder)


def load(folder: Path) -> Any:
    """Load a model into sentence-transformers, in float32."""
    return CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def compute(folder: Path, pairs: list[tuple[str, str]]) -> list[Any]:
    """Tokenize and score each pair by itself, as `record_goldens.compute` does."""
    model = load(folder)
    rows = []
    for pair in pairs:
        tokens = model.preprocess([pair])
        logits = model.predict([pair], activation_fn=torch.nn.Identity()).reshape(-1)
        ids = tokens["input_ids"]
        types = tokens.get("token_type_ids", torch.zeros_like(ids))
        rows.append(record_goldens.Recorded(ids[0].tolist(), types[0].tolist(), logits.tolist()))
    return rows
