"""What the files of encoder families have in common: the same parts of a layer under different names.

A family's file gives an `EncoderNames`; `tensor_table` turns it into the list of all tensors. The names are those of
BERT unless a family says otherwise.
"""

from dataclasses import dataclass

from .spec import ModelSpec

TensorTable = dict[str, tuple[str, tuple[int, ...]]]  # {canonical name: (name in the file, shape)}


@dataclass(frozen=True)
class EncoderNames:
    """Names in a family's files; those in layers stand after ``layers + index``."""

    embeddings: str
    layers: str
    head_dense: str
    head_output: str
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    feed_forward_norm: str = "output.LayerNorm"
    projection: str = ""  # from the embedding size to the hidden size, where they differ
    relative_bias: str = ""  # where attention has one


def tensor_table(spec: ModelSpec, names: EncoderNames) -> TensorTable:
    """Return every tensor that the model needs, with its name in the file and its shape."""
    c, e, f = spec.hidden_size, spec.embedding_size, spec.intermediate_size
    table: TensorTable = {}

    def linear(ours: str, theirs: str, outputs: int, inputs: int) -> None:
        table[f"{ours}.weight"] = (f"{theirs}.weight", (outputs, inputs))
        table[f"{ours}.bias"] = (f"{theirs}.bias", (outputs,))

    def norm(ours: str, theirs: str, width: int) -> None:
        table[f"{ours}.gain"] = (f"{theirs}.weight", (width,))
        table[f"{ours}.bias"] = (f"{theirs}.bias", (width,))

    rows = {"word": spec.vocab_size, "position": spec.max_positions, "token_type": spec.num_token_types}
    for part, count in rows.items():
        if count:
            table[f"embedding.{part}"] = (f"{names.embeddings}.{part}_embeddings.weight", (count, e))
    norm("embedding.norm", f"{names.embeddings}.LayerNorm", e)
    if e != c:
        linear("projection", names.projection, c, e)
    if spec.relative_buckets:
        table["relative_bias"] = (f"{names.relative_bias}.weight", (spec.relative_buckets, spec.num_heads))
    for i in range(spec.num_layers):
        ours, theirs = f"layers.{i}", f"{names.layers}.{i}"
        linear(f"{ours}.attention.query", f"{theirs}.{names.query}", c, c)
        linear(f"{ours}.attention.key", f"{theirs}.{names.key}", c, c)
        linear(f"{ours}.attention.value", f"{theirs}.{names.value}", c, c)
        linear(f"{ours}.attention.output", f"{theirs}.{names.output}", c, c)
        norm(f"{ours}.attention.norm", f"{theirs}.{names.attention_norm}", c)
        linear(f"{ours}.feed_forward.up", f"{theirs}.{names.up}", f, c)
        linear(f"{ours}.feed_forward.down", f"{theirs}.{names.down}", c, f)
        norm(f"{ours}.feed_forward.norm", f"{theirs}.{names.feed_forward_norm}", c)
    linear("head.dense", names.head_dense, c, c)
    linear("head.output", names.head_output, spec.num_labels, c)
    return table
