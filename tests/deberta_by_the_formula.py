"""DeBERTa as its papers and transformers' code have it, in float64: one pair, all distances in a matrix, nothing saved.

It reads a config.json and the tensors of a file under their own names, and takes nothing from numbert.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray
ERF = np.frompyfunc(math.erf, 1, 1)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: x / 2 * (1 + ERF(x * math.sqrt(0.5)).astype(x.dtype)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}


class Formula:
    """A model of any version."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        self.config, self.tensors = config, {name: array.astype(np.float64) for name, array in tensors.items()}
        self.heads: int = config["num_attention_heads"]
        self.first_version: bool = config["model_type"] == "deberta"
        kinds = config.get("pos_att_type") or []
        self.kinds = kinds.split("|") if isinstance(kinds, str) else kinds
        farthest = config.get("max_relative_positions", -1)
        self.farthest: int = farthest if farthest > 0 else config["max_position_embeddings"]
        self.buckets: int = -1 if self.first_version else config.get("position_buckets", -1)

    def logits(self, ids: Array, types: Array) -> Array:
        """Return the logits of one pair."""
        embedded = x = self.embed(ids, types)
        for i in range(self.config["num_hidden_layers"]):
            name = f"deberta.encoder.layer.{i}"
            attended = self.linear(self.attention(x, f"{name}.attention.self"), f"{name}.attention.output.dense")
            x = self.norm(x + attended, f"{name}.attention.output.LayerNorm")
            wide = ACTIVATIONS["gelu"](self.linear(x, f"{name}.intermediate.dense"))
            x = self.norm(x + self.linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
            if i == 0 and self.config.get("conv_kernel_size", 0):
                x = self.norm(x + self.convolve(embedded), "deberta.encoder.conv.LayerNorm")
        return self.linear(ACTIVATIONS["gelu"](self.linear(x[0], "pooler.dense")), "classifier")

    def embed(self, ids: Array, types: Array) -> Array:
        """Add up the tables, project, and normalise."""
        tables = "deberta.embeddings"
        x = self.tensors[f"{tables}.word_embeddings.weight"][ids]
        if self.config.get("position_biased_input", True):
            x = x + self.tensors[f"{tables}.position_embeddings.weight"][: len(ids)]
        if self.config.get("type_vocab_size", 0):
            x = x + self.tensors[f"{tables}.token_type_embeddings.weight"][types]
        if self.config.get("embedding_size", self.config["hidden_size"]) != self.config["hidden_size"]:
            x = x @ self.tensors[f"{tables}.embed_proj.weight"].T
        return self.norm(x, f"{tables}.LayerNorm")

    def attention(self, x: Array, name: str) -> Array:
        """(L, C) -> (L, C)."""
        query, key, value = self.project(x, name)  # (H, L, D)
        scores = query @ key.transpose(0, 2, 1)
        if self.config.get("relative_attention", False):
            scores = scores + self.distance_scores(query, key, name)
        scores = scores / math.sqrt(query.shape[2] * (1 + len(self.kinds)))
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        return (weights @ value).transpose(1, 0, 2).reshape(x.shape)

    def project(self, x: Array, name: str) -> list[Array]:
        """Return queries, keys and values of each head."""
        if not self.first_version:
            return [self.split(self.linear(x, f"{name}.{part}_proj")) for part in ("query", "key", "value")]
        parts = np.split(self.split(x @ self.tensors[f"{name}.in_proj.weight"].T), 3, axis=2)  # of each head
        for i, bias in ((0, "q_bias"), (2, "v_bias")):
            parts[i] = parts[i] + self.split(self.tensors[f"{name}.{bias}"][None])
        return parts

    def distance_scores(self, query: Array, key: Array, name: str) -> Array:
        """Let queries and keys meet the rows of their distances: (H, L, L)."""
        place = np.arange(query.shape[1])
        distance = place[:, None] - place  # from key to query
        rows, span = self.tensors["deberta.encoder.rel_embeddings.weight"], self.farthest
        if self.first_version:  # uses as many rows as the batch is long
            span = min(len(place), self.farthest)
            rows = rows[self.farthest - span : self.farthest + span]
        elif self.buckets > 0:
            buckets = np.array([self.bucket(int(apart)) for apart in range(-place[-1], len(place))])
            span, distance = self.buckets, buckets[distance + place[-1]]
        if "layer_norm" in self.config.get("norm_rel_ebd", "none"):
            rows = self.norm(rows, "deberta.encoder.LayerNorm")
        shared = self.config.get("share_att_key", False)
        later = ("key_proj", "query_proj") if shared else ("pos_key_proj", "pos_query_proj")
        for_key, for_query = ("pos_proj", "pos_q_proj") if self.first_version else later
        scores = np.zeros((self.heads, *distance.shape))
        if "c2p" in self.kinds:
            met = query @ self.split(self.linear(rows, f"{name}.{for_key}")).transpose(0, 2, 1)  # (H, L, rows)
            index = np.clip(distance + span, 0, 2 * span - 1)
            scores += np.take_along_axis(met, index[None], axis=2)
        if "p2c" in self.kinds:
            met = key @ self.split(self.linear(rows, f"{name}.{for_query}")).transpose(0, 2, 1)
            index = np.clip(-distance + span, 0, 2 * span - 1)
            scores += np.take_along_axis(met, index[None], axis=2).transpose(0, 2, 1)
        return scores

    def bucket(self, distance: int) -> int:
        """Return the bucket of a distance; in float32, as the borders of buckets are rounded there."""
        middle = self.buckets // 2
        if abs(distance) <= middle:
            return distance
        steps = np.log(np.float32(abs(distance)) / np.float32(middle))
        steps = steps / np.log(np.float32((self.farthest - 1) / middle)) * np.float32(middle - 1)
        return int(np.sign(distance)) * (int(np.ceil(steps)) + middle)

    def convolve(self, embedded: Array) -> Array:
        """Mix neighbours; beyond the ends of the pair there is nothing."""
        weight, size = self.tensors["deberta.encoder.conv.conv.weight"], self.config["conv_kernel_size"]  # (C, C/G, W)
        groups = self.config.get("conv_groups", 1)
        padded = np.pad(embedded, ((size // 2, size // 2), (0, 0)))
        mixed = np.tile(self.tensors["deberta.encoder.conv.conv.bias"], (len(embedded), 1))
        part = embedded.shape[1] // groups
        for group in range(groups):
            columns = slice(group * part, (group + 1) * part)
            for tap in range(size):
                mixed[:, columns] += padded[tap : tap + len(embedded), columns] @ weight[columns, :, tap].T
        return ACTIVATIONS[self.config.get("conv_act", "tanh")](mixed)

    def split(self, x: Array) -> Array:
        """(L, H*D) -> (H, L, D)."""
        return x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)

    def linear(self, x: Array, name: str) -> Array:
        """Apply a layer, which may have a bias."""
        bias = self.tensors.get(f"{name}.bias")
        y: Array = x @ self.tensors[f"{name}.weight"].T
        return y if bias is None else y + bias

    def norm(self, x: Array, name: str) -> Array:
        """Apply a LayerNorm."""
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.config.get("layer_norm_eps", 1e-7))
        y: Array = x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return y
