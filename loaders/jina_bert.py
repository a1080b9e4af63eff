"""JinaBERT of the first jina-rerankers: a bias that falls with the distance (ALiBi) and gated feed-forward blocks.

The half of the gate that is activated comes first. Both texts have token type 0, whose row is added all the same.
Sources: M. Günther et al., "Jina Embeddings 2" (2023), and the configuration of Jina AI's code, which is not run.
"""

from .bert import ENCODER
from .names import Names
from .spec import LARGEST_TABLE, Config, ModelSpec, read_sizes

ARCHITECTURES = {"bert": "JinaBertForSequenceClassification"}
KEYS = {"position_embedding_type": "alibi"}
SIGN = "bert.encoder.layer.0.mlp.gated_layers.weight"
IGNORED = ()
NAMES: Names = {
    **ENCODER,
    "layers.{i}.feed_forward.gate": "bert.encoder.layer.{i}.mlp.gated_layers[0/2]",
    "layers.{i}.feed_forward.up": "bert.encoder.layer.{i}.mlp.gated_layers[1/2]",
    "layers.{i}.feed_forward.down": "bert.encoder.layer.{i}.mlp.wo",
    "layers.{i}.feed_forward.norm": "bert.encoder.layer.{i}.mlp.layernorm",
    "head.dense": "bert.pooler.dense",
    "head.output": "classifier",
}
GATES = {"geglu": "gelu", "reglu": "relu"}  # feed_forward_type decides; hidden_act is that of blocks without a gate


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    config.require("feed_forward_type", None, tuple(GATES), "the gates that this family has")
    spec = read_sizes(
        config,
        positions="alibi",
        alibi=True,
        has_position_table=False,
        gated=True,
        activation=GATES[config.values["feed_forward_type"]],
        without_bias=frozenset({"feed_forward.gate", "feed_forward.up"}),
    )
    longest = LARGEST_TABLE // (2 * spec.num_heads)
    if spec.max_positions > longest:
        expected = f"at most {longest} with {spec.num_heads} heads"
        raise config.error("max_position_embeddings", spec.max_positions, expected)
    return spec
