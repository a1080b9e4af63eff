"""The second forward pass of DeBERTa, in its three versions: contents meet distances, and neighbours may be mixed."""

import math
from typing import Any

import numpy as np
from naive import BENDS, BERT, Model, bend_of, mix
from read_numbers import Number, switch
from verdict import Refusable, Unsure

V2 = {
    **BERT,
    "q": "attention.self.query_proj",
    "k": "attention.self.key_proj",
    "v": "attention.self.value_proj",
    "distance_k": "attention.self.pos_key_proj",
    "distance_q": "attention.self.pos_query_proj",
}
V1 = {
    **BERT,
    "qkv": "attention.self.in_proj",
    "q_bias": "attention.self.q_bias",
    "v_bias": "attention.self.v_bias",
    "distance_k": "attention.self.pos_proj",
    "distance_q": "attention.self.pos_q_proj",
}


class Deberta(Model):
    """A DeBERTa of version 2 or 3 as its files describe it."""

    names = V2

    def _encode(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        x = embedded = self._embed(ids, types, positions)
        table = self._distances() if self.sizes["relative"] else None
        for i in range(self.sizes["layers"]):
            x = self._layer(x, self._names_of_layer(i), table)
            if i == 0 and self.sizes["conv_width"]:
                x = self._convolve(x, embedded)
        return x

    def _embed(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        """The projection comes before the norm, and has no bias."""
        x = self._sum_of_rows(ids, types, positions)
        if self.sizes["embedding"] != self.sizes["hidden"]:
            name = f"{self.prefix}embeddings.embed_proj"
            x = self._linear(x, name, self.sizes["hidden"], bias=False, reads_bias=False)
        return self._norm(x, f"{self.prefix}{self.embedding_norm}")

    def _distances(self) -> np.ndarray:
        """Return the rows that stand for distances, before any layer: (2 * span, C)."""
        name = f"{self.prefix}encoder"
        rows = self._take(f"{name}.rel_embeddings.weight", 2 * self.sizes["span"], self.sizes["hidden"])
        return self._norm(rows, f"{name}.LayerNorm") if self.sizes["normed"] else rows

    def _attention(self, x: np.ndarray, names: dict[str, str], bias: Any) -> np.ndarray:
        query, key, value = map(self._heads, self._rows(x, names))
        scores = query @ key.transpose(0, 2, 1)
        if bias is not None:
            row = self._row_of_distance(len(x))[None]
            if "c2p" in self.sizes["kinds"]:
                table = self._heads(self._turned_to(bias, names, "k"))
                scores = scores + np.take_along_axis(query @ table.transpose(0, 2, 1), row, 2)
            if "p2c" in self.sizes["kinds"]:
                table = self._heads(self._turned_to(bias, names, "q"))
                by_key = np.take_along_axis(key @ table.transpose(0, 2, 1), row.transpose(0, 2, 1), 2)
                scores = scores + by_key.transpose(0, 2, 1)
        scores = scores / math.sqrt(query.shape[-1] * (1 + len(self.sizes["kinds"])))
        return self._linear(mix(scores, value), names["o"], self.sizes["hidden"])

    def _rows(self, x: np.ndarray, names: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        query, key, value = (self._linear(x, names[part], self.sizes["hidden"]) for part in "qkv")
        return query, key, value

    def _turned_to(self, table: np.ndarray, names: dict[str, str], part: str) -> np.ndarray:
        """Send the rows of distances through a layer: that of the contents, or one of their own."""
        name = names[part if self.sizes["shared"] else f"distance_{part}"]
        return self._linear(table, name, self.sizes["hidden"])

    def _row_of_distance(self, length: int) -> np.ndarray:
        """Return the row of each query and key: (L, L)."""
        distance = np.arange(length)[:, None] - np.arange(length)[None, :]  # query - key
        span = self.sizes["span"]
        if self.sizes["buckets"] > 0:
            distance = _bucket(distance, self.sizes["buckets"] // 2, self.sizes["farthest"])
        return np.clip(distance + span, 0, 2 * span - 1)

    def _convolve(self, x: np.ndarray, embedded: np.ndarray) -> np.ndarray:
        sizes, name = self.sizes, f"{self.prefix}encoder.conv"
        c, width, groups = sizes["hidden"], sizes["conv_width"], sizes["conv_groups"]
        weight = self._take(f"{name}.conv.weight", c, c // groups, width).reshape(groups, c // groups, -1, width)
        padded = np.pad(embedded, ((width // 2, width // 2), (0, 0))).reshape(-1, groups, c // groups)
        near = np.stack([padded[i : i + len(x)] for i in range(width)], -1)  # (L, groups, C / groups, width)
        mixed = np.einsum("lgiw,goiw->lgo", near, weight).reshape(len(x), c) + self._take(f"{name}.conv.bias", c)
        return self._norm(x + BENDS[sizes["conv_bend"]](self._seen(mixed)), f"{name}.LayerNorm")


class DebertaV1(Deberta):
    """A DeBERTa of version 1: queries, keys and values of each head side by side, and keys without a bias."""

    names = V1

    def _rows(self, x: np.ndarray, names: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        c, heads = self.sizes["hidden"], self.sizes["heads"]
        whole = self._linear(x, names["qkv"], 3 * c, bias=False, reads_bias=False).reshape(len(x), heads, 3, -1)
        query, key, value = (whole[:, :, part].reshape(len(x), c) for part in range(3))
        return query + self._take(names["q_bias"], c), key, value + self._take(names["v_bias"], c)

    def _turned_to(self, table: np.ndarray, names: dict[str, str], part: str) -> np.ndarray:
        bias = part == "q"
        return self._linear(table, names[f"distance_{part}"], self.sizes["hidden"], bias=bias, reads_bias=bias)


def _bucket(distance: np.ndarray, half: int, farthest: int) -> np.ndarray:
    """Distances up to `half` count singly, farther ones by their logarithm, as transformers rounds it."""
    size = np.where(np.abs(distance) < half, half - 1, np.abs(distance))
    readings = []
    for kind in (np.float32, np.float64):
        with np.errstate(all="ignore"):
            ratio = np.log(size.astype(kind) / kind(half)) / np.log(kind((farthest - 1) / half))
            far = np.ceil(ratio * kind(half - 1)) + half
        readings.append(np.where(size <= half, distance, far * np.sign(distance)))
    if not np.array_equal(*readings):
        raise Unsure("a distance at the border of two buckets, which rounding decides")
    return readings[0].astype(np.int64)


def read_deberta(config: dict[str, Any], number: Number) -> dict[str, Any]:
    """Read from a config.json what BERT has not."""
    first = config["model_type"] == "deberta"
    hidden, heads, positions = (
        number(key) for key in ("hidden_size", "num_attention_heads", "max_position_embeddings")
    )
    kinds = [] if config.get("pos_att_type") is None else config["pos_att_type"]
    kinds = [word.strip() for word in kinds.lower().split("|")] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or len({*map(str, kinds)} & {"c2p", "p2c"}) < len(kinds):
        raise Refusable(f"pos_att_type {kinds!r:.60}")
    width = config.get("attention_head_size", hidden // heads)
    if width != hidden // heads or config.get("pooler_hidden_size", hidden) != hidden or config.get("talking_head"):
        raise Refusable("heads or a pooler of another width, or heads that are mixed")
    farthest = number("max_relative_positions", -1, low=-1)
    farthest = positions if farthest < 1 else farthest
    buckets = 0 if first else max(number("position_buckets", -1, low=-1), 0)
    conv_width = 0 if first else number("conv_kernel_size", 0)
    conv_groups = number("conv_groups", 1) if conv_width else 1
    if conv_width and (conv_width % 2 == 0 or conv_groups == 0 or hidden % conv_groups):
        raise Refusable("a convolution that leaves another number of rows, or does not divide them")
    return {
        "relative": switch(config, "relative_attention", False), "kinds": kinds, "farthest": farthest,
        "buckets": buckets, "span": buckets or farthest,
        "normed": not first and "layer_norm" in [word.strip() for word in _text(config).lower().split("|")],
        "shared": not first and switch(config, "share_att_key", False),
        "has_positions": switch(config, "position_biased_input", True),
        "embedding": number("embedding_size", hidden), "conv_width": conv_width, "conv_groups": conv_groups,
        "conv_bend": bend_of(config, "conv_act", "tanh") if conv_width else "",
        "head_bend": bend_of(config, "pooler_hidden_act", "gelu"),
    }  # fmt: skip


def _text(config: dict[str, Any]) -> str:
    rules = config.get("norm_rel_ebd", "none")
    if not isinstance(rules, str):
        raise Refusable("norm_rel_ebd is no text")
    return rules
