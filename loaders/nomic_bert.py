"""NomicBERT: BERT with queries and keys that turn instead of a table of positions, gates, and no biases but the norms'.

Source: Z. Nussbaum et al., "Nomic Embed" (2024), section 3.1, and the configuration of transformers. Files that need
the code of their author have other keys, and are refused.
"""

from .names import Names
from .rotary import check_rotary_sizes, read_plain_theta
from .spec import ATTENTION, FEED_FORWARD, Config, LayerRule, ModelSpec, read_sizes

ARCHITECTURES = {"nomic_bert": "NomicBertForSequenceClassification"}
IGNORED = ("cls.",)  # the head of pre-training
NAMES: Names = {
    "embedding.word": "nomic_bert.embeddings.word_embeddings",
    "embedding.token_type": "nomic_bert.embeddings.token_type_embeddings",
    "embedding.norm": "nomic_bert.emb_ln",
    "layers.{i}.attention.query": "nomic_bert.encoder.layers.{i}.attn.Wqkv[0/3]",
    "layers.{i}.attention.key": "nomic_bert.encoder.layers.{i}.attn.Wqkv[1/3]",
    "layers.{i}.attention.value": "nomic_bert.encoder.layers.{i}.attn.Wqkv[2/3]",
    "layers.{i}.attention.output": "nomic_bert.encoder.layers.{i}.attn.out_proj",
    "layers.{i}.attention.norm": "nomic_bert.encoder.layers.{i}.norm1",
    "layers.{i}.feed_forward.up": "nomic_bert.encoder.layers.{i}.mlp.fc11",
    "layers.{i}.feed_forward.gate": "nomic_bert.encoder.layers.{i}.mlp.fc12",
    "layers.{i}.feed_forward.down": "nomic_bert.encoder.layers.{i}.mlp.fc2",
    "layers.{i}.feed_forward.norm": "nomic_bert.encoder.layers.{i}.norm2",
    "head.dense": "nomic_bert.pooler.dense",
    "head.output": "classifier",
}
DEFAULT_THETA = 1000.0


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    config.require("rope_scaling", None, (None,), "only the plain rates are implemented")
    theta = read_plain_theta(
        config, config.values.get("rope_parameters"), "rope_parameters", "rope_theta", DEFAULT_THETA
    )
    spec = read_sizes(
        config,
        layers=(LayerRule(theta),) * config.integer("num_hidden_layers", high=1024),
        has_position_table=False,
        gated=True,
        activation=config.activation("hidden_act", "silu"),
        without_bias=frozenset({*ATTENTION, *FEED_FORWARD}),
    )
    check_rotary_sizes(config, spec.hidden_size, spec.num_heads, spec.max_positions)
    return spec
