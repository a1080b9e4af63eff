"""The rules of the house, read from the sources: floors, packages, entrances."""

import ast
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

# From the top; a module may import from its own floor and from those below it.
FLOORS = {"engine": {"engine", "loaders", "kernels"}, "loaders": {"loaders"}, "kernels": {"kernels"}}
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def relative_imports(path: Path) -> list[tuple[str, ...]]:
    """The modules that a file imports from this package, as paths from the root: ("loaders", "errors")."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = base + tuple((node.module or "").split(".") if node.module else ())
            found += [module] if node.module else []
            found += [(*module, alias.name) for alias in node.names]  # modules, or names inside one
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_import_never_runs_up_a_floor(path):
    floor = path.relative_to(ROOT).parts[0]
    assert {module[0] for module in relative_imports(path) if module} - FLOORS[floor] <= {"__version__"}


def test_imports_form_no_circle():
    graph = {path.relative_to(ROOT).with_suffix("").parts: set(relative_imports(path)) for path in SOURCES}
    done: set[tuple[str, ...]] = set()

    def visit(name: tuple[str, ...], trail: tuple[tuple[str, ...], ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join('/'.join(step) for step in (*trail, name))}"
        if name not in done:
            for module in graph.get(name, ()):
                visit(module, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_backends_do_not_import_each_other():
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        if parts[0] == "kernels" and len(parts) == 3:
            others = {"reference", "cpu", "cuda"} - {parts[1]}
            assert not [module for module in relative_imports(path) if set(module) & others], path


def test_no_absolute_import_of_ourselves():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").split(".")[0] not in {"numbert", *FLOORS}, path


def test_packages_are_the_folders_that_exist():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    expected = {"numbert"} | {".".join(("numbert", *folder.parts)) for folder in folders}
    assert set(settings["packages"]) == expected
    assert settings["package-dir"] == {"numbert": "."}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=lambda p: p.parent.name)
def test_inner_init_files_hold_a_docstring_and_nothing_else(path):
    # With the root on sys.path they can be imported as top-level packages, by accident: nothing may happen then.
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


def test_there_is_no_conftest_at_the_root():
    assert not (ROOT / "conftest.py").exists()


def test_run_time_dependencies_are_exactly_four():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {dependency.partition(">=")[0] for dependency in dependencies}
    assert names == {"numpy", "numba", "tokenizers", "huggingface_hub"}
    assert all(">=" in dependency for dependency in dependencies)


def test_functions_of_the_cpu_kernels_have_eight_parameters_at_most():
    found = {}
    for path in (ROOT / "kernels" / "cpu").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                parameters = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                found[getattr(node, "name", f"{path.name}:{node.lineno}")] = len(parameters)
    assert {name for name, count in found.items() if count > 8} == set()
