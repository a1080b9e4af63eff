"""A second forward pass, from config.json and the tensors' names in the files, one pair at a time, in float64.

It shares nothing with numbert: a setting or a tensor that numbert reads wrongly shows as another score.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from verdict import Refusable, Unsure

Tensors = dict[str, np.ndarray]
BASE = {"bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta", "camembert": "roberta", "electra": "electra"}
BASE |= {"distilbert": "distilbert", "mpnet": "mpnet", "modernbert": "model"}
BASE |= {"deberta": "deberta", "deberta-v2": "deberta", "albert": "albert", "nomic_bert": "nomic_bert"}
BASE |= {"gte": "gte", "new": "new", "jina-bert": "bert", "jina-xlm": "roberta"}
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
UNUSED += ("lm_predictions.", "mask_predictions.", "predictions.", "sop_classifier.")
# Of these there is also a pooler that only a head of transformers' own would use.
POOLERS = ("bert", "roberta", "mpnet", "albert", "nomic_bert", "gte", "new")
HEADS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "distilbert": ("pre_classifier", "classifier"),
    "deberta": ("pooler.dense", "classifier"),
    "albert": ("albert.pooler", "classifier"),
    **{base: (f"{base}.pooler.dense", "classifier") for base in ("nomic_bert", "gte", "new")},
}
erf = np.frompyfunc(math.erf, 1, 1)


class Module(NamedTuple):
    """What sentence-transformers runs behind an encoder."""

    kind: str
    folder: str  # in which its tensors are
    settings: dict[str, Any]


class Model:
    """A checkpoint as its files describe it; `modules` take the place of transformers' own head.

    Raises
    ------
    Refusable
        When a tensor is missing, of another shape, or there is one that the configuration does not promise.
    """

    names = BERT  # of the parts of a layer
    place = "encoder.layer"  # of the layers, in the encoder
    embedding_norm = "embeddings.LayerNorm"

    def __init__(self, sizes: dict[str, Any], tensors: Tensors, modules: tuple[Module, ...] = ()) -> None:
        self.sizes, self.tensors, self.peak, self.used, self.modules = sizes, tensors, 0.0, set(), modules
        base = BASE[sizes["family"]]
        self.base, self.prefix = base, "" if modules else f"{base}."
        self.names = {"distilbert": DISTIL, "mpnet": MPNET}.get(base, self.names)
        self.layers = f"{self.prefix}{'transformer.layer' if base == 'distilbert' else self.place}"
        self.head = HEADS.get(base, ("classifier.dense", "classifier.out_proj"))
        self.logits([0] * 3, [0] * 3, [0] * 3)  # touches every tensor
        unused = (*UNUSED, f"{self.prefix}embeddings.position_ids")
        # transformers' DeBERTa overlooks a table of positions that it does not use.
        unused += (f"{self.prefix}embeddings.position_embeddings.",) if base == "deberta" else ()
        unused += ("pooler.",) if modules and base in POOLERS else ()
        extra = {name for name in set(tensors) - self.used if not name.startswith(unused)}
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

    @staticmethod
    def rounded(y: np.ndarray) -> np.ndarray:
        """Return what is kept of the result of a layer: all, unless an opinion asks how much rounding matters."""
        return y

    def _linear(
        self, x: np.ndarray, name: str, outputs: int, *, bias: bool = True, reads_bias: bool = True
    ) -> np.ndarray:
        y = x @ self._take(f"{name}.weight", outputs, x.shape[-1]).T
        shift = self._take(f"{name}.bias", outputs) if reads_bias else 0
        return self.rounded(self._seen(y + shift if bias else y))

    def _norm(self, x: np.ndarray, name: str, eps: float | None = None, bias: bool = True) -> np.ndarray:
        self._seen(x)
        gain = self._take(f"{name}.weight", x.shape[-1])
        deviation = x - x.mean(-1, keepdims=True)
        y = deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + (eps or self.sizes["eps"])) * gain
        return y + self._take(f"{name}.bias", x.shape[-1]) if bias else y

    def _seen(self, x: np.ndarray) -> np.ndarray:
        self.peak = max(self.peak, float(np.abs(x).max()))
        return x

    def logits(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        """Return the logits of one pair: (labels,)."""
        x = self._encode(ids, types, positions)
        return self._modular_head(x) if self.modules else self._own_head(x)

    def _own_head(self, x: np.ndarray) -> np.ndarray:
        dense, output = self.head
        x = self._linear(x[:1], dense, self.sizes["hidden"])
        return self._linear(BENDS[self.sizes["head_bend"]](x), output, self.sizes["labels"])[0]

    def _modular_head(self, x: np.ndarray) -> np.ndarray:
        """Hand features from module to module, by name, as sentence-transformers does."""
        features = {"token_embeddings": x}
        for module in self.modules:
            made = module.settings.get("module_output_name") or module.settings.get(
                "module_input_name", "sentence_embedding"
            )
            if module.kind == "Pooling":
                features["sentence_embedding"] = _pool(features["token_embeddings"], module.settings)[None]
                continue
            came = module.settings.get("module_input_name", "sentence_embedding")
            if came not in features:
                raise Refusable(f"{module.folder}: no {came!r:.40} to read")
            features[made] = self._step(features[came], module)
        if "scores" not in features or features["scores"].ndim != 2 or len(features["scores"]) != 1:
            raise Refusable("no module makes scores")
        return features["scores"][0]

    def _step(self, x: np.ndarray, module: Module) -> np.ndarray:
        settings = module.settings
        if module.kind == "Normalize":
            return x / np.maximum(np.sqrt((x**2).sum(-1, keepdims=True)), 1e-12)
        if module.kind == "LayerNorm":
            return self._norm(x, f"{module.folder}/norm", eps=1e-5)
        outputs, bias = settings.get("out_features"), settings.get("bias", True)
        if not isinstance(outputs, int) or settings.get("in_features") != x.shape[-1]:
            raise Refusable(f"{module.folder}: widths")
        name = str(settings.get("activation_function", "Tanh")).rpartition(".")[2]
        if name not in BENDS:
            raise Refusable(f"{module.folder}: {name!r:.40}")
        y = self._seen(
            BENDS[name](self._linear(x, f"{module.folder}/linear", outputs, bias=bool(bias), reads_bias=bias))
        )
        if not settings.get("use_residual", False):
            return y
        if outputs != x.shape[-1]:
            x = self._linear(x, f"{module.folder}/residual", outputs, bias=False, reads_bias=False)
        return x + y

    def _encode(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        """Return the rows of one pair: (L, C)."""
        x, bias = self._embed(ids, types, positions), self._bias(len(ids))
        for i in range(self.sizes["layers"]):
            x = self._layer(x, self._names_of_layer(i), bias)
        return x

    def _embed(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        x = self._norm(self._sum_of_rows(ids, types, positions), f"{self.prefix}{self.embedding_norm}")
        if self.sizes["embedding"] != self.sizes["hidden"]:
            x = self._linear(x, f"{self.prefix}embeddings_project", self.sizes["hidden"])
        return x

    def _sum_of_rows(self, ids: list[int], types: list[int], positions: list[int]) -> np.ndarray:
        sizes, where = self.sizes, f"{self.prefix}embeddings"
        width = sizes["embedding"]
        x = self._take(f"{where}.word_embeddings.weight", sizes["vocab"], width)[ids]
        if sizes["has_positions"]:
            x = x + self._take(f"{where}.position_embeddings.weight", sizes["positions"], width)[positions]
        if sizes["types"]:
            x = x + self._take(f"{where}.token_type_embeddings.weight", sizes["types"], width)[types]
        return x

    def _names_of_layer(self, i: int) -> dict[str, str]:
        return {part: f"{self.layers}.{i}.{name}" for part, name in self.names.items()}

    def _layer(self, x: np.ndarray, names: dict[str, str], bias: Any) -> np.ndarray:
        x = self._norm(x + self._attention(x, names, bias), names["n1"])
        return self._norm(x + self._feed_forward(x, names), names["n2"])

    def _attention(self, x: np.ndarray, names: dict[str, str], bias: Any) -> np.ndarray:
        query, key, value = map(self._heads, self._rows(x, names))
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]) + bias
        return self._linear(mix(scores, value), names["o"], self.sizes["hidden"])

    def _rows(self, x: np.ndarray, names: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return queries, keys and values: (L, C) each."""
        c = self.sizes["hidden"]
        key = self._linear(x, names["k"], c, bias=False)  # its bias adds the same to all scores of a query
        return self._linear(x, names["q"], c), key, self._linear(x, names["v"], c)

    def _heads(self, rows: np.ndarray) -> np.ndarray:
        """Return the part of each head: (H, rows, D)."""
        return rows.reshape(len(rows), self.sizes["heads"], -1).transpose(1, 0, 2)

    def _feed_forward(self, x: np.ndarray, names: dict[str, str]) -> np.ndarray:
        hidden = BENDS[self.sizes["bend"]](self._linear(x, names["up"], self.sizes["inner"]))
        return self._linear(hidden, names["down"], self.sizes["hidden"])

    def _bias(self, length: int) -> Any:
        """Return what is added to the scores of each head: (H, L, L), or 0."""
        return self._distance_bias(length) if self.sizes["buckets"] else 0

    def _distance_bias(self, length: int) -> np.ndarray:
        """Return the bias of each head for each query and key, as transformers' MPNet computes it: (H, L, L)."""
        buckets = self.sizes["buckets"] // 2
        table = self._take(
            f"{self.prefix}encoder.relative_attention_bias.weight", self.sizes["buckets"], self.sizes["heads"]
        )
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


def gelu(x: np.ndarray) -> np.ndarray:
    """x, weighed by the probability that a normal number is smaller."""
    return x * 0.5 * (1 + erf(x * math.sqrt(0.5)).astype(np.float64))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def mix(scores: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Weigh values by the scores, and put the heads beside each other: (L, C)."""
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ value
    return mixed.transpose(1, 0, 2).reshape(scores.shape[1], -1)


BENDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # by the names of torch's classes
    "Tanh": np.tanh,
    "GELU": gelu,
    "ReLU": lambda x: np.maximum(x, 0),
    "SiLU": lambda x: x * _sigmoid(x),
    "Sigmoid": _sigmoid,
    "Identity": lambda x: x,
    "GELUTanh": _gelu_tanh,
}
# What config.json calls them
BENDS_OF_CONFIG = {"gelu": "GELU", "relu": "ReLU", "silu": "SiLU", "swish": "SiLU", "tanh": "Tanh"}
BENDS_OF_CONFIG |= {"sigmoid": "Sigmoid", **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), "GELUTanh")}


def bend_of(config: dict[str, Any], key: str, default: str) -> str:
    """Return which of `BENDS` a setting asks for."""
    name = config.get(key, default)
    if name not in list(BENDS_OF_CONFIG):  # a list, as the name may be anything
        raise Refusable(f"{key} {name!r:.60}")
    return BENDS_OF_CONFIG[name]


def _pool(x: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Make one row of the rows of a pair: (C,)."""
    modes = settings.get("pooling_mode")
    if "pooling_mode" not in settings:
        flags = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean", "lasttoken": "lasttoken"}
        flags |= {"mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "weightedmean_tokens": "weightedmean"}
        modes = [mode for flag, mode in flags.items() if settings.get(f"pooling_mode_{flag}")] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    weights = np.arange(1, len(x) + 1)
    pooled = {
        "cls": x[0], "lasttoken": x[-1], "max": x.max(0), "mean": x.mean(0),
        "mean_sqrt_len_tokens": x.sum(0) / math.sqrt(len(x)), "weightedmean": weights @ x / weights.sum(),
    }  # fmt: skip
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in list(pooled):
        raise Refusable(f"pooling_mode {modes!r:.60}")
    return pooled[modes[0]]
