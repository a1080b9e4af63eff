"""A second forward pass, from config.json and the tensors' names in the files, one pair at a time, in float64.

It shares nothing with numbert: a setting or a tensor that numbert reads wrongly shows as another score.
"""

import math
from typing import Any

import numpy as np
from verdict import Refusable, Unsure

Tensors = dict[str, np.ndarray]
BASE = {"bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta", "camembert": "roberta", "electra": "electra"}
BASE |= {"distilbert": "distilbert", "mpnet": "mpnet"}
BERT = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
}
BERT |= {
    "n1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "n2": "output.LayerNorm",
}
MPNET = {**BERT, "q": "attention.attn.q", "k": "attention.attn.k", "v": "attention.attn.v", "o": "attention.attn.o"}
MPNET |= {"n1": "attention.LayerNorm"}
DISTIL = {"q": "attention.q_lin", "k": "attention.k_lin", "v": "attention.v_lin", "o": "attention.out_lin"}
DISTIL |= {"n1": "sa_layer_norm", "up": "ffn.lin1", "down": "ffn.lin2", "n2": "output_layer_norm"}
# Tensors that a file may hold and classification does not use: heads of pre-training, unused poolers, a constant.
UNUSED = ("cls.", "lm_head.", "discriminator_predictions.", "generator_", "vocab_", "roberta.pooler.", "mpnet.pooler.")
erf = np.frompyfunc(math.erf, 1, 1)


class Model:
    """A checkpoint as its files describe it.

    Raises
    ------
    Refusable
        When a tensor is missing, of another shape, or there is one that the configuration does not promise.
    """

    def __init__(self, sizes: dict[str, Any], tensors: Tensors) -> None:
        self.sizes, self.tensors, self.peak, self.used = sizes, tensors, 0.0, set()
        base = BASE[sizes["family"]]
        self.base = base
        self.names = {"distilbert": DISTIL, "mpnet": MPNET}.get(base, BERT)
        self.layers = f"{base}.transformer.layer" if base == "distilbert" else f"{base}.encoder.layer"
        head = {"bert": ("bert.pooler.dense", "classifier"), "distilbert": ("pre_classifier", "classifier")}
        self.head = head.get(base, ("classifier.dense", "classifier.out_proj"))
        self.logits([0] * 3, [0] * 3, [0] * 3)  # touches every tensor
        extra = {
            name
            for name in set(tensors) - self.used
            if not name.startswith((*UNUSED, f"{base}.embeddings.position_ids"))
        }
        if extra:
            raise Refusable(f"tensors that the configuration does not promise: {sorted(extra)[:3]}")

    def _take(self, name: str, *shape: int) -> np.ndarray:
        if name not in self.tensors:
            raise Refusable(f"no tensor {name}")
        if self.tensors[name].shape != shape:
            raise Refusable(f"{name}: shape {self.tensors[name].shape}, promised {shape}")
        if name not in self.used and (
            self.tensors[name].dtype.kind != "f" or not np.isfinite(self.tensors[name]).all()
        ):
            raise Refusable(f"{name} holds something else than numbers")
        self.used.add(name)
        return self.tensors[name].astype(np.float64)

    def _linear(self, x: np.ndarray, name: str, outputs: int, bias: bool = True) -> np.ndarray:
        y = x @ self._take(f"{name}.weight", outputs, x.shape[-1]).T
        shift = self._take(f"{name}.bias", outputs)
        return self._seen(y + shift if bias else y)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        self._seen(x)
        gain, bias = (self._take(f"{name}.{part}", x.shape[-1]) for part in ("weight", "bias"))
        deviation = x - x.mean(-1, keepdims=True)
        return deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + self.sizes["eps"]) * gain + bias

    def _seen(self, x: np.ndarray) -> np.ndarray:
        self.peak = max(self.peak, float(np.abs(x).max()))
        return x

    def logits(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        """Return the logits of one pair: (labels,)."""
        sizes, where = self.sizes, f"{self.base}.embeddings"
        width = sizes["embedding"]
        x = self._take(f"{where}.word_embeddings.weight", sizes["vocab"], width)[ids]
        x = x + self._take(f"{where}.position_embeddings.weight", sizes["positions"], width)[positions]
        if sizes["types"]:
            x = x + self._take(f"{where}.token_type_embeddings.weight", sizes["types"], width)[types]
        x = self._norm(x, f"{where}.LayerNorm")
        if width != sizes["hidden"]:
            x = self._linear(x, f"{self.base}.embeddings_project", sizes["hidden"])
        bias = self._distance_bias(len(ids)) if sizes["buckets"] else 0
        for i in range(sizes["layers"]):
            x = self._layer(x, {part: f"{self.layers}.{i}.{name}" for part, name in self.names.items()}, bias)
        dense, output = self.head
        x = self._linear(x[:1], dense, sizes["hidden"])
        bend = {"electra": _gelu, "distilbert": lambda x: np.maximum(x, 0)}.get(self.base, np.tanh)
        return self._linear(bend(x), output, sizes["labels"])[0]

    def _layer(self, x: np.ndarray, names: dict[str, str], bias: Any) -> np.ndarray:
        c, heads = self.sizes["hidden"], self.sizes["heads"]
        query, value = self._linear(x, names["q"], c), self._linear(x, names["v"], c)
        key = self._linear(x, names["k"], c, bias=False)  # its bias adds the same to all scores of a query
        parts = []
        for h in range(heads):
            part = slice(h * (c // heads), (h + 1) * (c // heads))
            scores = query[:, part] @ key[:, part].T / math.sqrt(c // heads)
            scores = scores + (bias[h] if self.sizes["buckets"] else 0)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            parts.append(weights / weights.sum(-1, keepdims=True) @ value[:, part])
        x = self._norm(x + self._linear(np.concatenate(parts, -1), names["o"], c), names["n1"])
        hidden = _gelu(self._linear(x, names["up"], self.sizes["inner"]))
        return self._norm(x + self._linear(hidden, names["down"], c), names["n2"])

    def _distance_bias(self, length: int) -> np.ndarray:
        """Return the bias of each head for each query and key, as transformers' MPNet computes it: (H, L, L)."""
        buckets = self.sizes["buckets"] // 2
        table = self._take("mpnet.encoder.relative_attention_bias.weight", self.sizes["buckets"], self.sizes["heads"])
        distance = np.arange(length)[:, None] - np.arange(length)[None, :]  # query - key
        exact, size = buckets // 2, np.abs(distance)
        if exact >= 128 and length > exact:
            raise Unsure("buckets for every distance that counts, and a logarithm of less than 1")
        ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(
            math.log(128 / exact) or 1
        )
        far = np.minimum(exact + (ratio * np.float32(buckets - exact)).astype(np.int64), buckets - 1)
        index = np.where(distance < 0, buckets, 0) + np.where(size < exact, size, far)
        return table[index].transpose(2, 0, 1)


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x * math.sqrt(0.5)).astype(np.float64))
