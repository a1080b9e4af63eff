"""The arithmetic of the benchmarks against numbers worked out by hand."""

import importlib.util
import math
import sys

import numpy as np
import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def accuracy():
    return load("accuracy")


def load(name: str):
    """Import a benchmark, which is a script beside the others."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def test_kendall_tau(accuracy):
    assert accuracy.kendall_tau(np.array([1, 2, 3, 4]), np.array([10, 20, 30, 40])) == 1
    assert accuracy.kendall_tau(np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])) == -1
    # Of the six pairs, only that of the last two is in another order: (5 - 1) / 6.
    assert accuracy.kendall_tau(np.array([1, 2, 3, 4]), np.array([1, 2, 4, 3])) == pytest.approx(4 / 6)


def test_ndcg(accuracy):
    ideal = 3 + 2 / math.log2(3)
    run = accuracy.Run("q", ["a", "b", "c"], [0, 2, 3], ideal)
    assert accuracy.mean_ndcg([run], np.array([0.1, 0.2, 0.3])) == pytest.approx(1)
    # Order a, c, b: gains 0, 3, 2.
    expected = (3 / math.log2(3) + 2 / 2) / ideal
    assert accuracy.mean_ndcg([run], np.array([0.9, 0.2, 0.3])) == pytest.approx(expected)


def test_only_the_first_ten_places_count(accuracy):
    assert accuracy.dcg([0] * 10 + [5]) == 0


def test_a_section_is_replaced_and_nothing_else():
    insert = load("insert")
    page = "before\n<!-- t -->\nold\n<!-- end of t -->\nafter\n"
    assert insert.replace_section(page, "t", "new\n") == "before\n<!-- t -->\n\nnew\n\n<!-- end of t -->\nafter\n"
    with pytest.raises(ValueError, match="found 0 times '<!-- u -->'"):
        insert.replace_section(page, "u", "new")
