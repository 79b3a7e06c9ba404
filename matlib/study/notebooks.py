"""The strict notebook runner: papermill, without what papermill lets pass.

Every notebook is checked before the first kernel starts. While one runs, the person who waits
sees which notebook it is, how far its longest step has come, and about how long still.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from matlib.progress import MARK
from matlib.study.anatomy import NotebookError, check_anatomy, check_parameters, code_cells, has_tag
from matlib.study.environment import environment

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class ExecutedNotebook:
    """One notebook that ran to its end: where it came from, the executed copy, seconds taken."""

    source: Path
    executed: Path
    seconds: float


def find_notebooks(folder: Path) -> list[Path]:
    """The study's notebooks (`00_data.ipynb` ...), in order.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise FileNotFoundError(f"no notebook (00_name.ipynb) in {folder}")
    return found


def run_notebooks(
    sources: Sequence[Path],
    out_folder: Path,
    parameters: Mapping[str, Any],
    *,
    cell_timeout_seconds: int | None = None,
    say: Callable[[str], None] = print,
) -> list[ExecutedNotebook]:
    """Check all notebooks, then execute them one after the other.

    Each starts in the folder of its source, as in JupyterLab. An executed copy appears in
    `out_folder` when its notebook has run to the end; a failed one is `<name>.failed.ipynb`.

    Args:
        sources: notebooks, in order.
        out_folder: made if missing.
        parameters: the same for every notebook; JSON types.
        cell_timeout_seconds: longest time for one cell; None means no limit.
        say: receives the lines for the person who waits.

    Raises:
        NotebookError: a notebook is not fit to run (before any kernel starts), or fails.
    """
    refuse_unfit(sources, parameters)
    out_folder.mkdir(parents=True, exist_ok=True)
    done: list[ExecutedNotebook] = []
    for position, source in enumerate(sources, start=1):
        say(f"[{position}/{len(sources)}] {source.stem}")
        started = time.monotonic()
        executed = _run_one(source, out_folder, dict(parameters), cell_timeout_seconds, say)
        done.append(ExecutedNotebook(source, executed, time.monotonic() - started))
        say(f"[{position}/{len(sources)}] {source.stem}: {done[-1].seconds:.0f} s")
    return done


def refuse_unfit(sources: Sequence[Path], parameters: Mapping[str, Any]) -> None:
    """Raise NotebookError with every fault of every notebook, if there is any."""
    faults = [
        f"{source.name}: {fault}"
        for source in sources
        for fault in [*check_anatomy(source), *check_parameters(source, parameters)]
    ]
    if faults:
        raise NotebookError("notebooks not fit to run:\n  " + "\n  ".join(faults))


def _run_one(
    source: Path,
    out_folder: Path,
    parameters: dict[str, Any],
    cell_timeout_seconds: int | None,
    say: Callable[[str], None],
) -> Path:
    running = out_folder / f".{source.stem}.running.ipynb"
    failed = out_folder / f"{source.stem}.failed.ipynb"
    final = out_folder / source.name
    failed.unlink(missing_ok=True)
    try:
        with environment(MATLIB_PROGRESS="log"):
            notebook = papermill.execute_notebook(
                source,
                running.resolve(),
                parameters,
                kernel_name="python3",
                cwd=source.parent.resolve(),
                progress_bar=False,
                stdout_file=_MarkedLines(say),
                autosave_cell_every=30,
                execution_timeout=cell_timeout_seconds,
                coalesce_streams=True,
                store_widget_state=False,
                # Kernels warn about their transport at every start; errors still show.
                extra_arguments=["--log-level=ERROR"],
            )
        _refuse_unfinished(notebook)
    except (
        papermill.PapermillExecutionError,
        DeadKernelError,
        CellTimeoutError,
        NotebookError,
    ) as error:
        if running.exists():
            running.replace(failed)
        raise NotebookError(
            f"{source.name} failed: {_in_words(error)}\n"
            f"What ran is in {failed}; mend the cause and run the same command again: "
            "what is finished is kept"
        ) from error
    running.replace(final)
    return final


def _refuse_unfinished(notebook: NotebookNode) -> None:
    """papermill takes `sys.exit(0)` for success, with the rest of the notebook not executed."""
    for position, cell in code_cells(notebook):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            raise NotebookError(f"cell {position} ended with {errors[0].ename}")
        if cell.execution_count is None and not has_tag(cell, "skip-execution"):
            raise NotebookError(f"cell {position} was not executed")


def _in_words(error: Exception) -> str:
    if isinstance(error, papermill.PapermillExecutionError):
        last = ANSI.sub("", "\n".join(error.traceback)).strip().splitlines()[-12:]
        return "\n".join([f"{error.ename} in this cell:", error.source.strip(), "", *last])
    if isinstance(error, DeadKernelError):
        return "its kernel died, most often because the memory was used up"
    if isinstance(error, CellTimeoutError):
        return f"a cell took longer than allowed ({str(error).splitlines()[0]})"
    return str(error)


class _MarkedLines:
    """A file for the notebook's output that hands on the lines meant for a person."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def write(self, text: str) -> None:
        for line in text.splitlines():
            if line.startswith(MARK):
                self._say("    " + line.removeprefix(MARK))

    def flush(self) -> None:
        """Nothing is held back."""
