"""XLM-RoBERTa of the second jina-reranker: the numbers of `roberta`, under the names of flash-attention's BERT.

Queries, keys and values are rows of one tensor, one after the other. Source: the configuration of Jina AI's code,
which is not run.
"""

from . import roberta
from .names import Names
from .roberta import read_spec as read_spec

ARCHITECTURES = {"xlm-roberta": "XLMRobertaForSequenceClassification"}
KEYS: dict[str, str] = {}  # none that XLM-RoBERTa has not too
SIGN = "roberta.encoder.layers.0.mixer.Wqkv.weight"
IGNORED = roberta.IGNORED
NAMES: Names = {
    "embedding.word": "roberta.embeddings.word_embeddings",
    "embedding.position": "roberta.embeddings.position_embeddings",
    "embedding.token_type": "roberta.embeddings.token_type_embeddings",
    "embedding.norm": "roberta.emb_ln",
    "layers.{i}.attention.query": "roberta.encoder.layers.{i}.mixer.Wqkv[0/3]",
    "layers.{i}.attention.key": "roberta.encoder.layers.{i}.mixer.Wqkv[1/3]",
    "layers.{i}.attention.value": "roberta.encoder.layers.{i}.mixer.Wqkv[2/3]",
    "layers.{i}.attention.output": "roberta.encoder.layers.{i}.mixer.out_proj",
    "layers.{i}.attention.norm": "roberta.encoder.layers.{i}.norm1",
    "layers.{i}.feed_forward.up": "roberta.encoder.layers.{i}.mlp.fc1",
    "layers.{i}.feed_forward.down": "roberta.encoder.layers.{i}.mlp.fc2",
    "layers.{i}.feed_forward.norm": "roberta.encoder.layers.{i}.norm2",
    "head.dense": "classifier.dense",
    "head.output": "classifier.out_proj",
}
