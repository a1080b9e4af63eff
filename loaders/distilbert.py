"""DistilBERT: BERT without token types, with other names for everything, and a ReLU in the head."""

from .encoder_names import EncoderNames
from .spec import Config, ModelSpec, read_sizes

ARCHITECTURES = {"distilbert": "DistilBertForSequenceClassification"}
IGNORED = ("distilbert.embeddings.position_ids", "vocab_")  # vocab_*: the heads of pre-training
NAMES = EncoderNames(
    "distilbert.embeddings",
    "distilbert.transformer.layer",
    "pre_classifier",
    "classifier",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    feed_forward_norm="output_layer_norm",
)
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
