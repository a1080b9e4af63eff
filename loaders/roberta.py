"""RoBERTa, XLM-RoBERTa and CamemBERT: one model with three vocabularies.

Positions are counted from the row behind that of the padding token, so that of 514 rows 512 can be used. There is no
pooler: the head has a dense layer of its own.
"""

from .bert import ENCODER
from .names import Names
from .spec import Config, ModelSpec, positions_after_padding, read_sizes

ARCHITECTURES = {
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
}
# A constant of old files; the pooler and the head of pre-training, which the classification head does not use.
IGNORED = ("roberta.embeddings.position_ids", "roberta.pooler.", "lm_head.")
NAMES: Names = {
    **{ours: name.replace("bert.", "roberta.") for ours, name in ENCODER.items()},
    "head.dense": "classifier.dense",
    "head.output": "classifier.out_proj",
}


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    return read_sizes(config, **positions_after_padding(config))
