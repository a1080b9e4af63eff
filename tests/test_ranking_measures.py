"""The measures of benchmarks/accuracy.py against values that were computed by hand."""

import importlib.util
import math

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location("ranking", ROOT / "benchmarks" / "ranking.py")
ranking = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ranking)


def test_ndcg_of_three_documents():
    # 0/1 + 3/log2(3) + 1/2 against the best, 3/1 + 1/log2(3)
    found = ranking.ndcg(["x", "a", "b"], {"a": 3, "b": 1})
    assert found == pytest.approx((3 / math.log2(3) + 0.5) / (3 + 1 / math.log2(3)))
    assert found == pytest.approx(0.6590018)


def test_ndcg_counts_only_the_first_places():
    assert ranking.ndcg(["x", "a"], {"a": 1}, depth=1) == 0


def test_ndcg_divides_by_judged_documents_that_were_not_ranked_too():
    assert ranking.ndcg(["a"], {"a": 1, "missed": 1}) == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_ndcg_of_the_best_ranking_is_one_and_without_relevant_documents_zero():
    assert ranking.ndcg(["a", "b", "x"], {"a": 3, "b": 1}) == 1
    assert ranking.ndcg(["a"], {"a": 0}) == 0
    assert ranking.ndcg(["a"], {}) == 0


def test_kendall_tau():
    assert ranking.kendall_tau([1, 2, 3], [10, 20, 30]) == 1
    assert ranking.kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert ranking.kendall_tau([1, 2, 3], [2, 1, 3]) == pytest.approx(1 / 3)  # two pairs agree, one does not


def test_kendall_tau_with_ties():
    # a ties one of three pairs; the other two agree: 2 / sqrt(2 * 3)
    assert ranking.kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))
    assert math.isnan(ranking.kendall_tau([1, 1, 1], [1, 2, 3]))
