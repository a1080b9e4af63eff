"""README and docs say what is true: examples run, files exist. (.ci/run executes README's commands as they stand.)"""

import importlib.util
import re
import tomllib

import numbert
import numpy as np
import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_python_examples_run(capsys):
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert np.asarray(names["scores"]).dtype == np.float32
    assert names["ranks"][0]["corpus_id"] == 0
    assert "3,520,031" in capsys.readouterr().out


def test_readme_has_two_set_up_commands_one_for_the_job_and_one_for_the_tests():
    (commands,) = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line for line in commands.splitlines() if line and not line.startswith("#")]
    assert len(lines) == 4
    assert "numbert rank" in lines[2]
    assert "pytest" in lines[3]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_sources_exist(page):
    for name in re.findall(r"`((?:engine|kernels|loaders|tests|benchmarks|docs)/[\w./-]+)`", page.read_text("utf-8")):
        assert (ROOT / name).exists(), name


def test_the_reading_order_says_how_long_it_is():
    text = (ROOT / "docs" / "reading-order.md").read_text("utf-8")
    steps = "".join(re.findall(r"^\d\. .*?(?=^\d\. |\n\n)", text, re.DOTALL | re.MULTILINE))
    names = set(re.findall(r"`((?:engine|kernels)/[\w./]+)`", steps))
    assert len(names) > 15
    lines = sum(len((ROOT / name).read_text("utf-8").splitlines()) for name in names)
    stated = int(re.search(r"about ([\d,]+) lines", text)[1].replace(",", ""))
    assert abs(stated - lines) <= 0.05 * lines, f"{lines} lines"  # "about" is meant to two digits


def test_what_there_is_no_release_of_is_not_installed_by_its_name():
    # As long as numbert has no release, `pip install numbert` would install what somebody else publishes under it.
    released = re.search(r"^## \d", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released or not re.search(r"pip install '?numbert", README)


def test_readme_names_every_command():
    from numbert.engine.tools.cli import make_parser

    commands = next(action for action in make_parser()._actions if action.choices).choices
    block = README.partition("## Command line")[2]
    assert set(re.findall(r"^    numbert (\w+)", block, re.MULTILINE)) == set(commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_what_the_committed_results_make(page):
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = page.read_text("utf-8")
    assert text.count("<!-- table: ") == len(tables.MARKED.findall(text)) == text.count("<!-- end -->")
    assert tables.with_tables(text) == text, "run python benchmarks/tables.py"


def test_changelog_knows_the_version():
    assert re.search(rf"^## (Unreleased|{re.escape(numbert.__version__)})", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_licenses_are_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0 AND CC-BY-SA-4.0"
    assert "CC BY-SA 4.0" in README
    assert "Apache" in (ROOT / "LICENSE").read_text()
    assert all((ROOT / path).exists() for path in project["license-files"])
