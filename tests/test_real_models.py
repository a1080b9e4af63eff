"""Published models against the scores that sentence-transformers' own tests expect, where the hub's cache has them.

Nothing is downloaded: `huggingface-cli download MODEL` first. docs/parity.md says which have passed here.
"""

import numpy as np
import pytest
from numbert import CrossEncoder
from numbert.loaders.errors import ModelNotFoundError

QUERY = "Which planet is known as the Red Planet?"
DOCUMENTS = (
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
)
# Source: tests/cross_encoder/test_pretrained.py of sentence-transformers, computed in bfloat16
GOLDENS = {
    "Alibaba-NLP/gte-reranker-modernbert-base": (0.80859, 0.95312, 0.875, 0.91797),
    "ibm-granite/granite-embedding-reranker-english-r2": (0.78906, 0.96484, 0.89062, 0.94141),
    "cl-nagoya/ruri-v3-reranker-310m": (0.00035, 0.99609, 0.00247, 0.27539),
    "hotchpotch/japanese-reranker-xsmall-v2": (0.02405, 0.97266, 0.11768, 0.91797),
    "cross-encoder/ms-marco-MiniLM-L6-v2": (-6.53125, 9.6875, 6.90625, 6.6875),
    "BAAI/bge-reranker-base": (0.87891, 0.99609, 0.99609, 0.05029),
    "BAAI/bge-reranker-v2-m3": (0.01855, 1.0, 0.78906, 0.98828),
    "Alibaba-NLP/gte-multilingual-reranker-base": (0.38672, 0.85156, 0.70312, 0.65234),
    "jinaai/jina-reranker-v1-tiny-en": (0.53516, 0.92969, 0.87891, 0.88672),
    "jinaai/jina-reranker-v1-turbo-en": (0.27148, 0.82422, 0.64844, 0.68359),
    "jinaai/jina-reranker-v2-base-multilingual": (0.23633, 0.71484, 0.50391, 0.31055),
}
# Theirs is 0.01, from bfloat16 to bfloat16; what is compared here is float32 with bfloat16, in which the attention of
# long models loses more. Logits of 10 have a rounding of 1/32, several times over.
TOLERANCE = {"cross-encoder/ms-marco-MiniLM-L6-v2": 0.1}


@pytest.mark.parametrize("name", GOLDENS)
def test_published_scores(name):
    try:
        model = CrossEncoder(name, local_files_only=True)
    except ModelNotFoundError:
        pytest.skip(f"{name} is not in the hub's cache")
    scores = model.predict([(QUERY, document) for document in DOCUMENTS])
    np.testing.assert_allclose(scores, GOLDENS[name], atol=TOLERANCE.get(name, 0.02))
