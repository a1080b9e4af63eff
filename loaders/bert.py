"""BERT: `BertForSequenceClassification` of transformers."""

from .encoder_names import EncoderNames
from .spec import Config, ModelSpec, read_sizes

ARCHITECTURES = {"bert": "BertForSequenceClassification"}
IGNORED = ("bert.embeddings.position_ids", "cls.")  # a constant of old files; the heads of pre-training
NAMES = EncoderNames("bert.embeddings", "bert.encoder.layer", "bert.pooler.dense", "classifier")


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json: everything is as `read_sizes` has it."""
    return read_sizes(config)
