"""MPNet: RoBERTa's positions and head, no token types, and a bias in attention for the distance of two tokens."""

from .encoder_names import EncoderNames
from .spec import Config, ModelSpec, positions_after_padding, read_sizes

ARCHITECTURES = {"mpnet": "MPNetForSequenceClassification"}
IGNORED = ("mpnet.embeddings.position_ids", "mpnet.pooler.", "lm_head.")
NAMES = EncoderNames(
    "mpnet.embeddings",
    "mpnet.encoder.layer",
    "classifier.dense",
    "classifier.out_proj",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    relative_bias="mpnet.encoder.relative_attention_bias",
)


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    # A quarter of the buckets are for single distances, the next quarter lead logarithmically up to 128: see
    # `bucket_of_distance`. From 512 on nothing would be left for those.
    buckets = config.integer("relative_attention_num_buckets", 32, low=4, high=511)
    return read_sizes(config, num_token_types=0, relative_buckets=buckets, **positions_after_padding(config))
