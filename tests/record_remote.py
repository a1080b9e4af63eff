"""Write small random checkpoints of families that bring code of their own, and record what a specification computes.

    python tests/record_remote.py PATH/families.py

transformers has no class for these, and their code is not run. The logits are those of a forward pass in NumPy of one
pair at a time, in float64, which was written independently of this package: a file that defines `MODELS`, functions by
family from a config and a `Reader` of tensors to a model, and `forward(model, ids, types)`. It is no part of this
repository; golden.json names its digest. Tokenizers and token ids are those of goldens that record_goldens.py wrote
with transformers: run that first. Needs NumPy and safetensors alone.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hostile_pairs import DIGEST
from safetensors.numpy import save_file

GOLDENS = Path(__file__).parent / "goldens"
Shapes = dict[str, tuple[int, ...]]


class Kind(NamedTuple):
    """A family, and the sizes of its golden."""

    family: str  # in the specification
    tokenizer: str  # of which golden
    heads: int
    head_width: int
    intermediate: int
    config: dict[str, Any]  # what is not a size
    layers: int = 3
    vocabulary: int = 503
    positions: int = 64


KINDS = {
    # Six heads: slopes of four, and two of those of eight. Nothing says how many labels there are.
    "jina-reranker-v1": Kind(
        "jina-bert", "roberta", heads=6, head_width=8, intermediate=61,
        config={
            "model_type": "bert", "architectures": ["JinaBertForSequenceClassification"],
            "auto_map": {"AutoModel": "modeling_bert.JinaBertModel"},
            "position_embedding_type": "alibi", "feed_forward_type": "geglu", "emb_pooler": "mean",
            "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 1,
        },
    ),
    "jina-reranker-v2": Kind(
        "xlm-roberta-flash", "xlm-roberta", heads=3, head_width=14, intermediate=70, positions=66,
        config={
            "model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"],
            "auto_map": {"AutoModel": "modeling_xlm_roberta.XLMRobertaModel"},
            "position_embedding_type": "absolute", "use_flash_attn": True, "id2label": {"0": "LABEL_0"},
            "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1,
        },
    ),
    "gte-remote": Kind(
        "gte", "xlm-roberta", heads=2, head_width=18, intermediate=53,
        config={
            "model_type": "new", "architectures": ["NewForSequenceClassification"],
            "auto_map": {"AutoModel": "modeling.NewModel"},
            "position_embedding_type": "rope", "rope_theta": 300.0, "rope_scaling": {"type": "ntk", "factor": 8.0},
            "layer_norm_type": "layer_norm", "logn_attention_scale": False, "id2label": {"0": "LABEL_0"},
            "type_vocab_size": 1, "layer_norm_eps": 1e-12, "pad_token_id": 1,
        },
    ),
}  # fmt: skip


def main() -> None:
    """Record all anew."""
    parser = argparse.ArgumentParser(description="Record goldens of families that bring code of their own.")
    parser.add_argument("specification", type=Path)
    path = parser.parse_args().specification
    loader = importlib.util.spec_from_file_location("specification", path)
    assert loader is not None
    assert loader.loader is not None
    specification = sys.modules[loader.name] = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(specification)
    for seed, (name, kind) in enumerate(KINDS.items()):
        config, tensors = make_checkpoint(kind, np.random.default_rng(seed))
        folder = GOLDENS / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(GOLDENS / kind.tokenizer / file, folder / file)
        reader = specification.Reader({name: array.astype(np.float64) for name, array in tensors.items()})
        model = specification.MODELS[kind.family](config, reader)
        assert reader.used == set(tensors), "the specification must use every tensor"
        rows = rows_of(kind, model, specification.forward)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines = ",\n".join(json.dumps(row) for row in rows)
        (folder / "golden.json").write_text(
            f'{{"specification": "{digest}", "pairs": "{DIGEST}", "rows": [\n{lines}\n]}}\n'
        )


def rows_of(kind: Kind, model: Any, forward: Any) -> list[dict[str, Any]]:
    """Compute the logits of the tokens that transformers made for another golden with the same tokenizer."""
    content = json.loads((GOLDENS / kind.tokenizer / "golden.json").read_text())
    assert content["pairs"] == DIGEST, "the pairs have changed: run record_goldens.py"
    rows = []
    for row in content["rows"]:
        ids = np.array(row["ids"].split(), np.int64)
        assert row["types"] == [len(ids), 0]
        logits = forward(at_places(model, ids, kind.config["pad_token_id"]), ids)
        rows.append({**row, "logits": [float(str(np.float32(x))) for x in logits]})
    spread = np.std([row["logits"] for row in rows])
    assert spread > 0.3, f"logits spread by {spread}: too little to show an error"
    return rows


def at_places(model: Any, ids: np.ndarray, padding: int) -> Any:
    """Give a table of positions the row of each token: one that is a padding token, written in a text, is not counted.

    That is RoBERTa's rule, which the second jina-reranker has too; the specification counts all tokens.
    """
    if model.embedding.position is None:
        return model
    places = np.cumsum(ids != padding) * (ids != padding) + padding
    return model._replace(
        embedding=model.embedding._replace(position=model.embedding.position[places], first_position=0)
    )


def make_checkpoint(kind: Kind, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Make config.json, and tensors that let attention choose and logits spread."""
    config = {
        "vocab_size": kind.vocabulary, "hidden_size": kind.heads * kind.head_width, "num_hidden_layers": kind.layers,
        "num_attention_heads": kind.heads, "intermediate_size": kind.intermediate, "hidden_act": "gelu",
        "max_position_embeddings": kind.positions, **kind.config,
    }  # fmt: skip
    tensors = {}
    for name, shape in shapes_of(kind, config).items():
        values = rng.standard_normal(shape)
        if "norm" in name.lower() or "_ln" in name:
            values = 0.2 * values + name.endswith("weight")
        elif len(shape) == 1:
            values *= 0.3
        elif "embeddings." in name:
            values *= 0.5
        else:
            values *= (3 if name.startswith(("classifier.weight", "classifier.out_proj")) else 1.5) / np.sqrt(shape[1])
        tensors[name] = values.astype(np.float32)
    return config, tensors


def shapes_of(kind: Kind, config: dict[str, Any]) -> Shapes:
    """Return name and shape of each tensor, as the family's own code has them."""
    c, f, rows, types = config["hidden_size"], kind.intermediate, kind.vocabulary, config["type_vocab_size"]
    first = {"jina-bert": "bert", "xlm-roberta-flash": "roberta", "gte": "new"}[kind.family]
    shapes = {
        f"{first}.embeddings.word_embeddings.weight": (rows, c),
        f"{first}.embeddings.token_type_embeddings.weight": (types, c),
    }
    if kind.family == "xlm-roberta-flash":
        shapes["roberta.embeddings.position_embeddings.weight"] = (kind.positions, c)
        shapes |= dict(
            [*norm("roberta.emb_ln", c), *linear("classifier.dense", c, c), *linear("classifier.out_proj", 1, c)]
        )
    else:
        shapes |= dict([*norm(f"{first}.embeddings.LayerNorm", c), *linear(f"{first}.pooler.dense", c, c)])
        shapes |= dict(linear("classifier", 1, c))
    layer = {"jina-bert": layer_of_jina_bert, "xlm-roberta-flash": layer_of_jina_xlm, "gte": layer_of_gte}[kind.family]
    for i in range(kind.layers):
        shapes |= dict(layer(i, c, f))
    return shapes


Named = Iterator[tuple[str, tuple[int, ...]]]


def linear(name: str, outputs: int, inputs: int) -> Named:
    """Yield the tensors of a linear layer."""
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def norm(name: str, width: int) -> Named:
    """Yield the tensors of a norm."""
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def layer_of_jina_bert(i: int, c: int, f: int) -> Named:
    """Yield the tensors of a layer of JinaBERT."""
    name = f"bert.encoder.layer.{i}"
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        yield from linear(f"{name}.attention.{part}", c, c)
    yield from norm(f"{name}.attention.output.LayerNorm", c)
    yield f"{name}.mlp.gated_layers.weight", (2 * f, c)
    yield from linear(f"{name}.mlp.wo", c, f)
    yield from norm(f"{name}.mlp.layernorm", c)


def layer_of_jina_xlm(i: int, c: int, f: int) -> Named:
    """Yield the tensors of a layer of XLM-RoBERTa, under the names of flash-attention."""
    name = f"roberta.encoder.layers.{i}"
    yield from linear(f"{name}.mixer.Wqkv", 3 * c, c)
    yield from linear(f"{name}.mixer.out_proj", c, c)
    yield from norm(f"{name}.norm1", c)
    yield from linear(f"{name}.mlp.fc1", f, c)
    yield from linear(f"{name}.mlp.fc2", c, f)
    yield from norm(f"{name}.norm2", c)


def layer_of_gte(i: int, c: int, f: int) -> Named:
    """Yield the tensors of a layer of GTE, under the names of Alibaba's code."""
    name = f"new.encoder.layer.{i}"
    yield from linear(f"{name}.attention.qkv_proj", 3 * c, c)
    yield from linear(f"{name}.attention.o_proj", c, c)
    yield from norm(f"{name}.attn_ln", c)
    yield f"{name}.mlp.up_gate_proj.weight", (2 * f, c)
    yield from linear(f"{name}.mlp.down_proj", c, f)
    yield from norm(f"{name}.mlp_ln", c)


if __name__ == "__main__":
    main()
