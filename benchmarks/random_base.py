"""A model of the usual large shape with random weights: what it costs to compute is that of a real one."""

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import model_folder

NAME = "random-base"
SEED = 20
LAYERS, HIDDEN, HEADS, INTERMEDIATE, POSITIONS = 12, 768, 12, 3072, 512  # as BERT-base
WEIGHT_SPREAD = 0.05  # with the usual 0.02 the logits of all pairs are almost equal, and a comparison shows nothing
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@contextlib.contextmanager
def open_model(name: str | None) -> Iterator[Path]:
    """Yield the folder of a model; for "random-base" a temporary one.

    Parameters
    ----------
    name : str or None
        "random-base", a folder, a hub id, or None for the model that comes with numbert.
    """
    if name != NAME:
        yield model_folder(name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, NAME).resolve()
        write_random_base(folder)
        yield folder


def write_random_base(folder: Path) -> None:
    """Write a BERT of 12 layers, 768 wide, with the tokenizer of the model that comes with numbert."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    source = model_folder(None)
    torch.manual_seed(SEED)
    vocabulary = len(transformers.AutoTokenizer.from_pretrained(source))
    config = transformers.BertConfig(
        vocab_size=vocabulary, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=INTERMEDIATE, max_position_embeddings=POSITIONS, num_labels=1,
        initializer_range=WEIGHT_SPREAD,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    for file in TOKENIZER_FILES:
        shutil.copy(source / file, folder / file)
