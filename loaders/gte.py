"""GTE of Alibaba: positions by turning queries and keys, gates, norms behind the blocks.

The half of the gate that is activated comes second. Rates may be of the NTK kind, which holds at every length: with a
factor s the base is theta * s, and every rate is divided by s**(2 / D) on top of that. Sources: X. Zhang et al., "mGTE"
(2024), the configurations of transformers and of Alibaba's code (there "new"), which is not run.
"""

from dataclasses import replace
from typing import Any

from .names import Names
from .rotary import check_rotary_sizes, read_theta
from .spec import MOST_TOKEN_TYPES, Config, LayerRule, ModelSpec, read_sizes

ARCHITECTURES = {"gte": "GteForSequenceClassification", "new": "NewForSequenceClassification"}
KEYS: dict[str, str] = {}  # model_type says it all
SIGN = "gte.encoder.layer.0.attention.qkv_proj.weight"
IGNORED = ()
NAMES: Names = {
    "embedding.word": "gte.embeddings.word_embeddings",
    "embedding.token_type": "gte.embeddings.token_type_embeddings",
    "embedding.norm": "gte.embeddings.LayerNorm",
    "layers.{i}.attention.query": "gte.encoder.layer.{i}.attention.qkv_proj[0/3]",
    "layers.{i}.attention.key": "gte.encoder.layer.{i}.attention.qkv_proj[1/3]",
    "layers.{i}.attention.value": "gte.encoder.layer.{i}.attention.qkv_proj[2/3]",
    "layers.{i}.attention.output": "gte.encoder.layer.{i}.attention.o_proj",
    "layers.{i}.attention.norm": "gte.encoder.layer.{i}.attn_ln",
    "layers.{i}.feed_forward.up": "gte.encoder.layer.{i}.mlp.up_gate_proj[0/2]",
    "layers.{i}.feed_forward.gate": "gte.encoder.layer.{i}.mlp.up_gate_proj[1/2]",
    "layers.{i}.feed_forward.down": "gte.encoder.layer.{i}.mlp.down_proj",
    "layers.{i}.feed_forward.norm": "gte.encoder.layer.{i}.mlp_ln",
    "head.dense": "gte.pooler.dense",
    "head.output": "classifier",
}
THETAS = {"gte": 160_000.0, "new": 10_000.0}  # of transformers' class and of Alibaba's, where the file says nothing
RULES = ("rope_parameters", "rope_scaling")  # the newer key and the older one
KINDS = ("rope_type", "type")  # likewise, in a rule


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    config.require("layer_norm_type", "layer_norm", ("layer_norm",), "the only norm that is implemented")
    config.require("logn_attention_scale", False, (False, None), "scores that grow with the length are not implemented")
    spec = read_sizes(
        config,
        positions="rope",
        has_position_table=False,
        num_token_types=config.integer("type_vocab_size", 1, low=0, high=MOST_TOKEN_TYPES),
        gated=True,
        without_bias=frozenset({"feed_forward.gate", "feed_forward.up"}),
    )
    width = check_rotary_sizes(config, spec.hidden_size, spec.num_heads, spec.max_positions)
    return replace(spec, layers=(_read_rates(config, width),) * spec.num_layers)


def _read_rates(config: Config, width: int) -> LayerRule:
    """Read by which rates all layers turn."""
    place, rule = _read_rule(config)
    kind = next((rule[key] for key in KINDS if key in rule), "default")
    if kind != next((rule[key] for key in reversed(KINDS) if key in rule), "default"):
        raise config.error(place, rule, "one kind, not two")
    known = {"default": {*KINDS, "rope_theta"}, "ntk": {*KINDS, "rope_theta", "factor"}}
    if not isinstance(kind, str) or not {key for key in rule if rule[key] is not None} <= known.get(kind, set()):
        expected = "the kind 'default', or 'ntk' with a factor, the only ones implemented, and nothing besides"
        raise config.error(place, rule, expected)
    theta = read_theta(config, rule, place, "rope_theta", THETAS[config.values["model_type"]])
    if kind == "default":
        return LayerRule(theta)
    factor = Config(config.path, {f"{place}: factor": rule.get("factor")}).number(f"{place}: factor", low=0.1, high=1e6)
    return LayerRule(theta * factor, slower=factor ** (2 / width))


def _read_rule(config: Config) -> tuple[str, dict[str, Any]]:
    """Return the rule of the rates, and its key; both keys may be there if they say the same."""
    rules = {key: config.values[key] for key in RULES if config.values.get(key) is not None}
    for key, rule in rules.items():
        if not isinstance(rule, dict):
            raise config.error(key, rule, "an object")
    if len(rules) == 2 and rules[RULES[0]] != rules[RULES[1]]:
        raise config.error(RULES[1], rules[RULES[1]], f"what {RULES[0]} says, or nothing")
    return next(iter(rules.items()), (RULES[0], {}))
