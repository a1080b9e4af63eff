"""ELECTRA: BERT's encoder with embeddings that may be narrower, and a head that bends with GELU instead of tanh."""

from .encoder_names import EncoderNames
from .spec import Config, ModelSpec, read_sizes

ARCHITECTURES = {"electra": "ElectraForSequenceClassification"}
IGNORED = ("electra.embeddings.position_ids", "discriminator_predictions.", "generator_")
NAMES = EncoderNames(
    "electra.embeddings",
    "electra.encoder.layer",
    "classifier.dense",
    "classifier.out_proj",
    projection="electra.embeddings_project",
)


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    return read_sizes(config, embedding_size=config.integer("embedding_size"), head_activation="gelu")
