"""ELECTRA: BERT's encoder with embeddings that may be narrower, and a head that bends with GELU instead of tanh."""

from .bert import ENCODER
from .names import Names
from .spec import Config, ModelSpec, read_sizes

ARCHITECTURES = {"electra": "ElectraForSequenceClassification"}
IGNORED = ("electra.embeddings.position_ids", "discriminator_predictions.", "generator_")
NAMES: Names = {
    **{ours: name.replace("bert.", "electra.") for ours, name in ENCODER.items()},
    "projection": "electra.embeddings_project",
    "head.dense": "classifier.dense",
    "head.output": "classifier.out_proj",
}


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    width = config.integer("embedding_size")
    projection = None if width == config.values.get("hidden_size") else "after"
    return read_sizes(config, embedding_size=width, projection=projection, head_activation="gelu")
