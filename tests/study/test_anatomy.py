"""Every fault of a notebook is found before a kernel starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from matlib.study.publish.notebooks import (
    NotebookError,
    check_anatomy,
    check_parameters,
    declared_parameters,
    read_notebook,
)
from tests.study.toy_notebooks import toy_notebook, write_notebook


def test_a_sound_notebook_has_no_faults(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "a.ipynb", toy_notebook("import math", "print(math.pi)"))
    assert check_anatomy(path) == []
    assert declared_parameters(read_notebook(path)) == {"profile": "str", "limit": "int"}


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("def helper(): pass", "cell 3 defines helper"),
        ("class Model: pass", "cell 3 defines Model"),
        ("print(nosuch)", "cell 3, line 1: undefined name 'nosuch'"),
        ("import os", "cell 3, line 1: 'os' imported but unused"),
        ("if True print(1)", "cell 3 is not Python"),
        ("\n".join(["print(1)"] * 26), "cell 3 has 26 lines; at most 25"),
        ("import sys\nsys.exit(0)", "cell 3 leaves the notebook early"),
    ],
)
def test_a_fault_in_a_cell_is_named_with_its_place(tmp_path: Path, step: str, fault: str) -> None:
    path = write_notebook(tmp_path / "a.ipynb", toy_notebook(step))
    assert any(fault in found for found in check_anatomy(path)), check_anatomy(path)


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ("eps: float = 8 / 255  # radius", "name: type = literal"),
        ("profile = 'demo'  # which", "name: type = literal"),
        ("eps: float = 8.0  # eps=8", "parameter eps: a comment"),
        ("eps: float = 8.0", "parameter eps: a comment"),
        ("eps: float | None = 8.0  # radius", "parameter eps: a comment"),
    ],
)
def test_a_parameter_that_papermill_would_miss_is_refused(
    tmp_path: Path, parameters: str, fault: str
) -> None:
    path = write_notebook(tmp_path / "a.ipynb", toy_notebook(parameters=parameters, last="print()"))
    assert any(fault in found for found in check_anatomy(path)), check_anatomy(path)


def test_parameters_must_be_tagged_once_and_come_first(tmp_path: Path) -> None:
    notebook = toy_notebook("print(1)")
    notebook.cells[1].metadata.tags = []
    path = write_notebook(tmp_path / "a.ipynb", notebook)
    assert "exactly one code cell tagged `parameters` is expected, got 0" in check_anatomy(path)
    notebook.cells[2].metadata.tags = ["parameters"]
    path = write_notebook(tmp_path / "a.ipynb", notebook)
    assert any("to be the first code cell" in fault for fault in check_anatomy(path))


def test_title_question_kernel_and_checked_end_are_asked_for(tmp_path: Path) -> None:
    notebook = toy_notebook()
    notebook.cells[0].source = "# A toy"
    notebook.cells[-1].metadata.tags = []
    notebook.metadata.kernelspec.name = "my-env"
    faults = " / ".join(check_anatomy(write_notebook(tmp_path / "a.ipynb", notebook)))
    assert "question" in faults and "nbval-check-output" in faults and "my-env" in faults


def test_passed_values_are_checked_by_name_and_type(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "a.ipynb", toy_notebook())
    assert check_parameters(path, {"profile": "smoke", "limit": 3}) == []
    assert check_parameters(path, {"nosuch": 1}) == [
        "unknown parameter 'nosuch'; it has profile, limit"
    ]
    assert check_parameters(path, {"limit": "3"}) == ["parameter limit: int is expected, got '3'"]
    assert len(check_parameters(path, {"limit": True})) == 1


@pytest.mark.parametrize("text", ["", "{}", "not json"])
def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(NotebookError, match=r"a\.ipynb"):
        check_anatomy(tmp_path / "a.ipynb")
