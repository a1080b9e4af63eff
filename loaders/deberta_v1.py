"""DeBERTa v1: the rows of queries, keys and values of each head side by side, no bias of keys, no buckets."""

from .deberta import SHARED, read_kinds, read_shared, read_span
from .names import Names
from .spec import Config, DistanceRows, ModelSpec

ARCHITECTURES = {"deberta": "DebertaForSequenceClassification"}
IGNORED = ("deberta.embeddings.position_", "lm_predictions.", "cls.")
NAMES: Names = {
    **SHARED,
    "layers.{i}.attention.query": "deberta.encoder.layer.{i}.attention.self.in_proj[0/3 of heads]",
    "layers.{i}.attention.query.bias": "deberta.encoder.layer.{i}.attention.self.q_bias",
    "layers.{i}.attention.key": "deberta.encoder.layer.{i}.attention.self.in_proj[1/3 of heads]",
    "layers.{i}.attention.value": "deberta.encoder.layer.{i}.attention.self.in_proj[2/3 of heads]",
    "layers.{i}.attention.value.bias": "deberta.encoder.layer.{i}.attention.self.v_bias",
    "layers.{i}.attention.distance_key": "deberta.encoder.layer.{i}.attention.self.pos_proj",
    "layers.{i}.attention.distance_query": "deberta.encoder.layer.{i}.attention.self.pos_q_proj",
}


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    config.require("talking_head", False, (False, None), "heads that are mixed are not implemented")
    kinds, rows = read_kinds(config), None
    if config.flag("relative_attention", False):
        span = read_span(config)
        rows = DistanceRows(kinds, span, 0, span, normed=False, shared=False)
    without = frozenset({"projection", "attention.key", "attention.distance_key"})
    return read_shared(config, kinds, rows, without_bias=without)
