"""Other settings of a model, and the tensors that they promise: what mostly must be right, not refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile import Random
from naive import BENDS_OF_CONFIG, Tensors
from naive_deberta import V1, V2
from safetensors.numpy import load_file, save_file

Config = dict[str, Any]
DEBERTA = ("deberta", "deberta-v2")
TURNED = ("nomic_bert", "gte", "new")
LENGTHS = [17, 64, 129, 300]  # tokens; the longest pair that is tried has more
MOST_HEADS = 12  # more take the second opinion seconds


def vary(folder: Path, rng: Random) -> str:
    """Change up to three settings; return which."""
    path, weights = folder / "config.json", folder / "model.safetensors"
    config, tensors = json.loads(path.read_text()), load_file(weights)
    before = dict(config)
    possible = [change for change, families in CHANGES if not families or config["model_type"] in families]
    for change in rng.sample(possible, min(len(possible), rng.choice([1, 2, 3]))):
        change(config, rng)
    _fit(config, tensors, np.random.default_rng(rng.randrange(2**32)))
    save_file(tensors, weights)
    path.write_text(json.dumps(config))
    if config["max_position_embeddings"] != before["max_position_embeddings"]:
        place = folder / "tokenizer_config.json"
        settings = {**json.loads(place.read_text()), "model_max_length": config["max_position_embeddings"]}
        place.write_text(json.dumps(settings))
    return f"{ {key: value for key, value in config.items() if before.get(key, 'absent') != value} }"


def _heads(config: Config, rng: Random) -> None:
    hidden = config["hidden_size"]
    turned = config["model_type"] in TURNED
    config["num_attention_heads"] = rng.choice(
        [n for n in range(1, MOST_HEADS + 1) if hidden % n == 0 and not (turned and hidden // n % 2)]
    )
    if "head_dim" in config:
        config["head_dim"] = hidden // config["num_attention_heads"]


def _length(config: Config, rng: Random) -> None:
    config["max_position_embeddings"] = rng.choice(LENGTHS)


def _bend(config: Config, rng: Random) -> None:
    key = rng.choice(["hidden_act", "pooler_hidden_act"] if config["model_type"] in DEBERTA else ["hidden_act"])
    config[key] = rng.choice(list(BENDS_OF_CONFIG))


def _kinds(config: Config, rng: Random) -> None:
    config["pos_att_type"] = rng.choice([["c2p"], ["p2c"], [], None, "c2p", "p2c|c2p", "P2C | C2P", ["c2p", "p2c"]])
    config["relative_attention"] = rng.random() < 0.8


def _distances(config: Config, rng: Random) -> None:
    config["max_relative_positions"] = rng.choice([-1, 0, 1, 7, 40, 100, 512, 1000])
    config["position_buckets"] = rng.choice([-1, 0, 4, 5, 12, 32, 33, 256])


def _switches(config: Config, rng: Random) -> None:
    for key in ("share_att_key", "position_biased_input"):
        config[key] = rng.random() < 0.5
    config["norm_rel_ebd"] = rng.choice(["none", "layer_norm", "LAYER_NORM | other"])
    config["type_vocab_size"] = rng.choice([0, 1, 2, 3])
    config["embedding_size"] = rng.choice([config["hidden_size"], 5, 64])


def _convolution(config: Config, rng: Random) -> None:
    config["conv_kernel_size"] = rng.choice([0, 1, 3, 5, 9, 4])
    config["conv_groups"] = rng.choice([1, 2, config["hidden_size"]])
    config["conv_act"] = rng.choice(list(BENDS_OF_CONFIG))


def _groups(config: Config, rng: Random) -> None:
    config["num_hidden_layers"] = rng.choice([1, 2, 3, 4, 5, 7])
    config["num_hidden_groups"] = rng.randrange(1, 4)
    config["inner_group_num"] = rng.choice([1, 2])


def _rates(config: Config, rng: Random) -> None:
    theta = rng.choice([1.5, 10, 1000.0, 160000, 1e7])
    rule: Config = {"rope_theta": theta} if rng.random() < 0.5 else {}
    config["rope_theta"] = rng.choice([20000, 5.0])
    if config["model_type"] != "nomic_bert" and rng.random() < 0.5:
        rule |= {rng.choice(["type", "rope_type"]): "ntk", "factor": rng.choice([8.0, 2, 1, 0.5, 1.3])}
    config.pop("rope_parameters", None)
    config.pop("rope_scaling", None)
    key = "rope_parameters" if config["model_type"] == "nomic_bert" else rng.choice(["rope_parameters", "rope_scaling"])
    config[key] = rule or None


def _gate(config: Config, rng: Random) -> None:
    if "feed_forward_type" in config:
        config["feed_forward_type"] = rng.choice(["geglu", "reglu", "original", "glu"])


CHANGES: list[tuple[Callable[[Config, Random], None], tuple[str, ...]]] = [
    (_heads, ()), (_length, ()), (_bend, ()), (_kinds, DEBERTA), (_distances, DEBERTA), (_switches, DEBERTA),
    (_convolution, ("deberta-v2",)), (_groups, ("albert",)), (_rates, TURNED), (_gate, ("bert",)),
]  # fmt: skip


def _fit(config: Config, tensors: Tensors, numbers: np.random.Generator) -> None:
    """Give the tensors the shapes that are promised now, make those that are lacking, drop those that are not."""
    for name in [name for name in tensors if name.endswith("embeddings.position_embeddings.weight")]:
        tensors[name] = np.resize(tensors[name], (config["max_position_embeddings"], tensors[name].shape[1]))
    wanted: dict[str, tuple[int, ...]] = {}
    if config["model_type"] in DEBERTA:
        wanted = _deberta(config)
        changing = ("pos_", "rel_embeddings", "encoder.LayerNorm", "encoder.conv.", "embeddings.", "embed_proj")
    elif config["model_type"] == "albert":
        wanted = _albert(config, tensors)
        changing = ("albert_layer_groups.",)
    else:
        return
    for name in [name for name in tensors if any(part in name for part in changing) and name not in wanted]:
        del tensors[name]
    for name, shape in wanted.items():
        old = tensors.get(name, np.empty(0))
        if old.shape != shape:
            made = np.resize(old, shape) if old.size else 0.3 * numbers.standard_normal(shape)
            tensors[name] = made.astype(np.float32)


def _deberta(config: Config) -> dict[str, tuple[int, ...]]:
    """Return name and shape of what changes."""
    first, c, e = config["model_type"] == "deberta", config["hidden_size"], config.get("embedding_size")
    e = c if e is None else e
    kinds, relative = str(config.get("pos_att_type")).lower(), config["relative_attention"]
    positions = config["max_position_embeddings"]
    names, at = (V1 if first else V2), "deberta.encoder.layer"
    wanted = {"deberta.embeddings.word_embeddings.weight": (config["vocab_size"], e)}
    wanted |= {f"deberta.embeddings.LayerNorm.{part}": (c,) for part in ("weight", "bias")}
    if config["position_biased_input"]:
        wanted["deberta.embeddings.position_embeddings.weight"] = (positions, e)
    if config["type_vocab_size"]:
        wanted["deberta.embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], e)
    if e != c:
        wanted["deberta.embeddings.embed_proj.weight"] = (c, e)
    if relative:
        span = config.get("max_relative_positions", -1)
        span = positions if span < 1 else span
        span = config["position_buckets"] if not first and config.get("position_buckets", -1) > 0 else span
        wanted["deberta.encoder.rel_embeddings.weight"] = (2 * span, c)
    if relative and not first and "layer_norm" in config.get("norm_rel_ebd", "none").lower():
        wanted |= {f"deberta.encoder.LayerNorm.{part}": (c,) for part in ("weight", "bias")}
    if relative and (first or not config.get("share_att_key", False)):
        for kind, part in (("c2p", "distance_k"), ("p2c", "distance_q")):
            for i in range(config["num_hidden_layers"]) if kind in kinds else ():
                wanted[f"{at}.{i}.{names[part]}.weight"] = (c, c)
                if not (first and kind == "c2p"):
                    wanted[f"{at}.{i}.{names[part]}.bias"] = (c,)
    if width := (0 if first else config.get("conv_kernel_size", 0)):
        wanted["deberta.encoder.conv.conv.weight"] = (c, c // config.get("conv_groups", 1), width)
        wanted |= {f"deberta.encoder.conv.{name}": (c,) for name in ("conv.bias", "LayerNorm.weight", "LayerNorm.bias")}
    return wanted


def _albert(config: Config, tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Return name and shape of what changes: every layer has the shapes of the first one."""
    place = "albert.encoder.albert_layer_groups.{}.albert_layers.{}."
    parts = {name.removeprefix(place.format(0, 0)): array.shape for name, array in tensors.items()}
    return {
        place.format(group, inner) + part: shape
        for group in range(config.get("num_hidden_groups", 1))
        for inner in range(config.get("inner_group_num", 1))
        for part, shape in parts.items()
        if not part.startswith(("albert.", "classifier."))
    }
