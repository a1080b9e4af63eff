"""What a folder's scores must be, read without numbert: json, decode.py, the tokenizers library, naive.py."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from decode import decode
from naive import Model, Module, Tensors, bend_of
from naive_families import MODELS, REMOTE, read_own, recognise
from naive_modernbert import read_rules
from read_numbers import integers_of
from read_tokenizer import read_tokenizer
from verdict import Refusable, Unsure

CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
}
CLASSES |= {"distilbert": "DistilBert", "mpnet": "MPNet", "modernbert": "ModernBert", "deberta-v2": "DebertaV2"}
CLASSES |= {"deberta": "Deberta", "albert": "Albert", "nomic_bert": "NomicBert", "gte": "Gte", "new": "New"}
CLASSES |= {"jina-bert": "JinaBert", "jina-xlm": "XLMRoberta"}
POSITIONS = {"jina-bert": ("alibi",), "gte": ("rope", None), "new": ("rope", None)}
TYPES = {"deberta": 0, "deberta-v2": 0, "gte": 1, "new": 1}  # where config.json says nothing; 2 elsewhere
WITHOUT_TYPES = ("Roberta", "XLMRoberta", "Camembert", "MPNet", "DistilBert", "Albert")
Pair = tuple[str, str]
Tokens = tuple[list[int], list[int], list[int]]  # ids, types, positions of one pair


class Opinion:
    """A folder as its files say.

    Raises
    ------
    Refusable
        When the files contradict each other, or ask for a model that numbert does not compute.
    Unsure
        When the files can be read in two ways.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _json_object(folder / "config.json")
        path = folder / "tokenizer_config.json"
        self.settings = _json_object(path) if path.exists() else {}
        self.chained, self.modules = read_chain(folder)  # the length that sentence-transformers would set, if any
        self.tensors = read_tensors(folder)
        self.sizes = read_sizes(self.config, self.tensors, has_head=not self.modules)
        for module in self.modules:
            if module.kind in ("Dense", "LayerNorm"):
                tensors = decode_or_refuse(folder / module.folder / "model.safetensors")
                self.tensors |= {f"{module.folder}/{name}": array for name, array in tensors.items()}
        self.model = self._model(self.tensors)
        self.tokenizer = read_tokenizer(folder, self.settings)
        if max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=0) >= self.sizes["vocab"]:
            raise Refusable("token ids beyond the last row")

    def _model(self, tensors: Tensors) -> Model:
        return MODELS.get(self.sizes["family"], Model)(self.sizes, tensors, self.modules)

    def max_length(self) -> int:
        """Return the longest pair in tokens."""
        usable = self.sizes["positions"] - self.sizes["first"]
        limit = self.settings.get("model_max_length") if self.chained is None else self.chained
        if limit is None or (isinstance(limit, int | float) and limit > 1e9):
            return usable
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise Unsure("model_max_length is no integer")
        return min(limit, usable)

    def prompt(self) -> str:
        """Return what is put in front of every query."""
        path = self.folder / "config_sentence_transformers.json"
        values = _json_object(path) if path.exists() else {}
        if values.get("model_type") != "CrossEncoder" or not values.get("default_prompt_name"):
            return ""
        return str(values["prompts"][values["default_prompt_name"]])

    def tokens(self, pairs: list[Pair]) -> list[Tokens]:
        """Return the tokens of each pair, by the library's own template and truncation."""
        self._check_template()
        names = self.settings.get("model_input_names")
        kind = str(self.settings.get("tokenizer_class", ""))
        types = "token_type_ids" in names if isinstance(names, list) else not kind.startswith(WITHOUT_TYPES)
        result = []
        prompt = self.prompt()
        for query, passage in pairs:
            encoding = self.tokenizer.encode(prompt + query, passage)
            kept = self._kept(encoding.sequence_ids)
            ids = [encoding.ids[i] for i in kept]
            row = [encoding.type_ids[i] if types and self.sizes["types"] else 0 for i in kept]
            if max(row) >= max(self.sizes["types"], 1):
                raise Refusable("token types beyond the last row")
            result.append((ids, row, self._positions(ids)))
        return result

    def _kept(self, sequences: list[int | None]) -> list[int]:
        """Return the places that truncation leaves; of two halves, the second is the larger one."""
        first, second = sequences.count(0), sequences.count(1)
        budget = self.max_length() - (len(sequences) - first - second)
        if first + second > budget:
            short = min(first, second, budget // 2)
            first, second = (budget - short, short) if first > second else (short, budget - short)
        left = {None: len(sequences), 0: first, 1: second}
        kept = []
        for place, sequence in enumerate(sequences):
            left[sequence] -= 1
            if left[sequence] >= 0:
                kept.append(place)
        return kept

    def _check_template(self) -> None:
        """Refuse a template that has not each text once."""
        texts = ("how many", "people live in")
        encoding = self.tokenizer.encode(*texts)
        special = self.tokenizer.num_special_tokens_to_add(is_pair=True)
        lengths = [len(self.tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
        if [encoding.sequence_ids.count(i) for i in (0, 1)] != lengths or len(encoding.ids) != sum(lengths) + special:
            raise Refusable("the template has not each text once")

    def _positions(self, ids: list[int]) -> list[int]:
        first, padding = self.sizes["first"], self.sizes["padding"]
        if padding is None:
            return list(range(len(ids)))
        counted = np.cumsum([token != padding for token in ids])
        return [
            padding if token == padding else int(count) + first - 1 for token, count in zip(ids, counted, strict=True)
        ]

    def logits(self, tokens: list[Tokens]) -> np.ndarray:
        """Return the logits: (N, labels)."""
        return np.array([self.model.logits(*row) for row in tokens])

    def sensitivity(self, tokens: list[Tokens], rounding: float) -> np.ndarray:
        """Return how far the logits move when every weight and the result of every layer is rounded: (N, labels).

        The weights alone do not tell: where a bias is so large that nothing else is kept of a sum, to move it moves
        all sums alike, and what is lost of each shows only when each is moved by itself.
        """
        rng, exact = np.random.default_rng(0), self.logits(tokens)
        moved = np.zeros_like(exact)
        for _ in range(4):
            noisy = {
                name: array * (1 + rounding * rng.choice([-1.0, 1.0], array.shape))
                for name, array in self.tensors.items()
            }
            twin = self._model(noisy)
            twin.rounded = lambda y: y * (1 + rounding * rng.choice([-1.0, 1.0], y.shape))
            moved = np.maximum(moved, np.abs(np.array([twin.logits(*row) for row in tokens]) - exact))
        return moved


def _json_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise Refusable(f"{path.name} is no JSON") from error
    if not isinstance(values, dict):
        raise Refusable(f"{path.name} is no object")
    return values


def read_sizes(config: dict[str, Any], tensors: Tensors, *, has_head: bool) -> dict[str, Any]:
    """Read what the forward pass needs from a config.json."""
    family = recognise(config, tensors)
    if family not in CLASSES:
        raise Refusable("unknown model_type")
    kind = "ForSequenceClassification" if has_head else "Model"
    if config.get("architectures") not in (None, [f"{CLASSES[family]}{kind}"]):
        raise Refusable("architecture without a head, or with two")
    distil, modern = family == "distilbert", family == "modernbert"
    if config.get("is_decoder") not in (False, None):
        raise Refusable("a decoder")
    positions = config.get("position_embedding_type")
    if not modern and positions not in POSITIONS.get(family, (None, "absolute")):
        raise Refusable("other positions")
    own = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
    number = integers_of(config, {**own, "intermediate_size": "hidden_dim"} if distil else {})
    hidden, heads = number("hidden_size"), number("num_attention_heads")
    if heads == 0 or hidden % heads:
        raise Refusable("heads do not divide the hidden size")
    eps = 1e-12 if distil else config.get("layer_norm_eps", 1e-7 if family.startswith("deberta") else 1e-12)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < math.inf:
        raise Refusable("layer_norm_eps")
    padded = family in ("roberta", "xlm-roberta", "camembert", "mpnet", "jina-xlm")
    padding = number("pad_token_id", 1) if padded else None
    return {
        "family": family, "hidden": hidden, "heads": heads, "layers": number("num_hidden_layers"), "eps": float(eps),
        "vocab": number("vocab_size"), "inner": number("intermediate_size"),
        "positions": number("max_position_embeddings"), "has_positions": True,
        "types": 0 if distil or modern or family == "mpnet" else number("type_vocab_size", TYPES.get(family, 2)),
        "padding": padding, "first": 0 if padding is None else padding + 1,
        "labels": read_labels(config, family, tensors) if has_head else 0,
        "embedding": number("embedding_size") if family == "electra" else hidden,
        "buckets": number("relative_attention_num_buckets", 32) if family == "mpnet" else 0,
        "bend": "" if modern else bend_of(config, "activation" if distil else "hidden_act", "gelu"),
        "head_bend": {"electra": "GELU", "distilbert": "ReLU"}.get(family, "Tanh"),
        **(read_rules(config if has_head else _without_head(config)) if modern else {}),
        **read_own(family, config, number),
    }  # fmt: skip


def _without_head(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says something of a head: it means nothing where modules are the head."""
    return {key: value for key, value in config.items() if not key.startswith("classifier_")}


def read_labels(config: dict[str, Any], family: str, tensors: Tensors) -> int:
    """Return the number of labels, which two settings may give; where none does, the last layer of some families."""
    names, number = config.get("id2label"), config.get("num_labels")
    last = tensors.get("classifier.out_proj.weight" if family == "jina-xlm" else "classifier.weight")
    if family in REMOTE and last is not None and last.ndim and not {"id2label", "num_labels"} & set(config):
        return len(last)
    if names is None:
        return 2 if number is None else number
    if not isinstance(names, dict):
        raise Refusable("id2label is no object")
    if number is not None and number != len(names):
        raise Refusable(f"id2label has {len(names)} entries, num_labels is {number!r:.40}")
    return len(names)


def read_chain(folder: Path) -> tuple[int | None, tuple[Module, ...]]:
    """Read what sentence-transformers would compute behind the transformer, and the length that it would set.

    Raises
    ------
    Refusable
        When it would compute something that is none of the five modules.
    """
    path = folder / "modules.json"
    if not path.exists():
        return None, ()
    try:
        chain = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Refusable("modules.json is no JSON") from error
    if not isinstance(chain, list) or not all(isinstance(module, dict) for module in chain):
        raise Refusable("modules.json is no list of modules")
    kinds = [str(module.get("type")).rpartition(".")[2] for module in chain]
    if kinds[:1] != ["Transformer"] or not set(kinds[1:]) <= {"Pooling", "Dense", "LayerNorm", "Normalize"}:
        raise Refusable(f"modules {kinds!r:.80}")
    if len({repr(module.get("name")) for module in chain}) < len(chain) and len(chain) > 1:
        raise Refusable("two modules of one name")
    settings = folder / "sentence_bert_config.json"
    values = _json_object(settings) if settings.exists() else {}
    if values.get("do_lower_case"):
        raise Refusable("sentence-transformers would turn texts into lower case")
    if len(chain) > 1:
        _check_encoder(folder, values)
    places = [folder / str(module.get("path")) / "config.json" for module in chain[1:]]
    return values.get("max_seq_length"), tuple(
        Module(kind, place.parent.name, {} if kind == "Normalize" and not place.exists() else _json_object(place))
        for kind, place in zip(kinds[1:], places, strict=True)
    )


def _check_encoder(folder: Path, values: dict[str, Any]) -> None:
    """Refuse a transformer that does not give its rows to the next module."""
    path = folder / "config_sentence_transformers.json"
    if not path.exists() or _json_object(path).get("model_type") != "CrossEncoder":
        raise Refusable("sentence-transformers would leave the modules out")
    rows = {"method": "forward", "method_output_name": "last_hidden_state"}
    if values.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise Refusable("another task")
    if values.get("modality_config", {"text": rows}) != {"text": rows}:
        raise Refusable("other inputs or outputs")
    if "modality_config" in values and values.get("module_output_name") not in (None, "token_embeddings"):
        raise Refusable("another name for the rows")


def decode_or_refuse(path: Path) -> Tensors:
    """Decode a file of weights."""
    try:
        return decode(path)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise Refusable(f"{path}: {error}") from error


def read_tensors(folder: Path) -> Tensors:
    """Decode all weights; the names that TensorFlow gave to LayerNorm's are translated."""
    single = folder / "model.safetensors"
    try:
        if single.exists():
            return _modern(decode(single))
        places = json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"]
        if any(Path(str(name)).name != name for name in places.values()):
            raise Refusable("the index leads out of the folder")
        tensors: Tensors = {}
        for name in sorted(set(places.values())):
            shard = _modern(decode(folder / name))
            if set(shard) & set(tensors):
                raise Refusable("a tensor is in two shards")
            tensors |= shard
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise Refusable(f"weights: {error}") from error
    return tensors


def _modern(tensors: Tensors) -> Tensors:
    result = {}
    for name, array in tensors.items():
        stem, _, last = name.rpartition(".")
        new = f"{stem}.{ {'gamma': 'weight', 'beta': 'bias'}.get(last, last) }" if stem.endswith("LayerNorm") else name
        if new in result:
            raise Refusable(f"{name} is there under two names")
        result[new] = array
    return result
