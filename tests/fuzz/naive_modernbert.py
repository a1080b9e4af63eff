"""The second forward pass of ModernBERT: norms before the blocks, turned queries and keys, windows, gates."""

import math
from typing import Any

import numpy as np
from naive import BENDS, Model, bend_of
from verdict import Refusable


class ModernBert(Model):
    """A ModernBERT as its files describe it."""

    def _encode(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        sizes, prefix, norms = self.sizes, self.prefix, self.sizes["norm_bias"]
        words = self._take(f"{prefix}embeddings.tok_embeddings.weight", sizes["vocab"], sizes["hidden"])
        x = self._norm(words[ids], f"{prefix}embeddings.norm", bias=norms)
        for i, (theta, reach) in enumerate(sizes["rules"]):
            name = f"{prefix}layers.{i}"
            before = x if i == 0 else self._norm(x, f"{name}.attn_norm", bias=norms)
            x = x + self._attend(before, f"{name}.attn", theta, reach)
            x = x + self._feed(self._norm(x, f"{name}.mlp_norm", bias=norms), f"{name}.mlp")
        return self._norm(x, f"{prefix}final_norm", bias=norms)

    def _dense(self, x: np.ndarray, name: str, outputs: int, bias: bool) -> np.ndarray:
        return self._linear(x, name, outputs, bias=bias, reads_bias=bias)

    def _attend(self, x: np.ndarray, name: str, theta: float, reach: int | None) -> np.ndarray:
        c, heads, bias = self.sizes["hidden"], self.sizes["heads"], self.sizes["attention_bias"]
        parts = self._dense(x, f"{name}.Wqkv", 3 * c, bias).reshape(len(x), 3, heads, c // heads)
        query, key, value = (turn(parts[:, 0], theta), turn(parts[:, 1], theta), parts[:, 2])
        scores = np.einsum("qhd,khd->hqk", query, key) / math.sqrt(c // heads)
        distance = np.abs(np.arange(len(x))[:, None] - np.arange(len(x))[None, :])
        if reach is not None:
            scores = np.where(distance <= reach, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), value)
        return self._dense(mixed.reshape(len(x), c), f"{name}.Wo", c, bias)

    def _feed(self, x: np.ndarray, name: str) -> np.ndarray:
        inner, bias = self.sizes["inner"], self.sizes["mlp_bias"]
        both = self._dense(x, f"{name}.Wi", 2 * inner, bias)
        return self._dense(
            BENDS[self.sizes["bend"]](both[:, :inner]) * both[:, inner:], f"{name}.Wo", self.sizes["hidden"], bias
        )

    def _own_head(self, x: np.ndarray) -> np.ndarray:
        sizes = self.sizes
        x = x[:1] if sizes["pooling"] == "cls" else x.mean(0, keepdims=True)
        x = BENDS[sizes["head_bend"]](self._dense(x, "head.dense", sizes["hidden"], sizes["classifier_bias"]))
        x = self._norm(x, "head.norm", bias=sizes["norm_bias"])
        return self._linear(x, "classifier", sizes["labels"])[0]


def turn(x: np.ndarray, theta: float, slower: float = 1.0) -> np.ndarray:
    """Turn the rows of each head by their place; rates, cosines and sines are float32 numbers, as in training."""
    half = x.shape[-1] // 2
    exponents = np.arange(0, 2 * half, 2).astype(np.float32) / np.float32(2 * half)
    rates = np.array([1 / np.float32(theta ** float(exponent)) for exponent in exponents], np.float32)
    rates = rates / np.float32(slower)
    angles = np.arange(len(x))[:, None, None] * rates.astype(np.float64)
    cosine, sine = (f(angles).astype(np.float32).astype(np.float64) for f in (np.cos, np.sin))
    first, second = x[..., :half], x[..., half:]
    return np.concatenate((first * cosine - second * sine, second * cosine + first * sine), -1)


def read_rules(config: dict[str, Any]) -> dict[str, Any]:
    """Read from a config.json what BERT's kind has not."""
    layers = config.get("num_hidden_layers")
    flags = {key: config.get(key, False) for key in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")}
    if not isinstance(layers, int) or not all(isinstance(flag, bool) for flag in flags.values()):
        raise Refusable("layers or biases")
    every, kinds = config.get("global_attn_every_n_layers", 3), config.get("layer_types")
    if kinds is None:
        kinds = ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    newer = config.get("rope_parameters") or {}
    older = {"full_attention": ("global_rope_theta", 160_000.0), "sliding_attention": ("local_rope_theta", 10_000.0)}
    thetas = {
        kind: (newer.get(kind) or {}).get("rope_theta", config.get(key, default))
        for kind, (key, default) in older.items()
    }
    reach = {"full_attention": None, "sliding_attention": config.get("local_attention", 128) // 2}
    return {
        **flags,
        "rules": [(thetas[kind], reach[kind]) for kind in kinds],
        "eps": config.get("norm_eps", 1e-5),
        "pooling": config.get("classifier_pooling", "cls"),
        "bend": bend_of(config, "hidden_activation", "gelu"),
        "head_bend": bend_of(config, "classifier_activation", "gelu"),
    }
