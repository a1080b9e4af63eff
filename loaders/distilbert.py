"""DistilBERT: BERT without token types, with other names for everything, and a ReLU in the head."""

from .names import Names
from .spec import Config, ModelSpec, read_sizes

ARCHITECTURES = {"distilbert": "DistilBertForSequenceClassification"}
IGNORED = ("distilbert.embeddings.position_ids", "vocab_")  # vocab_*: the heads of pre-training
NAMES: Names = {
    "embedding.word": "distilbert.embeddings.word_embeddings",
    "embedding.position": "distilbert.embeddings.position_embeddings",
    "embedding.norm": "distilbert.embeddings.LayerNorm",
    "layers.{i}.attention.query": "distilbert.transformer.layer.{i}.attention.q_lin",
    "layers.{i}.attention.key": "distilbert.transformer.layer.{i}.attention.k_lin",
    "layers.{i}.attention.value": "distilbert.transformer.layer.{i}.attention.v_lin",
    "layers.{i}.attention.output": "distilbert.transformer.layer.{i}.attention.out_lin",
    "layers.{i}.attention.norm": "distilbert.transformer.layer.{i}.sa_layer_norm",
    "layers.{i}.feed_forward.up": "distilbert.transformer.layer.{i}.ffn.lin1",
    "layers.{i}.feed_forward.down": "distilbert.transformer.layer.{i}.ffn.lin2",
    "layers.{i}.feed_forward.norm": "distilbert.transformer.layer.{i}.output_layer_norm",
    "head.dense": "pre_classifier",
    "head.output": "classifier",
}
BERTS_NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "activation": "hidden_act",
}


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json; the eps of its LayerNorms is fixed."""
    translated = {bert: config.values[own] for own, bert in BERTS_NAMES.items() if own in config.values}
    as_bert = Config(config.path, {**config.values, **translated})
    return read_sizes(as_bert, num_token_types=0, head_activation="relu", norm_eps=1e-12)
