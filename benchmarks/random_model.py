"""Make a BERT cross-encoder with random weights, to time shapes for which no checkpoint is at hand.

    python benchmarks/random_model.py FOLDER --layers 12 --hidden 768 --heads 12

Its vocabulary and tokenizer are those of the model within numbert. Needs torch and transformers.
"""

import argparse
import importlib
import shutil
from pathlib import Path

from common import forget_own_folder, model_folder, positive


def main() -> None:
    """Read the arguments, make the model, save it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=positive, default=12)
    parser.add_argument("--hidden", type=positive, default=768)
    parser.add_argument("--heads", type=positive, default=12)
    arguments = parser.parse_args()
    forget_own_folder()
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    tokenizer_from = model_folder(None)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=transformers.AutoConfig.from_pretrained(tokenizer_from).vocab_size,
        hidden_size=arguments.hidden, num_hidden_layers=arguments.layers, num_attention_heads=arguments.heads,
        intermediate_size=4 * arguments.hidden, num_labels=1,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(arguments.folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (tokenizer_from / name).exists():
            shutil.copy(tokenizer_from / name, arguments.folder)


if __name__ == "__main__":
    main()
