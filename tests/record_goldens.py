"""Write small random checkpoints with transformers, and record the token ids and logits that transformers computes.

    python tests/record_goldens.py

Needs torch, transformers and sentence-transformers; the tests that read what it writes need none of them. Sizes are odd
on purpose. Goldens of record_remote.py are removed: run it afterwards.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tokenizers
import tokenizers.trainers
import tokenizers_of_families
import torch
import transformers
from checkpoints import TOKENIZER_LENGTHS, hostile_to
from hostile_pairs import DIGEST, PAIRS, PASSAGES, QUERIES, digest
from safetensors.torch import load_file, save_file

GOLDENS = Path(__file__).parent / "goldens"
EMBEDDED = Path(__file__).parents[1] / "loaders" / "embedded" / "tiny-reranker"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTAS_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BYTE_PAIRS = {
    "roberta": (transformers.RobertaTokenizer, ROBERTAS_SPECIAL),
    "deberta": (transformers.DebertaTokenizer, SPECIAL),
}
UNIGRAMS = {
    "xlm-roberta": (transformers.XLMRobertaTokenizer, ROBERTAS_SPECIAL),
    "gte": (transformers.XLMRobertaTokenizer, ROBERTAS_SPECIAL),
    "camembert": (transformers.CamembertTokenizer, ROBERTAS_SPECIAL),
    "deberta-v2": (transformers.DebertaV2Tokenizer, SPECIAL),
    "albert": (transformers.AlbertTokenizer, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]),
}
LAST_LAYERS = ("classifier.weight", "classifier.out_proj.weight")
POSITIONS = 64


class Shape(NamedTuple):
    """What a random checkpoint looks like."""

    heads: int
    head_width: int
    layers: int
    intermediate: int
    labels: int = 1
    vocabulary: int = 503
    cased: bool = False
    max_length: int = POSITIONS  # of the tokenizer
    eps: float = 1e-12
    dtype: torch.dtype = torch.float32
    shard_size: str = "1GB"
    family: str = "bert"
    embedding: int = 0  # size, where that of the tables differs
    settings: Mapping[str, Any] = MappingProxyType({})  # of the family's own, for config.json


OLDER_SPELLING = {
    "local_attention": 10, "global_attn_every_n_layers": 3, "global_rope_theta": 900.0, "local_rope_theta": 30.0,
}  # fmt: skip
ALL_SWITCHES = {
    "local_attention": 7,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
    },
    **dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True),
    "classifier_pooling": "mean",
    "classifier_activation": "relu",
}
# Buckets hold several distances from 9 on, so that most pairs reach them.
DEBERTA_V3 = {
    "relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
    "norm_rel_ebd": "layer_norm", "position_biased_input": False,
}  # fmt: skip
DEBERTA_V2 = {
    "relative_attention": True, "position_buckets": 12, "max_relative_positions": 40, "pos_att_type": "p2c|c2p",
    "type_vocab_size": 2, "conv_kernel_size": 3, "conv_act": "gelu",
}  # fmt: skip
DEBERTA_V1 = {
    "relative_attention": True, "max_relative_positions": 20, "pos_att_type": "c2p|p2c", "position_biased_input": False,
}  # fmt: skip
FASTER = {"rope_parameters": {"rope_type": "default", "rope_theta": 400.0}}  # than the default; short texts show it
SHAPES = {
    "narrow": Shape(heads=3, head_width=16, layers=2, intermediate=97),
    "odd-heads-float16": Shape(heads=12, head_width=26, layers=1, intermediate=211, labels=3, dtype=torch.float16),
    "sharded-bfloat16": Shape(
        heads=5, head_width=8, layers=3, intermediate=53, vocabulary=401, dtype=torch.bfloat16, shard_size="20KB"
    ),
    # More rows than the tokenizer has tokens, as in models whose table was padded.
    "vocab-txt": Shape(heads=2, head_width=18, layers=2, intermediate=77, vocabulary=701, eps=1e-5),
    "old-names": Shape(heads=3, head_width=11, layers=2, intermediate=70, vocabulary=307),
    "cased": Shape(heads=1, head_width=50, layers=1, intermediate=131, labels=2, cased=True, max_length=41),
    "roberta": Shape(heads=3, head_width=10, layers=2, intermediate=61, labels=3, eps=1e-5, family="roberta"),
    "xlm-roberta": Shape(heads=2, head_width=17, layers=2, intermediate=60, eps=1e-5, family="xlm-roberta"),
    "camembert": Shape(heads=2, head_width=16, layers=1, intermediate=33, eps=1e-5, family="camembert"),
    "electra": Shape(heads=3, head_width=14, layers=2, intermediate=55, embedding=26, family="electra"),
    "distilbert": Shape(heads=4, head_width=9, layers=2, intermediate=75, family="distilbert"),
    "mpnet": Shape(heads=3, head_width=12, layers=2, intermediate=49, family="mpnet"),
    # Heads that are filled up; layers that see all, 5 tokens to either side, 5, and all.
    "modernbert": Shape(
        heads=3, head_width=14, layers=4, intermediate=45, eps=1e-5, family="modernbert", settings=OLDER_SPELLING
    ),
    "modernbert-mean": Shape(
        heads=2,
        head_width=16,
        layers=3,
        intermediate=37,
        labels=2,
        eps=1e-5,
        family="modernbert",
        settings=ALL_SWITCHES,
    ),
    "deberta-v3": Shape(
        heads=3, head_width=12, layers=3, intermediate=47, eps=1e-7, family="deberta-v2", settings=DEBERTA_V3
    ),
    "deberta-v2": Shape(
        heads=2, head_width=14, layers=3, intermediate=51, labels=3, eps=1e-7, embedding=22, family="deberta-v2",
        settings=DEBERTA_V2,
    ),
    "deberta-v1": Shape(
        heads=3, head_width=10, layers=3, intermediate=43, eps=1e-7, family="deberta", settings=DEBERTA_V1,
    ),
    "albert": Shape(
        heads=3, head_width=16, layers=3, intermediate=58, embedding=18, family="albert",
        settings={"num_hidden_groups": 2, "inner_group_num": 2},
    ),
    "nomic-bert": Shape(heads=2, head_width=18, layers=3, intermediate=41, labels=2, family="nomic_bert"),
    "gte": Shape(heads=3, head_width=10, layers=3, intermediate=47, family="gte", settings=FASTER),
}  # fmt: skip


def main() -> None:
    """Record all goldens anew."""
    shutil.rmtree(GOLDENS, ignore_errors=True)
    for seed, (name, shape) in enumerate(SHAPES.items()):
        folder = GOLDENS / name
        write_checkpoint(folder, shape, seed)
        if name == "vocab-txt":
            keep_vocabulary_only(folder)
        if name == "old-names":
            rename_as_tensorflow_did(folder)
        if name == "modernbert":
            spell_as_older_files(folder, shape)
        record(folder, folder / "golden.json")
    record(EMBEDDED, GOLDENS / "tiny-reranker.json")
    for kind in tokenizers_of_families.KINDS:
        folder = GOLDENS / "tokenizers" / kind
        tokenizers_of_families.write(kind, folder)
        record_tokens(folder)
    record_modular(GOLDENS / "modular")


def write_checkpoint(folder: Path, shape: Shape, seed: int) -> None:
    """Save a random model and its tokenizer as transformers does."""
    hidden = shape.heads * shape.head_width
    counts_from_padding = shape.family in ("roberta", "xlm-roberta", "camembert", "mpnet")
    sizes = {
        "vocab_size": shape.vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": POSITIONS + 2 * counts_from_padding,
        "layer_norm_eps": shape.eps,
        "num_labels": shape.labels,
        "pad_token_id": int(counts_from_padding),
    }
    if shape.family in ("roberta", "xlm-roberta", "camembert", "gte"):
        sizes["type_vocab_size"] = 1
    if shape.family == "distilbert":
        sizes["hidden_dim"] = sizes.pop("intermediate_size")
    if shape.embedding or shape.family == "electra":
        sizes["embedding_size"] = shape.embedding or hidden
    if shape.family == "modernbert":
        sizes["norm_eps"] = sizes.pop("layer_norm_eps")
    config = transformers.AutoConfig.for_model(shape.family, **sizes, **shape.settings)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    randomise(model, np.random.default_rng(seed))
    model.to(shape.dtype).save_pretrained(folder, max_shard_size=shape.shard_size)
    if shape.family in tokenizers_of_families.KINDS:
        tokenizers_of_families.write(shape.family, folder)
    else:
        make_tokenizer(shape).save_pretrained(folder)


def make_tokenizer(shape: Shape) -> Any:
    """Make the kind of tokenizer that the family has: WordPiece, byte-level BPE or Unigram."""
    settings = {"model_max_length": shape.max_length}
    kind: Any
    if shape.family in BYTE_PAIRS:
        kind, special = BYTE_PAIRS[shape.family]
        trained = tokenizers.Tokenizer(tokenizers.models.BPE())
        trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=shape.vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        model = train(trained, trainer)["model"]
        merges = [tuple(merge) for merge in model["merges"]]
        return kind(vocab=model["vocab"], merges=merges, **settings)
    if shape.family in UNIGRAMS:
        kind, special = UNIGRAMS[shape.family]
        trained = tokenizers.Tokenizer(tokenizers.models.Unigram())
        trained.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        unknown = next(token for token in special if "unk" in token.lower())
        trainer = tokenizers.trainers.UnigramTrainer(
            vocab_size=shape.vocabulary - 20, special_tokens=special, unk_token=unknown, show_progress=False
        )
        pieces = [tuple(piece) for piece in train(trained, trainer)["model"]["vocab"]]
        return kind(vocab=pieces, **settings)
    tokens = {token: i for i, token in enumerate(vocabulary(shape.vocabulary, shape.cased, shape.family))}
    if shape.family == "mpnet":
        return transformers.MPNetTokenizer(vocab=tokens, unk_token="<unk>", **settings)
    kind = transformers.DistilBertTokenizer if shape.family == "distilbert" else transformers.BertTokenizer
    return kind(vocab=tokens, do_lower_case=not shape.cased, **settings)


def train(tokenizer: Any, trainer: Any) -> dict[str, Any]:
    """Train on the ordinary texts, and return what the tokenizer would write into its file."""
    tokenizer.train_from_iterator(QUERIES + PASSAGES, trainer)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def randomise(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Give every parameter values that matter: fresh models have zero biases, unit gains and logits near zero."""
    for name, parameter in model.named_parameters():
        values = rng.standard_normal(tuple(parameter.shape), np.float32)
        if "norm" in name.lower():
            values = 0.2 * values + name.endswith("weight")
        elif parameter.ndim == 1:
            values *= 0.3
        elif "relative" in name:
            pass  # as large as the scores that it is added to
        elif "embeddings." in name:
            values *= 0.5
        else:  # keeps the variance, times what makes attention choose and logits spread
            values *= (3 if name in LAST_LAYERS else 1.5) / np.sqrt(parameter.shape[1], dtype=np.float32)
        parameter.data = torch.from_numpy(values.astype(np.float32))


def vocabulary(size: int, cased: bool, family: str) -> list[str]:
    """Make a WordPiece vocabulary: special tokens, characters and their continuations, words, word ends."""
    words = " ".join(QUERIES + PASSAGES).split()
    text = "".join(query + passage for query, passage in PAIRS)
    if not cased:
        words, text = [word.lower() for word in words], text.lower()
    letters = sorted(set(text) - set(" \t\r\n"), key=lambda letter: (not letter.isascii(), -text.count(letter), letter))
    ascii_letters = [letter for letter in letters if letter.isascii() and letter.isprintable()]
    pieces = [word[:4] for word in words] + [f"##{word[4:]}" for word in words if len(word) > 6]
    tokens = (
        (ROBERTAS_SPECIAL if family == "mpnet" else SPECIAL)
        + ascii_letters
        + [f"##{letter}" for letter in ascii_letters if letter.isalnum()]
    )
    tokens += words[::2] + pieces + [letter for letter in letters if letter.isprintable()]
    return list(dict.fromkeys(tokens))[:size]


def keep_vocabulary_only(folder: Path) -> None:
    """Replace tokenizer.json by vocab.txt, as in the first checkpoints."""
    path = folder / "tokenizer.json"
    tokens: dict[str, int] = json.loads(path.read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(tokens, key=tokens.__getitem__)))
    path.unlink()


def rename_as_tensorflow_did(folder: Path) -> None:
    """Give LayerNorm the parameters gamma and beta, and add tensors that old checkpoints have besides."""
    path = folder / "model.safetensors"
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(path).items()
    }
    tensors["bert.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    tensors["cls.seq_relationship.bias"] = torch.zeros(2)
    save_file(tensors, path, {"format": "pt"})


def spell_as_older_files(folder: Path, shape: Shape) -> None:
    """Say which layers have a window, and how fast queries and keys turn, as the first files of ModernBERT did."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["layer_types"], config["rope_parameters"]
    path.write_text(json.dumps({**config, **shape.settings}, indent=2) + "\n")


class Recorded(NamedTuple):
    """What transformers makes of one pair."""

    ids: list[int]
    type_ids: list[int]
    logits: list[float]


def load_model(folder: Path) -> tuple[Any, Any]:
    """Load tokenizer and model, computing in float32 with the attention that the paper describes."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return transformers.AutoTokenizer.from_pretrained(folder), model.eval()


def compute(folder: Path, pairs: list[tuple[str, str]]) -> list[Recorded]:
    """Tokenize and score each pair by itself.

    The tokenizer is given lists: of two plain strings it drops the second when that is empty. Types that it gives to a
    model without any count as 0.
    """
    tokenizer, model = load_model(folder)
    rows = model.config.max_position_embeddings
    padding_first = model.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet")
    length = min(tokenizer.model_max_length, rows - 2 * padding_first)
    gives_types = "token_type_ids" in tokenizer.model_input_names and getattr(model.config, "type_vocab_size", 0)
    results = []
    for query, passage in pairs:
        tokens = tokenizer([query], [passage], truncation="longest_first", max_length=length, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**tokens).logits
        results.append(
            Recorded(
                tokens["input_ids"][0].tolist(),
                (tokens["token_type_ids"] if gives_types else torch.zeros_like(tokens["input_ids"]))[0].tolist(),
                logits[0].tolist(),
            )
        )
    return results


def record(folder: Path, path: Path) -> None:
    """Write what transformers computes for all pairs."""
    write_rows(folder, path, compute(folder, PAIRS))


def record_modular(folder: Path) -> None:
    """Save an encoder with modules behind it, and write what sentence-transformers computes."""
    import modular_models  # needs sentence-transformers, the others do not
    from torch.nn import GELU

    last = {"activation_function": None, "module_output_name": "scores"}
    modules = [
        ("Dense", {"in_features": modular_models.HIDDEN, "out_features": 40, "activation_function": GELU()}),
        ("LayerNorm", {"dimension": 40}),
        ("Dense", {"in_features": 40, "out_features": 1, **last}),
    ]
    modular_models.write_modular(folder, modules, seed=99)
    write_rows(folder, folder / "golden.json", modular_models.compute(folder, PAIRS))


def write_rows(folder: Path, path: Path, results: list[Recorded]) -> None:
    """Write a line for each pair."""
    rows = [golden_row(row) for row in results]
    spread = np.std([row["logits"] for row in rows], axis=0)
    assert spread.min() > 0.3, f"{folder}: logits spread by {spread}: too little to show an error"
    versions = f'"transformers": "{transformers.__version__}", "torch": "{torch.__version__}"'
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{{versions}, "pairs": "{DIGEST}", "rows": [\n{lines}\n]}}\n')


def record_tokens(folder: Path) -> None:
    """Write what transformers makes of pairs that are hostile to a tokenizer, by itself: token ids, no types."""
    pairs = hostile_to(folder)
    ids = {length: tokens_of_modernbert(folder, pairs, length) for length in TOKENIZER_LENGTHS}
    rows = {str(length): [" ".join(map(str, row)) for row in ids[length]] for length in ids}
    content = {"transformers": transformers.__version__, "pairs": digest(pairs), "ids": rows}
    (folder / "golden.json").write_text(json.dumps(content, indent=0) + "\n")


def tokens_of_modernbert(folder: Path, pairs: list[tuple[str, str]], max_length: int) -> list[list[int]]:
    """Tokenize with the class that transformers chooses for ModernBERT's tokenizers.

    Some pairs at a time: the library keeps every combination of what truncation cuts off both texts.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, config=transformers.ModernBertConfig())
    ids: list[list[int]] = []
    for start in range(0, len(pairs), 32):
        queries, passages = ([pair[side] for pair in pairs[start : start + 32]] for side in (0, 1))
        tokens = tokenizer(queries, passages, truncation="longest_first", max_length=max_length)
        assert set(tokens) == {"input_ids", "attention_mask"}  # and no token types
        ids += tokens["input_ids"]
    return ids


def golden_row(row: Recorded) -> dict[str, Any]:
    """Bring a row into the form of the file: ids in one string, type ids as the counts of 0 and of 1."""
    counts = [row.type_ids.count(0), row.type_ids.count(1)]
    assert row.type_ids == [0] * counts[0] + [1] * counts[1]
    return {
        "ids": " ".join(map(str, row.ids)),
        "types": counts,
        "logits": [float(str(np.float32(x))) for x in row.logits],
    }


if __name__ == "__main__":
    main()
