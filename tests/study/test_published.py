"""Outputs go into the sources; machines, injected cells and progress stay behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from matlib.study.publish.notebooks import NotebookError, read_notebook
from matlib.study.publish.published import publish_outputs
from tests.study.toy_notebooks import toy_notebook, write_notebook


def _executed(*outputs: NotebookNode) -> NotebookNode:
    """A copy as papermill leaves it: an injected cell, metadata with paths, counts from 1."""
    notebook = toy_notebook("table")
    notebook.metadata["papermill"] = {"input_path": "/home/me/x.ipynb"}
    injected = new_code_cell("profile = 'demo'", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    for count, cell in enumerate(notebook.cells[1:], start=1):
        cell.execution_count = count
        cell.metadata["papermill"] = {"duration": 1.0}
    notebook.cells[3].outputs = list(outputs)
    return notebook


def _stream(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def test_outputs_are_copied_without_injected_cells_and_metadata(tmp_path: Path) -> None:
    table = new_output("execute_result", {"text/html": "<table/>"}, execution_count=3)
    executed = write_notebook(tmp_path / "out/a.ipynb", _executed(table))
    source = write_notebook(tmp_path / "a.ipynb", toy_notebook("table"))
    publish_outputs(executed, source)
    published = read_notebook(source)
    assert [cell.id for cell in published.cells] == ["title", "parameters", "step-0", "last"]
    assert [cell.execution_count for cell in published.cells[1:]] == [1, 2, 3]
    assert published.cells[2].outputs[0].data == {"text/html": "<table/>"}
    assert published.cells[2].outputs[0].execution_count == 2
    assert "papermill" not in source.read_text() and "/home" not in source.read_text()


def test_publishing_twice_changes_nothing(tmp_path: Path) -> None:
    executed = write_notebook(tmp_path / "out/a.ipynb", _executed(_stream("0.5\n")))
    source = write_notebook(tmp_path / "a.ipynb", toy_notebook("table"))
    publish_outputs(executed, source)
    first = source.read_bytes()
    publish_outputs(executed, source)
    assert source.read_bytes() == first


def test_progress_lines_stay_behind(tmp_path: Path) -> None:
    outputs = [_stream("· train: 1/2\nrecall 0.5\n· train: 2/2\n"), _stream("· done\n")]
    executed = write_notebook(tmp_path / "out/a.ipynb", _executed(*outputs))
    source = write_notebook(tmp_path / "a.ipynb", toy_notebook("table"))
    publish_outputs(executed, source)
    assert [out.text for out in read_notebook(source).cells[2].outputs] == ["recall 0.5\n"]


@pytest.mark.parametrize(
    "output",
    [
        _stream("saved to /home/someone/results\n"),
        _stream(f"saved to {Path.home()}/results\n"),
        _stream("/tmp/ipykernel_123/45.py:1: FutureWarning\n"),
        new_output("display_data", {"text/html": "<a href='/Users/me/x'>"}),
        new_output("display_data", {"image/svg+xml": "<svg>/root/x</svg>"}),
        new_output("display_data", {"application/json": {"path": "C:\\Users\\me"}}),
    ],
)
def test_a_path_of_this_machine_is_refused_and_the_source_is_left_alone(
    tmp_path: Path, output: NotebookNode
) -> None:
    executed = write_notebook(tmp_path / "out/a.ipynb", _executed(output))
    source = write_notebook(tmp_path / "a.ipynb", toy_notebook("table"))
    before = source.read_bytes()
    with pytest.raises(NotebookError, match="cell 3: its output shows a path"):
        publish_outputs(executed, source)
    assert source.read_bytes() == before


def test_pixels_are_not_searched_for_paths(tmp_path: Path) -> None:
    picture = new_output("display_data", {"image/png": "iVBOR/tmp/AAAA", "text/plain": "<Figure>"})
    executed = write_notebook(tmp_path / "out/a.ipynb", _executed(picture))
    source = write_notebook(tmp_path / "a.ipynb", toy_notebook("table"))
    publish_outputs(executed, source)
    assert "iVBOR/tmp/AAAA" in source.read_text()


def test_outputs_of_another_version_of_the_notebook_are_refused(tmp_path: Path) -> None:
    executed = write_notebook(tmp_path / "out/a.ipynb", _executed())
    source = write_notebook(tmp_path / "a.ipynb", toy_notebook("another table"))
    with pytest.raises(NotebookError, match="another version"):
        publish_outputs(executed, source)


def test_a_notebook_that_grows_too_large_is_refused(tmp_path: Path) -> None:
    picture = new_output("display_data", {"image/png": "A" * 400_000})
    executed = write_notebook(tmp_path / "out/a.ipynb", _executed(picture))
    source = write_notebook(tmp_path / "a.ipynb", toy_notebook("table"))
    with pytest.raises(NotebookError, match="smaller"):
        publish_outputs(executed, source)
