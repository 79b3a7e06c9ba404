"""The order of the house: one place for each name, imports that point one way, short files."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

from matlib.study.identity.definitions import Package
from matlib.study.store.provenance import PACKAGE, PACKAGE_ROOT

HOUSE = Package(PACKAGE)
DOORS = {path.parent for path in PACKAGE.rglob("__init__.pyi")}
MOST_LINES = 520


def test_lower_layers_never_import_higher_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """The contract in pyproject.toml: above all, the library never imports the study."""
    status = lint_imports(config_filename=str(PACKAGE_ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_no_circle_of_imports() -> None:
    """Imports inside functions and for type checkers are arrows like others."""
    graph = grimp.build_graph("matlib", cache_dir=None)
    arrows = {each: graph.find_modules_directly_imported_by(each) for each in graph.modules}
    assert len(list(TopologicalSorter(arrows).static_order())) == len(HOUSE.modules)


def test_a_public_name_is_defined_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module in HOUSE.modules.values():
        for name in module.definitions:
            if not name.startswith("_"):
                places[name].append(module.name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every `from matlib… import name`, wherever it stands in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            stem = node.module or ""
            assert node.level == 0, f"{path}: write the whole path of {stem}"
            if stem.partition(".")[0] == "matlib":
                yield from ((stem, alias.name) for alias in node.names)


@pytest.mark.parametrize("folder", ["matlib", "benchmarks", "tests"])
def test_a_name_is_imported_from_the_module_that_defines_it(folder: str) -> None:
    """Or, but not by the package itself, through a front door: what an artefact's code reaches is
    read from the text, which says nothing about doors."""
    through = []
    for path in sorted((PACKAGE_ROOT / folder).rglob("*.py")):
        for stem, name in imported(path):
            is_door = PACKAGE_ROOT.joinpath(*stem.split(".")) in DOORS
            if f"{stem}.{name}" in HOUSE.modules or (is_door and folder != "matlib"):
                continue
            if name not in HOUSE.modules[stem].definitions:
                through.append(f"{path.relative_to(PACKAGE_ROOT)}: {name} through {stem}")
    assert through == []


def test_a_file_is_one_subject_of_a_readable_length() -> None:
    long = {
        path: n
        for path in sorted(PACKAGE.rglob("*.py"))
        if (n := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}
