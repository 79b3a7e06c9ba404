"""A notebook of the right anatomy, small enough to run in a test."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'profile: str = "demo"  # which study\nlimit: int = 0  # at most so many; 0 means all'


def toy_notebook(
    *steps: str, parameters: str = PARAMETERS, last: str = "print(profile, 0.5)"
) -> NotebookNode:
    """Title, parameters, `steps`, a checked last cell."""
    notebook = new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        }
    )
    notebook.cells = [
        new_markdown_cell("# A toy\nDoes it run?", id="title"),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        *[new_code_cell(step, id=f"step-{i}") for i, step in enumerate(steps)],
        new_code_cell(last, id="last", metadata={"tags": ["nbval-check-output"]}),
    ]
    return notebook


def write_notebook(path: Path, notebook: NotebookNode) -> Path:
    """Save `notebook` and give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
