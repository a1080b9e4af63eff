"""BERT: `BertForSequenceClassification` of transformers."""

from .names import Names
from .spec import Config, ModelSpec, read_sizes

ARCHITECTURES = {"bert": "BertForSequenceClassification"}
IGNORED = ("bert.embeddings.position_ids", "cls.")  # a constant of old files; the heads of pre-training
ENCODER: Names = {  # those of RoBERTa and ELECTRA too, but for their first word
    "embedding.word": "bert.embeddings.word_embeddings",
    "embedding.position": "bert.embeddings.position_embeddings",
    "embedding.token_type": "bert.embeddings.token_type_embeddings",
    "embedding.norm": "bert.embeddings.LayerNorm",
    "layers.{i}.attention.query": "bert.encoder.layer.{i}.attention.self.query",
    "layers.{i}.attention.key": "bert.encoder.layer.{i}.attention.self.key",
    "layers.{i}.attention.value": "bert.encoder.layer.{i}.attention.self.value",
    "layers.{i}.attention.output": "bert.encoder.layer.{i}.attention.output.dense",
    "layers.{i}.attention.norm": "bert.encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.feed_forward.up": "bert.encoder.layer.{i}.intermediate.dense",
    "layers.{i}.feed_forward.down": "bert.encoder.layer.{i}.output.dense",
    "layers.{i}.feed_forward.norm": "bert.encoder.layer.{i}.output.LayerNorm",
}
NAMES: Names = {**ENCODER, "head.dense": "bert.pooler.dense", "head.output": "classifier"}


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json: everything is as `read_sizes` has it."""
    return read_sizes(config)
