"""Copy the outputs of executed notebooks into the sources that are read on the web."""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from matlib.files import write_durably
from matlib.progress import MARK
from matlib.study.publish.notebooks import NotebookError, code_cells, read_notebook
from matlib.study.store.provenance import PACKAGE_ROOT

MAX_BYTES = 400_000
"""A committed notebook is at most this large, so that it opens anywhere."""

MACHINE_PATHS = re.compile(
    r"ipykernel_\d+|/site-packages/|/(?:home|Users|root|tmp|var/folders)/|[A-Za-z]:\\\\?Users"
)


def publish_outputs(executed: Path, source: Path) -> None:
    """Give the cells of `source` the outputs of its executed copy, cell by cell.

    Injected cells, papermill's metadata and progress lines stay behind; executions are counted
    from 1. The source is replaced whole or left as it is.

    Raises:
        NotebookError: the copy was executed from other cells; an output shows a path of
            this machine; the result is larger than 400 kB.
    """
    target = read_notebook(source)
    ran = {cell.id: cell for cell in read_notebook(executed).cells}
    for n_run, (position, cell) in enumerate(code_cells(target), start=1):
        twin = ran.get(cell.id)
        if twin is None or twin.source != cell.source:
            raise NotebookError(
                f"{source.name}, cell {position}: the executed copy was made from another "
                "version of this notebook; run the study again"
            )
        cell.outputs = _without_progress(twin.outputs)
        cell.execution_count = n_run
        _count(cell.outputs, n_run)
    target.metadata.language_info = {"name": "python"}
    target.metadata.pop("papermill", None)
    target.metadata.pop("widgets", None)
    faults = check_published(target)
    if faults:
        raise NotebookError("\n".join(f"{source.name}: {fault}" for fault in faults))
    write_durably(source, nbformat.writes(target) + "\n")


def check_published(notebook: NotebookNode) -> list[str]:
    """What is wrong with a notebook that is to be read on the web; empty when nothing is."""
    faults = []
    for position, cell in code_cells(notebook):
        if cell.execution_count is None:
            faults.append(f"cell {position} was not executed")
        shown = next(filter(None, map(_machine_path, _texts(cell.outputs))), None)
        if shown is not None:
            faults.append(
                f"cell {position}: its output shows a path of this machine ({shown}); "
                "print relative paths, and mend what warns"
            )
    n_bytes = len(nbformat.writes(notebook).encode())
    if n_bytes > MAX_BYTES:
        faults.append(
            f"{n_bytes / 1000:.0f} kB with its outputs; at most {MAX_BYTES / 1000:.0f} kB are "
            "expected: make its figures smaller or fewer"
        )
    return faults


def without_progress(notebook: NotebookNode) -> NotebookNode:
    """A copy whose outputs lack the lines that were for the person who waited."""
    copied = copy.deepcopy(notebook)
    for _, cell in code_cells(copied):
        cell.outputs = _without_progress(cell.outputs)
    return copied


def _without_progress(outputs: list[NotebookNode]) -> list[NotebookNode]:
    kept = []
    for output in copy.deepcopy(outputs):
        if output.output_type == "stream":
            lines = output.text.splitlines(keepends=True)
            output.text = "".join(line for line in lines if not line.startswith(MARK))
            if not output.text:
                continue
        kept.append(output)
    return kept


def _count(outputs: list[NotebookNode], n_run: int) -> None:
    for output in outputs:
        if output.output_type == "execute_result":
            output.execution_count = n_run


def _machine_path(text: str) -> str | None:
    """The first path of this machine in `text`."""
    found = MACHINE_PATHS.search(text)
    if found:
        return found.group()
    own = {str(PACKAGE_ROOT), str(Path.home()), tempfile.gettempdir()} - {"/"}
    return next((path for path in sorted(own) if path in text), None)


def _texts(outputs: list[NotebookNode]) -> Iterator[str]:
    """Everything in the outputs that is text; pixels in base64 are not."""
    for output in outputs:
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield from output.traceback
        else:
            for kind, data in output.data.items():
                if not kind.startswith("image/") or kind == "image/svg+xml":
                    yield data if isinstance(data, str) else json.dumps(data)
