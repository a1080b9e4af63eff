"""ModernBERT and mmBERT: positions by turning queries and keys, windows in most layers, gates, norms before the blocks.

The first layer has no norm before its attention: the embeddings have been normalised. A norm belongs to the sum that
it follows, so `mlp_norm` is that of the attention block, the next layer's `attn_norm` that of the feed-forward block,
and `final_norm` that of the last one. Source: B. Warner et al., "Smarter, Better, Faster, Longer" (2024), and the
configuration of transformers.
"""

from .names import Names
from .rotary import check_rotary_sizes, read_plain_theta
from .spec import ATTENTION, FEED_FORWARD, NORMS, Config, LayerRule, LinearStep, ModelSpec, NormStep, read_common_sizes

ARCHITECTURES = {"modernbert": "ModernBertForSequenceClassification"}
IGNORED = ("decoder.",)  # the head of pre-training
NAMES: Names = {
    "embedding.word": "model.embeddings.tok_embeddings",
    "embedding.norm": "model.embeddings.norm",
    "layers.{i}.attention.query": "model.layers.{i}.attn.Wqkv[0/3]",
    "layers.{i}.attention.key": "model.layers.{i}.attn.Wqkv[1/3]",
    "layers.{i}.attention.value": "model.layers.{i}.attn.Wqkv[2/3]",
    "layers.{i}.attention.output": "model.layers.{i}.attn.Wo",
    "layers.{i}.attention.norm": "model.layers.{i}.mlp_norm",
    "layers.{i}.feed_forward.gate": "model.layers.{i}.mlp.Wi[0/2]",
    "layers.{i}.feed_forward.up": "model.layers.{i}.mlp.Wi[1/2]",
    "layers.{i}.feed_forward.down": "model.layers.{i}.mlp.Wo",
    "layers.{i}.feed_forward.norm": "model.layers.{next}.attn_norm",
    "layers.{last}.feed_forward.norm": "model.final_norm",
    "head.dense": "head.dense",
    "head.norm": "head.norm",
    "head.output": "classifier",
}
FULL, SLIDING = "full_attention", "sliding_attention"
# Keys of the bases of the rates in older files, and what they are where no file says anything
OLD_THETAS = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}
POOLING = {"cls": "first", "mean": "mean"}


def read_spec(config: Config) -> ModelSpec:
    """Check a config.json."""
    config.require("classifier_pooling", "cls", tuple(POOLING), "the poolings that transformers has")
    sizes = read_common_sizes(config)
    check_rotary_sizes(config, sizes["hidden_size"], sizes["num_heads"], sizes["max_positions"])
    eps = config.number("norm_eps", 1e-5, low=0, high=1e-2)
    switches = {"attention_bias": ATTENTION, "mlp_bias": FEED_FORWARD, "norm_bias": NORMS}
    without = [part for key, parts in switches.items() if not config.flag(key, False) for part in parts]
    hidden = sizes["hidden_size"]
    return ModelSpec(
        **sizes,
        num_token_types=0,
        norm_eps=eps,
        embedding_size=hidden,
        layers=_layers(config),
        head=(
            LinearStep("head.dense", hidden, hidden, config.flag("classifier_bias", False)),
            config.activation("classifier_activation", "gelu"),
            NormStep("head.norm", hidden, eps, bias=config.flag("norm_bias", False)),
            LinearStep("head.output", hidden, sizes["num_labels"], bias=True),
        ),
        pooling=POOLING[config.values.get("classifier_pooling", "cls")],
        has_position_table=False,
        pre_norm=True,
        gated=True,
        activation=config.activation("hidden_activation", "gelu"),
        without_bias=frozenset(without),
    )


def _layers(config: Config) -> tuple[LayerRule, ...]:
    """Read which layers have a window, and by which rates each kind turns."""
    count = config.integer("num_hidden_layers", high=1024)
    every = config.integer("global_attn_every_n_layers", 3, high=1024)
    kinds = config.values.get("layer_types")
    if kinds is None:
        kinds = [SLIDING if i % every else FULL for i in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or not all(kind in (FULL, SLIDING) for kind in kinds):
        raise config.error("layer_types", kinds, f"a list of {count} times {FULL!r} or {SLIDING!r}")
    thetas = _thetas(config)
    reach = config.integer("local_attention", 128, low=0, high=1 << 20) // 2
    config.require("sliding_window", reach, (reach,), "half of local_attention, which transformers lets it replace")
    windows = {FULL: None, SLIDING: (reach, reach)}
    return tuple(LayerRule(thetas[kind], windows[kind]) for kind in kinds)


def _thetas(config: Config) -> dict[str, float]:
    """Read the base of the rates of each kind of layer, in the newer or the older spelling."""
    config.require("rope_scaling", None, (None,), "only the plain rates are implemented")
    newer = config.values.get("rope_parameters")
    newer = {} if newer is None else newer
    if not isinstance(newer, dict) or not set(newer) <= {FULL, SLIDING}:
        raise config.error("rope_parameters", newer, f"an object with {FULL!r} and {SLIDING!r}")
    return {
        kind: read_plain_theta(config, newer.get(kind), f"rope_parameters: {kind}", *OLD_THETAS[kind])
        for kind in (FULL, SLIDING)
    }
