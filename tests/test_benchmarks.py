"""The arithmetic of the benchmarks against numbers worked out by hand."""

import importlib.util
import sys

import pytest
from conftest import ROOT


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


def test_a_section_is_replaced_and_nothing_else():
    insert = load("insert")
    page = "before\n<!-- t -->\nold\n<!-- end of t -->\nafter\n"
    assert insert.replace_section(page, "t", "new\n") == "before\n<!-- t -->\n\nnew\n\n<!-- end of t -->\nafter\n"
    with pytest.raises(ValueError, match="found 0 times '<!-- u -->'"):
        insert.replace_section(page, "u", "new")
