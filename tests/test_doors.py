"""The front doors: what a user imports, without knowing which module defines it."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

import matlib
from matlib.study.store.provenance import PACKAGE, PACKAGE_ROOT

DOORS = sorted(
    ".".join(path.parent.relative_to(PACKAGE_ROOT).parts) for path in PACKAGE.rglob("__init__.pyi")
)


def test_every_part_of_the_library_has_a_door() -> None:
    parts = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"study", "commands"}
    assert parts == {door.split(".")[1] for door in DOORS if "." in door}
    assert parts | {"Threat", "benchmark"} == {*matlib.__all__}


@pytest.mark.parametrize("door", DOORS)
def test_every_name_of_a_door_is_there_and_completes(door: str) -> None:
    module = importlib.import_module(door)
    assert module.__all__ and dir(module) == sorted(module.__all__)
    for name in module.__all__:
        getattr(module, name)


@pytest.mark.parametrize("door", DOORS)
def test_no_name_of_a_door_is_that_of_a_module(door: str) -> None:
    """Importing the module would put it in the name's place; folders are doors themselves."""
    names = {*importlib.import_module(door).__all__}
    folder = PACKAGE_ROOT.joinpath(*door.split("."))
    assert not names & {path.stem for path in folder.glob("*.py")}
    assert names & {path.name for path in folder.iterdir() if path.is_dir()} == {
        each.rpartition(".")[2] for each in DOORS if each.rpartition(".")[0] == door
    }


@pytest.mark.parametrize("door", DOORS)
def test_what_a_door_says_of_itself_is_behind_it(door: str) -> None:
    """Every name of code in its text, there or, with its whole path, behind another door."""
    module = importlib.import_module(door)
    for name in re.findall(r"`([A-Za-z_][\w.]*)[`(]", module.__doc__ or ""):
        first, *rest = name.removeprefix("matlib.").split(".")
        found = getattr(matlib if name != first else module, first, None)
        for each in rest:
            found = getattr(found, each)
        assert found is not None, f"{door}: {name}"


def test_opening_the_doors_loads_nothing_behind_them() -> None:
    code = f"import sys, {', '.join(DOORS)}; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def shown_code() -> Iterator[tuple[str, str]]:
    """(place, code) of all that a reader may copy."""
    for page in (PACKAGE_ROOT / "README.md", *(PACKAGE_ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        yield from ((page.name, code) for code in re.findall(r"```python\n(.*?)```", text, re.S))
    for path in sorted((PACKAGE_ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield path.name, "".join(cell["source"])


def test_what_is_shown_imports_the_library_through_its_doors() -> None:
    parts = tuple(f"matlib.{part}." for part in matlib.__all__)
    found = [
        (place, node.module)
        for place, code in shown_code()
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(parts)
    ]
    assert found and {module for _, module in found} <= {*DOORS}, found
