"""DeBERTa, in its three versions: attention in which contents meet distances ("disentangled").

Version 1 has the rows of queries, keys and values of each head side by side in one tensor, and a row for each distance.
Version 2 tells far distances apart in buckets, and may mix neighbours by a convolution; version 3 differs in training
only. Sources: P. He et al., "DeBERTa" (2021) and "DeBERTaV3" (2021), and the configuration of transformers.
"""

from typing import Any

from .names import Names
from .spec import MOST_TOKEN_TYPES, Config, ConvolutionRule, DistanceRows, ModelSpec, read_sizes

ARCHITECTURES = {"deberta-v2": "DebertaV2ForSequenceClassification"}
# Heads of pre-training, and a table of positions that config.json says is not used
IGNORED = ("deberta.embeddings.position_", "lm_predictions.", "mask_predictions.", "cls.")
SHARED: Names = {  # by both files of DeBERTa
    "embedding.word": "deberta.embeddings.word_embeddings",
    "embedding.position": "deberta.embeddings.position_embeddings",
    "embedding.token_type": "deberta.embeddings.token_type_embeddings",
    "embedding.norm": "deberta.embeddings.LayerNorm",
    "projection": "deberta.embeddings.embed_proj",
    "distances": "deberta.encoder.rel_embeddings",
    "layers.{i}.attention.output": "deberta.encoder.layer.{i}.attention.output.dense",
    "layers.{i}.attention.norm": "deberta.encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.feed_forward.up": "deberta.encoder.layer.{i}.intermediate.dense",
    "layers.{i}.feed_forward.down": "deberta.encoder.layer.{i}.output.dense",
    "layers.{i}.feed_forward.norm": "deberta.encoder.layer.{i}.output.LayerNorm",
    "head.dense": "pooler.dense",
    "head.output": "classifier",
}
NAMES: Names = {
    **SHARED,
    "distances.norm": "deberta.encoder.LayerNorm",
    "layers.{i}.attention.query": "deberta.encoder.layer.{i}.attention.self.query_proj",
    "layers.{i}.attention.key": "deberta.encoder.layer.{i}.attention.self.key_proj",
    "layers.{i}.attention.value": "deberta.encoder.layer.{i}.attention.self.value_proj",
    "layers.{i}.attention.distance_key": "deberta.encoder.layer.{i}.attention.self.pos_key_proj",
    "layers.{i}.attention.distance_query": "deberta.encoder.layer.{i}.attention.self.pos_query_proj",
    "convolution": "deberta.encoder.conv.conv",
    "convolution.norm": "deberta.encoder.conv.LayerNorm",
}
KINDS = ("c2p", "p2c")
LARGEST_TABLES = 1 << 28  # numbers in all tables of all layers, which are made at load; v2-xxlarge has 1.5e8


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json of versions 2 and 3."""
    kinds, rows = read_kinds(config), None
    if config.flag("relative_attention", False):
        span = farthest = read_span(config)
        buckets = config.integer("position_buckets", -1, low=-1)
        if buckets > 0:
            span = buckets
            if buckets < 4 or farthest <= buckets // 2 + 1:
                raise config.error("position_buckets", buckets, f"none, or from 4 to {2 * farthest - 3}")
        normed = "layer_norm" in _words(config, "norm_rel_ebd", "none")
        rows = DistanceRows(kinds, span, max(buckets, 0), farthest, normed, config.flag("share_att_key", False))
    return read_shared(config, kinds, rows, convolution=_read_convolution(config))


def read_shared(config: Config, kinds: tuple[str, ...], rows: DistanceRows | None, **rules: Any) -> ModelSpec:
    """Read what all versions have. Kinds of scores count for the scale even where distances are not used."""
    hidden = config.integer("hidden_size")
    embedding_size = config.integer("embedding_size", hidden)
    spec = read_sizes(
        config,
        embedding_size=embedding_size,
        projection=None if embedding_size == hidden else "before",
        norm_eps=config.number("layer_norm_eps", 1e-7, low=0, high=1e-2),
        num_token_types=config.integer("type_vocab_size", 0, low=0, high=MOST_TOKEN_TYPES),
        has_position_table=config.flag("position_biased_input", True),
        distance_rows=rows,
        score_terms=1 + len(kinds),
        head_activation=config.activation("pooler_hidden_act", "gelu"),
        **{"without_bias": frozenset({"projection"}), **rules},
    )
    config.require("pooler_hidden_size", hidden, (hidden,), "the hidden size")
    width = hidden // spec.num_heads
    config.require("attention_head_size", width, (width,), "hidden_size / num_attention_heads")
    if rows is not None and kinds:
        most = LARGEST_TABLES // (2 * hidden * spec.num_layers * len(kinds))
        for key, distances in (("max_position_embeddings", spec.max_positions), ("max_relative_positions", rows.span)):
            if distances > most:
                raise config.error(key, distances, f"at most {most}, as tables of distances are made at load")
    return spec


def read_kinds(config: Config) -> tuple[str, ...]:
    """Read which contents meet distances: a list, or words between bars."""
    kinds = config.values.get("pos_att_type")
    kinds = [] if kinds is None else _words(config, "pos_att_type", "") if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not all(kind in KINDS for kind in kinds) or len(set(kinds)) < len(kinds):
        raise config.error("pos_att_type", kinds, f"some of {list(KINDS)}, each once")
    return tuple(kinds)


def read_span(config: Config) -> int:
    """Read how far distances are told apart."""
    span = config.integer("max_relative_positions", -1, low=-1, high=1 << 20)
    return span if span > 0 else config.integer("max_position_embeddings", high=1 << 20)


def _words(config: Config, key: str, default: str) -> list[str]:
    value = config.values.get(key, default)
    if not isinstance(value, str):
        raise config.error(key, value, "words between bars")
    return [word.strip() for word in value.lower().split("|")]


def _read_convolution(config: Config) -> ConvolutionRule | None:
    width, groups = config.integer("conv_kernel_size", 0, low=0), config.integer("conv_groups", 1)
    if width == 0:
        return None
    hidden = config.integer("hidden_size")
    if width % 2 == 0:
        raise config.error("conv_kernel_size", width, "an odd number: as many neighbours on each side")
    if hidden % groups or hidden * hidden * width > LARGEST_TABLES:
        expected = (
            f"a divisor of hidden_size, with at most {LARGEST_TABLES} weights when zeros stand between the groups"
        )
        raise config.error("conv_groups", groups, expected)
    if config.integer("num_hidden_layers") == 1:
        raise config.error("num_hidden_layers", 1, "at least 2 with a convolution, which goes between two layers")
    return ConvolutionRule(width, groups, config.activation("conv_act", "tanh"))
