"""The second forward pass of ALBERT, NomicBERT, GTE, and the first two jina-rerankers.

The last three bring code of their own, which neither numbert nor this runs.
"""

import math
from typing import Any

import numpy as np
from naive import BENDS, BERT, Model, Tensors, bend_of, mix
from naive_deberta import Deberta, DebertaV1, read_deberta
from naive_modernbert import ModernBert, turn
from read_numbers import Number
from verdict import Refusable

ALBERT = {"q": "attention.query", "k": "attention.key", "v": "attention.value", "o": "attention.dense"}
ALBERT |= {"n1": "attention.LayerNorm", "up": "ffn", "down": "ffn_output", "n2": "full_layer_layer_norm"}
FLASH = {"o": "mixer.out_proj", "n1": "norm1", "up": "mlp.fc1", "down": "mlp.fc2", "n2": "norm2", "qkv": "mixer.Wqkv"}
NOMIC = {"o": "attn.out_proj", "n1": "norm1", "up": "mlp.fc11", "down": "mlp.fc2", "n2": "norm2", "qkv": "attn.Wqkv"}
NOMIC |= {"gate": "mlp.fc12"}
GTE = {"o": "attention.o_proj", "n1": "attn_ln", "down": "mlp.down_proj", "n2": "mlp_ln"}
GTE |= {"qkv": "attention.qkv_proj", "both": "mlp.up_gate_proj"}
JINA = {**BERT, "both": "mlp.gated_layers", "down": "mlp.wo", "n2": "mlp.layernorm"}
REMOTE = ("jina-bert", "jina-xlm", "gte", "new")


class Albert(Model):
    """An ALBERT: a group of layers is gone through again and again before the next one."""

    names = ALBERT
    place = "encoder.albert_layer_groups"

    def _encode(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        turns, groups = self.sizes["layers"], self.sizes["groups"]
        x = self._embed(ids, types, positions)
        for i in range(turns):
            for inner in range(self.sizes["in_group"]):
                place = f"{self.layers}.{int(i / (turns / groups))}.albert_layers.{inner}"
                x = self._layer(x, {part: f"{place}.{name}" for part, name in self.names.items()}, 0)
        return x

    def _embed(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        x = self._norm(self._sum_of_rows(ids, types, positions), f"{self.prefix}{self.embedding_norm}")
        return self._linear(x, f"{self.prefix}encoder.embedding_hidden_mapping_in", self.sizes["hidden"])


class Flash(Model):
    """XLM-RoBERTa under the names of flash-attention's BERT."""

    names = FLASH
    place = "encoder.layers"
    embedding_norm = "emb_ln"

    def _rows(self, x: np.ndarray, names: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        query, key, value = np.split(self._linear(x, names["qkv"], 3 * self.sizes["hidden"]), 3, -1)
        return query, key, value


class Jina(Model):
    """JinaBERT: scores fall with the distance, and the first half of the gated rows is activated."""

    names = JINA

    def _bias(self, length: int) -> np.ndarray:
        """Float32 numbers, as in training."""
        distance = np.abs(np.arange(length)[:, None] - np.arange(length)[None, :])
        return (-_slopes(self.sizes["heads"])[:, None, None] * distance).astype(np.float32).astype(np.float64)

    def _feed_forward(self, x: np.ndarray, names: dict[str, str]) -> np.ndarray:
        gate, up = np.split(self._linear(x, names["both"], 2 * self.sizes["inner"], reads_bias=False), 2, -1)
        return self._linear(BENDS[self.sizes["bend"]](gate) * up, names["down"], self.sizes["hidden"])


class Gte(Model):
    """GTE: queries and keys turn, and the second half of the gated rows is activated."""

    names = GTE
    has_biases = True

    def _attention(self, x: np.ndarray, names: dict[str, str], bias: Any) -> np.ndarray:
        theta, slower = self.sizes["rates"]
        c, heads = self.sizes["hidden"], self.sizes["heads"]
        whole = self._linear(x, names["qkv"], 3 * c, reads_bias=self.has_biases).reshape(len(x), 3, heads, -1)
        query, key = (turn(whole[:, part], theta, slower).transpose(1, 0, 2) for part in (0, 1))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(c // heads)
        mixed = mix(scores, whole[:, 2].transpose(1, 0, 2))
        return self._linear(mixed, names["o"], c, reads_bias=self.has_biases)

    def _feed_forward(self, x: np.ndarray, names: dict[str, str]) -> np.ndarray:
        up, gate = np.split(self._linear(x, names["both"], 2 * self.sizes["inner"], reads_bias=False), 2, -1)
        return self._linear(up * BENDS[self.sizes["bend"]](gate), names["down"], self.sizes["hidden"])


class Nomic(Gte):
    """NomicBERT: GTE's attention, a gate of its own, and no biases but those of the norms."""

    names = NOMIC
    place = "encoder.layers"
    embedding_norm = "emb_ln"
    has_biases = False

    def _feed_forward(self, x: np.ndarray, names: dict[str, str]) -> np.ndarray:
        up, gate = (self._linear(x, names[part], self.sizes["inner"], reads_bias=False) for part in ("up", "gate"))
        hidden = up * BENDS[self.sizes["bend"]](gate)
        return self._linear(hidden, names["down"], self.sizes["hidden"], reads_bias=False)


def _slopes(heads: int) -> np.ndarray:
    """A geometric series for a power of two; between its numbers, every other one of the next power's."""
    power = 1
    while 2 * power <= heads:
        power *= 2
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return np.array(slopes + [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)])


MODELS: dict[str, type[Model]] = {
    "modernbert": ModernBert, "deberta-v2": Deberta, "deberta": DebertaV1, "albert": Albert, "nomic_bert": Nomic,
    "gte": Gte, "new": Gte, "jina-bert": Jina, "jina-xlm": Flash,
}  # fmt: skip


def recognise(config: dict[str, Any], tensors: Tensors) -> str:
    """Return the family; a model that brings its own code has the name of another family in its config.json."""
    family = config.get("model_type")
    if not isinstance(family, str):
        raise Refusable("unknown model_type")
    if family == "bert" and config.get("position_embedding_type") == "alibi":
        family = "jina-bert"
    if family == "xlm-roberta" and any(".mixer.Wqkv." in name for name in tensors):
        family = "jina-xlm"
    if "auto_map" in config and family not in REMOTE:
        raise Refusable("brings its own code")
    return family


def read_own(family: str, config: dict[str, Any], number: Number) -> dict[str, Any]:
    """Read what differs from BERT's kind."""
    if family in ("deberta", "deberta-v2"):
        return read_deberta(config, number)
    if family == "albert":
        groups, in_group = number("num_hidden_groups", 1, low=1), number("inner_group_num", 1, low=1)
        own = {"groups": groups, "in_group": in_group, "embedding": number("embedding_size", 128)}
        return own | {"bend": bend_of(config, "hidden_act", "gelu_new")}
    if family == "nomic_bert":
        return {"bend": bend_of(config, "hidden_act", "silu"), "has_positions": False, "rates": _rates(config, 1000.0)}
    if family in ("gte", "new"):
        if config.get("layer_norm_type", "layer_norm") != "layer_norm" or config.get("logn_attention_scale"):
            raise Refusable("another norm, or scores that grow with the length")
        rates = _rates(config, 160_000.0 if family == "gte" else 10_000.0)
        return {"has_positions": False, "rates": rates}
    if family == "jina-bert":
        gates = {"geglu": "GELU", "reglu": "ReLU"}
        if config.get("feed_forward_type") not in list(gates):
            raise Refusable(f"feed_forward_type {config.get('feed_forward_type')!r:.60}")
        return {"bend": gates[config["feed_forward_type"]], "has_positions": False}
    return {}


def _rates(config: dict[str, Any], default: float) -> tuple[float, float]:
    """Return the base of the rates, and what they are divided by."""
    width = config["hidden_size"] // config["num_attention_heads"]
    if config.get("head_dim") not in (None, width) or width % 2:
        raise Refusable("heads of another width, or without halves")
    rules = [config[key] for key in ("rope_parameters", "rope_scaling") if config.get(key) is not None]
    rule = rules[0] if rules else {}
    if not isinstance(rule, dict) or any(other != rule for other in rules):
        raise Refusable("rates by two rules, or by none")
    kinds = {str(rule[key]) for key in ("rope_type", "type") if key in rule} or {"default"}
    theta = rule.get("rope_theta", config.get("rope_theta", default))
    known = {"rope_type", "type", "rope_theta", *(["factor"] if kinds == {"ntk"} else [])}
    of_family = {"default"} if config["model_type"] == "nomic_bert" else {"default", "ntk"}
    if len(kinds) > 1 or not kinds <= of_family or any(rule[key] is not None for key in set(rule) - known):
        raise Refusable(f"rates {rule!r:.80}")
    factor = rule.get("factor", 0) if kinds == {"ntk"} else 1.0
    if any(isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 for value in (theta, factor)):
        raise Refusable("a base or factor that is no number")
    return float(theta) * factor, factor ** (2 / width)
