"""Write docs/parity.md: `numbert verify` on the embedded model and on random models of realistic size.

    python tests/record_parity.py

Needs torch, transformers and sentence-transformers, and some minutes.
"""

import tempfile
from pathlib import Path

import record_goldens
from numbert.engine.tools.verify import Check, verify
from record_goldens import Shape

PAGE = Path(__file__).parents[1] / "docs" / "parity.md"
HEADER = """# Parity

What `numbert verify MODEL` prints, for the embedded model and for random checkpoints of the size of real ones, one for
each family. Written by `python tests/record_parity.py`; transformers {transformers}, torch {torch}, float32.

Token ids and types are compared on 5,000 pairs, that is 10,000 strings made to be hard on tokenizers; logits on 60 of
them. The weights of the random models are scaled so that logits spread over several units. Two of them are beyond the
bound: ModernBERT of 22 layers (1.3e-4 from float64) and NomicBERT (1.8e-4), whose scaled weights let rounding grow:
torch's own float32 is 6e-5 from its float64 there, on 12 of the pairs.

Tokenizers of DeBERTa's, Jina's, gte's and ALBERT's kinds, trained for tests, give the ids of their tokenizer.json
on 10,000 such strings: as the library reads it, and as transformers' PreTrainedTokenizerFast does. transformers 5 makes
some classes anew from the vocabulary: RoBERTa's, ALBERT's, and XLM-RoBERTa's for files that split at blanks, give the
same ids. DebertaV2Tokenizer has no map of characters, XLMRobertaTokenizer splits at blanks also where the file does
not, DebertaTokenizer puts two separators between the texts, and AlbertTokenizer drops blanks at the end of a text that
files of transformers 4 keep: numbert's ids are those of the published file, and
`tests/test_parity_rebuilt_tokenizers.py` shows all but the last, and that for its files there are no others.

Real weights: of the hub's models only those that come with numbert or lie in its development folder have run here. For
each of the following, **real weights: never run here** until `tests/test_real_models.py`, which has the scores that
sentence-transformers' own tests expect and runs where the hub's cache holds the model, has passed:
gte-reranker-modernbert, granite-embedding-reranker-english-r2, ruri-v3-reranker, japanese-reranker-xsmall-v2,
bge-reranker-base and -v2-m3, gte-multilingual-reranker-base, jina-reranker-v1-tiny-en, -v1-turbo-en and
-v2-base-multilingual; ettin-reranker and other models of modules, mxbai-rerank-*-v1, nli-deberta-v3-*, and rerankers of
ALBERT's and NomicBERT's kind, for which no such scores are published.
"""
WIDE = {"head_width": 64, "intermediate": 3072, "vocabulary": 900, "max_length": 512}
NARROW = {"head_width": 32, "intermediate": 1536, "vocabulary": 900, "max_length": 512}
MODERN = {"head_width": 64, "intermediate": 1152, "vocabulary": 503}
V3 = {**record_goldens.DEBERTA_V3, "position_buckets": 256}
V2_XLARGE = {**V3, "share_att_key": False, "conv_kernel_size": 3, "conv_act": "gelu"}
V1 = {**record_goldens.DEBERTA_V1, "max_relative_positions": -1}
SHAPES = {
    "BERT, 6 layers of 384": Shape(heads=12, layers=6, **NARROW),
    "BERT, 12 layers of 768, 3 labels": Shape(heads=12, layers=12, labels=3, **WIDE),
    "RoBERTa, 6 layers of 768": Shape(heads=12, layers=6, eps=1e-5, family="roberta", **WIDE),
    "XLM-RoBERTa, 12 layers of 384": Shape(heads=12, layers=12, eps=1e-5, family="xlm-roberta", **NARROW),
    "CamemBERT, 6 layers of 768": Shape(heads=12, layers=6, eps=1e-5, family="camembert", **WIDE),
    "ELECTRA, 12 layers of 384, embeddings of 128": Shape(
        heads=12, layers=12, embedding=128, family="electra", **NARROW
    ),
    "DistilBERT, 6 layers of 768": Shape(heads=12, layers=6, family="distilbert", **WIDE),
    "MPNet, 12 layers of 384": Shape(heads=12, layers=12, family="mpnet", **NARROW),
    "ModernBERT, 22 layers of 768": Shape(heads=12, layers=22, eps=1e-5, family="modernbert", **MODERN),
    "DeBERTa-v3, 12 layers of 768": Shape(heads=12, layers=12, eps=1e-7, family="deberta-v2", settings=V3, **WIDE),
    "DeBERTa-v2, 6 layers of 384 with a convolution, as v2-xlarge": Shape(
        heads=6, head_width=64, layers=6, intermediate=1536, vocabulary=900, max_length=512, eps=1e-7,
        family="deberta-v2", settings=V2_XLARGE,
    ),
    "DeBERTa, version 1, 12 layers of 768": Shape(
        heads=12, layers=12, eps=1e-7, family="deberta", settings=V1, **WIDE
    ),
    "ALBERT, 12 layers of 768 that share weights": Shape(
        heads=12, layers=12, embedding=128, family="albert", **WIDE
    ),
    "NomicBERT, 12 layers of 768": Shape(heads=12, layers=12, family="nomic_bert", **WIDE),
}  # fmt: skip
MODULAR = "ModernBERT without a head, with a Pooling, a Dense, a LayerNorm and a Dense in modules.json"


def main() -> None:
    """Make the models, verify them, and write the page."""
    record_goldens.POSITIONS = 512
    versions = {name: getattr(record_goldens, name).__version__ for name in ("transformers", "torch")}
    sections = [HEADER.format(**versions), section("The embedded model (BERT, 4 layers of 128)", verify(None))]
    for seed, (title, shape) in enumerate(SHAPES.items()):
        with tempfile.TemporaryDirectory() as folder:
            record_goldens.write_checkpoint(Path(folder), shape, seed)
            sections.append(section(title, verify(folder)))
    sections.append(section(f"{MODULAR}, 4 layers of 24", verify(str(record_goldens.GOLDENS / "modular"))))
    PAGE.write_text("\n".join(sections))


def section(title: str, checks: list[Check]) -> str:
    """Bring the checks of one model into a Markdown table."""
    rows = [f"| {check.what} | {check.bound} | {check.seen} | {check.verdict} |" for check in checks]
    return "\n".join([f"## {title}\n", "| what | bound | seen | |", "|---|---:|---:|---|", *rows, ""])


if __name__ == "__main__":
    main()
