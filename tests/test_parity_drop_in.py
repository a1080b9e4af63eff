"""numbert in the place of sentence-transformers: the same signature, evaluators, saved folders and ranking quality."""

import inspect
import json

import numpy as np
import pytest
from checkpoints import FAMILIES, GOLDENS, copy_checkpoint, edit_json
from conftest import ROOT
from hostile_pairs import PAIRS
from numbert import CrossEncoder

sentence_transformers = pytest.importorskip("sentence_transformers", reason="compares with sentence-transformers")
transformers = pytest.importorskip("transformers", reason="compares with transformers")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]  # the peer's own warnings are its own
SHARED = ROOT.parent / "shared"
MINILM = SHARED / "models" / "minilm-l6-reranker"
CRANFIELD = SHARED / "eval" / "cranfield"


@pytest.mark.parametrize("method", ["__init__", "predict", "rank"])
def test_every_public_parameter_is_accepted_with_the_same_default(method):
    theirs = inspect.signature(getattr(sentence_transformers.CrossEncoder, method)).parameters
    ours = inspect.signature(getattr(CrossEncoder, method)).parameters
    for name, parameter in theirs.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:  # what it takes is named in ours
            continue
        assert ours[name].default == parameter.default, name
        assert ours[name].kind == parameter.kind, name
    positional = [name for name, parameter in theirs.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional


@pytest.mark.parametrize("name", FAMILIES)
def test_families_score_as_in_sentence_transformers(name):
    theirs = sentence_transformers.CrossEncoder(str(GOLDENS / name), device="cpu")
    ours = CrossEncoder(GOLDENS / name)
    assert ours.max_seq_length == theirs.max_seq_length
    # Padded there, which changes the order of sums; worst seen 9e-6.
    np.testing.assert_allclose(ours.predict(PAIRS[:60]), theirs.predict(PAIRS[:60]), atol=5e-5)


@pytest.mark.parametrize("name", ["narrow", *FAMILIES])
def test_sentence_transformers_loads_what_numbert_saves(tmp_path, name):
    model = CrossEncoder(GOLDENS / name, prompts={"q": "query: "}, default_prompt_name="q", activation_fn="sigmoid")
    model.save_pretrained(tmp_path)
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    assert theirs.prompts == {"q": "query: "}
    np.testing.assert_allclose(model.predict(PAIRS[:20]), theirs.predict(PAIRS[:20]), atol=2e-5)


@pytest.mark.parametrize("name", ["narrow", "roberta"])
def test_numbert_loads_what_sentence_transformers_saves(tmp_path, name):
    theirs = sentence_transformers.CrossEncoder(str(GOLDENS / name), device="cpu", prompts={"q": "query: "})
    theirs.save_pretrained(str(tmp_path))
    ours = CrossEncoder(tmp_path)
    assert ours.prompts == {"q": "query: "}
    np.testing.assert_allclose(ours.predict(PAIRS[:20]), theirs.predict(PAIRS[:20]), atol=2e-5)


def test_their_evaluator_gives_the_same_metrics():
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    rng = np.random.default_rng(0)
    texts = [passage for _, passage in PAIRS[150:]]
    samples = [
        {"query": PAIRS[i][0] or "q", "positive": [texts[i]], "negative": list(rng.choice(texts, 9))} for i in range(80)
    ]
    theirs = sentence_transformers.CrossEncoder(
        str(ROOT / "loaders/embedded/tiny-reranker"), device="cpu", model_kwargs={"dtype": "float32"}
    )

    def is_decided(sample) -> bool:
        """Whether no two scores are nearer than two right engines may be; theirs differ even for equal passages."""
        scores = theirs.predict([(sample["query"], text) for text in sample["positive"] + sample["negative"]])
        return np.diff(np.sort(scores)).min() > 2e-4

    samples = [sample for sample in samples if is_decided(sample)]
    assert len(samples) >= 20
    evaluator = CrossEncoderRerankingEvaluator(samples, at_k=10, name="pairs", show_progress_bar=False)
    expected, got = evaluator(theirs), evaluator(CrossEncoder())
    assert set(got) == set(expected)
    assert len(got) >= 3
    for name, value in expected.items():
        assert abs(got[name] - value) <= 1e-6, name


def read_lines(name: str) -> list[dict]:
    """Read a file of the collection."""
    return [json.loads(line) for line in (CRANFIELD / name).read_text().splitlines()]


def ndcg_at_10(ranked: list[int], gains: dict[int, float]) -> float:
    """Discounted gain of the first ten, as a share of that of the best order of all judged documents."""
    discounts = 1 / np.log2(np.arange(2, 12))
    found = np.array([gains.get(document, 0.0) for document in ranked[:10]])
    best = np.array(sorted(gains.values(), reverse=True)[:10])
    total = float((best * discounts[: len(best)]).sum())
    return float((found * discounts[: len(found)]).sum()) / total if total else 0.0


@pytest.mark.skipif(
    not (MINILM.is_dir() and CRANFIELD.is_dir()), reason="model and collection are not beside the repository"
)
def test_ranking_quality_equals_that_of_transformers():
    documents = {row["id"]: f"{row['title']}. {row['text']}" for row in read_lines("docs.jsonl")}
    queries = {row["id"]: row["text"] for row in read_lines("queries.jsonl")}
    gains: dict[int, dict[int, float]] = {}
    for row in read_lines("qrels.jsonl"):
        gains.setdefault(row["query"], {})[row["doc"]] = row["gain"]
    runs = read_lines("bm25_top50.jsonl")[:6]  # 120 pairs of 20 candidates: a minute of transformers' time
    theirs = sentence_transformers.CrossEncoder(str(MINILM), device="cpu", model_kwargs={"dtype": "float32"})
    ours = CrossEncoder(MINILM)
    seen = []
    for run in runs:
        candidates = run["docs"][:20]
        query, passages = queries[run["query"]], [documents[document] for document in candidates]
        orders = [[candidates[row["corpus_id"]] for row in model.rank(query, passages)] for model in (ours, theirs)]
        ndcg = [ndcg_at_10(order, gains.get(run["query"], {})) for order in orders]
        assert abs(ndcg[0] - ndcg[1]) <= 1e-6, run["query"]
        seen.append(ndcg[0])
    assert max(seen) > 0.1  # the judgements were found


def test_columns_of_tables_are_collections(model):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    pairs, texts = [["a", "b"], ["c", "d"]], ["Rain.", "Seven people."]
    table = datasets.Dataset.from_dict({"pairs": pairs, "texts": texts})
    expected, ranks = model.predict(pairs), model.rank("people", texts, return_documents=True)
    for given_pairs, given_texts in (
        (table["pairs"], table["texts"]),
        (pandas.Series(pairs), pandas.Series(texts)),
        (pandas.DataFrame(pairs).to_numpy(), np.array(texts)),
    ):
        assert (model.predict(given_pairs) == expected).all()
        assert model.rank("people", given_texts, return_documents=True) == ranks


def test_where_transformers_rebuilds_a_tokenizer_both_behaviours_are_known(tmp_path):
    # tokenizer.json says lower case, tokenizer_config.json does not: numbert takes the first, transformers the second.
    folder = copy_checkpoint("narrow", tmp_path)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(do_lower_case=False))
    text = "THE BRIDGE"
    published = CrossEncoder(folder)._scorer.tokenizer.encode([text])[0]
    rebuilt = transformers.AutoTokenizer.from_pretrained(folder)([text], add_special_tokens=False)["input_ids"][0]
    assert published == CrossEncoder(GOLDENS / "narrow")._scorer.tokenizer.encode([text])[0]
    assert published != rebuilt
