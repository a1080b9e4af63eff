"""MPNet: RoBERTa's positions and head, no token types, and a bias in attention for the distance of two tokens."""

from .names import Names
from .spec import Config, ModelSpec, positions_after_padding, read_sizes

ARCHITECTURES = {"mpnet": "MPNetForSequenceClassification"}
IGNORED = ("mpnet.embeddings.position_ids", "mpnet.pooler.", "lm_head.")
NAMES: Names = {
    "embedding.word": "mpnet.embeddings.word_embeddings",
    "embedding.position": "mpnet.embeddings.position_embeddings",
    "embedding.norm": "mpnet.embeddings.LayerNorm",
    "relative_bias": "mpnet.encoder.relative_attention_bias",
    "layers.{i}.attention.query": "mpnet.encoder.layer.{i}.attention.attn.q",
    "layers.{i}.attention.key": "mpnet.encoder.layer.{i}.attention.attn.k",
    "layers.{i}.attention.value": "mpnet.encoder.layer.{i}.attention.attn.v",
    "layers.{i}.attention.output": "mpnet.encoder.layer.{i}.attention.attn.o",
    "layers.{i}.attention.norm": "mpnet.encoder.layer.{i}.attention.LayerNorm",
    "layers.{i}.feed_forward.up": "mpnet.encoder.layer.{i}.intermediate.dense",
    "layers.{i}.feed_forward.down": "mpnet.encoder.layer.{i}.output.dense",
    "layers.{i}.feed_forward.norm": "mpnet.encoder.layer.{i}.output.LayerNorm",
    "head.dense": "classifier.dense",
    "head.output": "classifier.out_proj",
}


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    # A quarter of the buckets are for single distances, the next quarter lead logarithmically up to 128: see
    # `bucket_of_distance`. From 512 on nothing would be left for those.
    buckets = config.integer("relative_attention_num_buckets", 32, low=4, high=511)
    return read_sizes(config, num_token_types=0, relative_buckets=buckets, **positions_after_padding(config))
