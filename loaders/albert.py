"""ALBERT: BERT's encoder with narrow embeddings, and few layers with weights, each of which is gone through many times.

Source: Z. Lan et al., "ALBERT: A Lite BERT" (2020), section 3.1, and the configuration of transformers.
"""

from .names import Names
from .spec import Config, LayerRule, ModelSpec, read_sizes

ARCHITECTURES = {"albert": "AlbertForSequenceClassification"}
IGNORED = ("albert.embeddings.position_ids", "predictions.", "sop_classifier.")
LAYER = "albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
NAMES: Names = {
    "embedding.word": "albert.embeddings.word_embeddings",
    "embedding.position": "albert.embeddings.position_embeddings",
    "embedding.token_type": "albert.embeddings.token_type_embeddings",
    "embedding.norm": "albert.embeddings.LayerNorm",
    "projection": "albert.encoder.embedding_hidden_mapping_in",
    "layers.{i}.attention.query": f"{LAYER}.attention.query",
    "layers.{i}.attention.key": f"{LAYER}.attention.key",
    "layers.{i}.attention.value": f"{LAYER}.attention.value",
    "layers.{i}.attention.output": f"{LAYER}.attention.dense",
    "layers.{i}.attention.norm": f"{LAYER}.attention.LayerNorm",
    "layers.{i}.feed_forward.up": f"{LAYER}.ffn",
    "layers.{i}.feed_forward.down": f"{LAYER}.ffn_output",
    "layers.{i}.feed_forward.norm": f"{LAYER}.full_layer_layer_norm",
    "head.dense": "albert.pooler",
    "head.output": "classifier",
}
MOST_LAYERS = 1024


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json. Where a group has several layers, num_hidden_layers counts how often one is gone through."""
    turns = config.integer("num_hidden_layers", high=MOST_LAYERS)
    groups = config.integer("num_hidden_groups", 1, high=turns)
    in_group = config.integer("inner_group_num", 1, high=MOST_LAYERS // turns)
    return read_sizes(
        config,
        embedding_size=config.integer("embedding_size", 128),
        projection="after",
        activation=config.activation("hidden_act", "gelu_new"),
        layers=(LayerRule(),) * (turns * in_group),
        layers_with_weights=groups * in_group,
        layers_in_group=in_group,
    )
