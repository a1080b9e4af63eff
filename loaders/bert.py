"""BERT: the rules of its config.json and the names of its tensors (transformers' BertForSequenceClassification)."""

from .spec import Config, ModelSpec, check_heads

ARCHITECTURE = "BertForSequenceClassification"
IGNORED = ("bert.embeddings.position_ids", "cls.")  # a constant of old files; the heads of pre-training


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json of model_type "bert" and return its spec.

    Raises
    ------
    ConfigError
        When a size is impossible or a rule is asked for that numbert does not compute.
    """
    config.require("hidden_act", "gelu", ("gelu",), "the exact GELU is the only activation implemented")
    config.require(
        "position_embedding_type", "absolute", ("absolute",), "relative and ALiBi positions are not implemented"
    )
    config.require("is_decoder", False, (False,), "decoders are not rerankers of this kind")
    config.require("add_cross_attention", False, (False,), "cross-attention is not implemented")
    spec = ModelSpec(
        family="bert",
        vocab_size=config.integer("vocab_size", high=1 << 22),
        hidden_size=config.integer("hidden_size"),
        num_layers=config.integer("num_hidden_layers", high=1024),
        num_heads=config.integer("num_attention_heads", high=1024),
        intermediate_size=config.integer("intermediate_size", high=1 << 18),
        max_positions=config.integer("max_position_embeddings", high=1 << 20),
        num_token_types=config.integer("type_vocab_size", 2, high=1024),
        norm_eps=config.number("layer_norm_eps", 1e-12, low=0, high=1e-2),
        num_labels=config.num_labels(),
    )
    check_heads(config, spec.hidden_size, spec.num_heads)
    return spec


def tensor_table(spec: ModelSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return {canonical name: (name in the file, shape)} for every tensor that the model needs."""
    c, f = spec.hidden_size, spec.intermediate_size
    table: dict[str, tuple[str, tuple[int, ...]]] = {}

    def linear(ours: str, theirs: str, outputs: int, inputs: int) -> None:
        table[f"{ours}.weight"] = (f"{theirs}.weight", (outputs, inputs))
        table[f"{ours}.bias"] = (f"{theirs}.bias", (outputs,))

    def norm(ours: str, theirs: str) -> None:
        table[f"{ours}.gain"] = (f"{theirs}.weight", (c,))
        table[f"{ours}.bias"] = (f"{theirs}.bias", (c,))

    table["embedding.word"] = ("bert.embeddings.word_embeddings.weight", (spec.vocab_size, c))
    table["embedding.position"] = ("bert.embeddings.position_embeddings.weight", (spec.max_positions, c))
    table["embedding.token_type"] = ("bert.embeddings.token_type_embeddings.weight", (spec.num_token_types, c))
    norm("embedding.norm", "bert.embeddings.LayerNorm")
    for i in range(spec.num_layers):
        ours, theirs = f"layers.{i}", f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{ours}.attention.{part}", f"{theirs}.attention.self.{part}", c, c)
        linear(f"{ours}.attention.output", f"{theirs}.attention.output.dense", c, c)
        norm(f"{ours}.attention.norm", f"{theirs}.attention.output.LayerNorm")
        linear(f"{ours}.feed_forward.up", f"{theirs}.intermediate.dense", f, c)
        linear(f"{ours}.feed_forward.down", f"{theirs}.output.dense", c, f)
        norm(f"{ours}.feed_forward.norm", f"{theirs}.output.LayerNorm")
    linear("head.dense", "bert.pooler.dense", c, c)
    linear("head.output", "classifier", spec.num_labels, c)
    return table
