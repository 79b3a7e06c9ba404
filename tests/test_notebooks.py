"""Every notebook runs at toy size, runs again, and gives the same numbers.

papermill executes the sources; nbval then executes the copies once more and compares the cells
tagged `nbval-check-output`. nbval compares nothing in a cell without an execution count, so the
copies are looked at first.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matlib.study.publish.notebooks import (
    CHECKED,
    ExecutedNotebook,
    check_anatomy,
    code_cells,
    find_notebooks,
    has_tag,
    read_notebook,
    run_notebooks,
)
from matlib.study.publish.published import check_published

ROOT = Path(__file__).resolve().parent.parent
SOURCES = find_notebooks(ROOT / "notebooks")

each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results root that every notebook of the smoke profile shares."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def executed(results: Path) -> list[ExecutedNotebook]:
    """All notebooks, in order, at toy size, each thing computed once."""
    return run_notebooks(
        SOURCES,
        results / "smoke" / "notebooks",
        {"profile": "smoke", "results": str(results)},
        cell_timeout_seconds=300,
    )


@each_notebook
def test_notebook_has_the_anatomy_of_the_study(source: Path) -> None:
    assert check_anatomy(source) == []


@each_notebook
def test_no_cell_chooses_between_a_result_and_nothing(source: Path) -> None:
    """Tables and figures know themselves what to show where there is nothing."""
    for _, cell in code_cells(read_notebook(source)):
        tree = ast.parse(cell.source)
        choices = [node for node in ast.walk(tree) if isinstance(node, ast.IfExp)]
        assert not [each for each in choices if ast.unparse(each.orelse) == "None"], cell.id
        last = tree.body[-1]
        assert not (isinstance(last, ast.Expr) and last.value in choices), cell.id


@each_notebook
def test_committed_notebook_carries_outputs_and_names_no_machine(source: Path) -> None:
    assert check_published(read_notebook(source)) == []


def test_executed_copies_have_counts_and_something_to_compare(
    executed: list[ExecutedNotebook],
) -> None:
    for run in executed:
        cells = [cell for _, cell in code_cells(read_notebook(run.executed))]
        assert all(cell.execution_count for cell in cells if not has_tag(cell, "skip-execution"))
        checked = [cell for cell in cells if has_tag(cell, CHECKED)]
        assert checked and all(cell.outputs for cell in checked), run.executed.name


def test_executed_copies_run_again_with_the_same_numbers(
    executed: list[ExecutedNotebook], results: Path
) -> None:
    before = _artefacts(results)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "tests.conftest",
                "-p",
                "no:cacheprovider",
            ),
            *("--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "300"),
            *("--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg")),
            *(str(run.executed) for run in executed),
        ],
        cwd=ROOT,
        env={**os.environ, "MATLIB_PROGRESS": "log"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert _artefacts(results) == before, "the second run computed something anew"


def _artefacts(results: Path) -> dict[str, int]:
    """Every artefact and the time (ns) of its provenance."""
    found = results.glob("*/runs/*/provenance.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}
