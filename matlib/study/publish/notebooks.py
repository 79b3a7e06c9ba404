"""The strict notebook runner: papermill, without what papermill lets pass.

Every notebook is checked before the first kernel starts. While one runs, the person who waits
sees which notebook it is, how far its longest step has come, and about how long still.

What a notebook of the study must look like, checked before a kernel starts.

papermill only warns about an unknown parameter, and injects values above the defaults when the
`parameters` tag is missing, so that the defaults win. Both are refused here.

What surrounds a study's processes: their variables, threads, and the arithmetic of libraries.
"""

from __future__ import annotations

import ast
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.inspection import inspect_notebook
from pyflakes.checker import Checker

from matlib.progress import MARK
from matlib.study.arithmetic import ONE_THREAD, environment
from matlib.study.store.provenance import PACKAGE_ROOT

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
    at_once: int = 1,
    say: Callable[[str], None] = print,
) -> list[ExecutedNotebook]:
    """Check all notebooks, then execute them in order, some of them side by side.

    Each starts in the folder of its source, as in JupyterLab, with the package that runs it,
    wherever another one is installed. An executed copy appears in
    `out_folder` when its notebook has run to the end; a failed one is `<name>.failed.ipynb`.

    Args:
        sources: notebooks, in order.
        out_folder: made if missing.
        parameters: the same for every notebook; JSON types.
        cell_timeout_seconds: longest time for one cell; None means no limit.
        at_once: notebooks that run at the same time, each in a kernel of its own.
        say: receives the lines for the person who waits.

    Raises:
        NotebookError: a notebook is not fit to run (before any kernel starts), or fails.
    """
    refuse_unfit(sources, parameters)
    out_folder.mkdir(parents=True, exist_ok=True)
    n = len(sources)

    def run(position: int, source: Path) -> ExecutedNotebook:
        name = f"[{position}/{n}] {source.stem}"
        say(name)
        started = time.monotonic()
        inner = say if at_once == 1 else lambda line: say(f"{line.rstrip()} ({source.stem})")
        executed = _run_one(source, out_folder, dict(parameters), cell_timeout_seconds, inner)
        done = ExecutedNotebook(source, executed, time.monotonic() - started)
        say(f"{name}: {done.seconds:.0f} s")
        return done

    def apart(position: int, source: Path) -> ExecutedNotebook:
        try:
            return run(position, source)
        finally:  # nbclient leaves the loop of this thread open
            ensure_event_loop().close()

    threads = ONE_THREAD if at_once > 1 else {}
    with environment(MATLIB_PROGRESS="log", PYTHONPATH=this_package_first(), **threads):
        if at_once == 1:
            return [run(i, source) for i, source in enumerate(sources, start=1)]
        with ThreadPoolExecutor(at_once) as pool:  # a thread waits for its kernel
            running = [pool.submit(apart, i, each) for i, each in enumerate(sources, start=1)]
            try:
                return [each.result() for each in running]
            finally:  # after a failure no further one begins
                pool.shutdown(cancel_futures=True)


def this_package_first() -> str:
    """`PYTHONPATH` by which a new process imports the package that this one did."""
    return os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))


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
        notebook = papermill.execute_notebook(
            source,
            running.resolve(),
            parameters,
            kernel_name="python3",
            # not `cwd=`: papermill moves the whole process there, and two threads race
            resources={"metadata": {"path": str(source.parent.resolve())}},
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


MAX_CELL_LINES = 25

CHECKED = "nbval-check-output"
"""Tag of the cells whose output is compared when a notebook is executed again."""


class NotebookError(RuntimeError):
    """A notebook that is not fit to run, or that failed; the message says where."""


def read_notebook(path: Path) -> NotebookNode:
    """A notebook in format 4.5 (cells have identifiers).

    Raises:
        NotebookError: not a notebook, or an older format.
    """
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        version = (int(content["nbformat"]), int(content["nbformat_minor"]))
        if version < (4, 5):
            raise NotebookError(
                f"{path.name} is in format {version[0]}.{version[1]}; 4.5 is expected (stable "
                "cell identifiers): open it in JupyterLab and save it"
            )
        return nbformat.reads(text, as_version=4)
    except (ValueError, KeyError, TypeError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path.name} is not a notebook that can be read: {error}") from error


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """(position from 1 among all cells, cell) of every code cell that is not empty."""
    return [
        (position, cell)
        for position, cell in enumerate(notebook.cells, start=1)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def check_anatomy(path: Path) -> list[str]:
    """The faults of a notebook, empty when it has none.

    A title with a question; one `parameters` cell, the first code cell, of literal
    `name: type = value  # meaning` lines; no `def`, no `class`; cells of at most 25 lines; no
    undefined names, no unused imports; kernel `python3`; a last code cell whose output is checked.
    """
    notebook = read_notebook(path)
    cells = code_cells(notebook)
    faults = _faults_of_frame(notebook, cells)
    trees = []
    for position, cell in cells:
        n_lines = len(cell.source.splitlines())
        if n_lines > MAX_CELL_LINES:
            faults.append(f"cell {position} has {n_lines} lines; at most {MAX_CELL_LINES}")
        try:
            trees.append((position, ast.parse(cell.source)))
        except SyntaxError as error:
            faults.append(f"cell {position} is not Python: {error.msg} (line {error.lineno})")
    for position, tree in trees:
        faults += [f"cell {position} {fault}" for fault in _faults_of_code(tree)]
    if len(trees) == len(cells):
        faults += _faults_of_names(cells)
        faults += _faults_of_parameters(path, notebook)
    return faults


def _faults_of_frame(notebook: NotebookNode, cells: list[tuple[int, NotebookNode]]) -> list[str]:
    faults = []
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        faults.append("the first cell is expected to be markdown with a title (`# ...`)")
    elif "?" not in first.source:
        faults.append("the first cell is expected to ask the notebook's question (`?`)")
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        faults.append(f"kernelspec python3 is expected, got {kernel!r}")
    if notebook.metadata.get("language_info", {}).get("name") != "python":
        faults.append("language_info.name python is expected")
    if not cells or not has_tag(cells[-1][1], CHECKED):
        faults.append(f"the last code cell is expected to carry the tag {CHECKED}")
    return faults


def _faults_of_code(tree: ast.Module) -> list[str]:
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            faults.append(f"defines {node.name}: functions and classes belong into matlib")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("exit", "quit", "sys.exit"):
            faults.append("leaves the notebook early, which papermill would take for success")
    return faults


def _faults_of_names(cells: list[tuple[int, NotebookNode]]) -> list[str]:
    """pyflakes over the joined cells: undefined names, unused imports and the like."""
    line_of: list[tuple[int, int]] = []
    for position, cell in cells:
        line_of += [(position, n) for n in range(1, len(cell.source.splitlines()) + 1)]
    joined = "\n".join("\n".join(cell.source.splitlines()) for _, cell in cells)
    found = Checker(ast.parse(joined), builtins={"display"}).messages
    faults = []
    for message in sorted(found, key=lambda message: message.lineno):
        position, line = line_of[message.lineno - 1]
        text = message.message % message.message_args
        faults.append(f"cell {position}, line {line}: {text}")
    return faults


def _faults_of_parameters(path: Path, notebook: NotebookNode) -> list[str]:
    tagged = [c for c in code_cells(notebook) if has_tag(c[1], "parameters")]
    if len(tagged) != 1:
        return [f"exactly one code cell tagged `parameters` is expected, got {len(tagged)}"]
    if tagged[0] != code_cells(notebook)[0]:
        return ["the `parameters` cell is expected to be the first code cell"]
    faults = []
    for node in ast.parse(tagged[0][1].source).body:
        if not isinstance(node, ast.AnnAssign) or not _is_literal(node.value):
            text = ast.unparse(node)
            faults.append(f"parameter {text!r}: `name: type = literal  # meaning` is expected")
    # papermill reads lines by a regular expression and misses those with a second `=`.
    understood = {str(name) for name, found in inspect_notebook(path).items() if found["help"]}
    for name in sorted(set(declared_parameters(notebook)) - understood):
        faults.append(f"parameter {name}: a comment with its meaning and no `=` is expected")
    return faults


def _is_literal(node: ast.expr | None) -> bool:
    if node is None:
        return False
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def declared_parameters(notebook: NotebookNode) -> dict[str, str]:
    """Name to annotation of the parameters, in order."""
    sources = [c.source for _, c in code_cells(notebook) if has_tag(c, "parameters")]
    return {
        node.target.id: ast.unparse(node.annotation)
        for source in sources
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def check_parameters(path: Path, parameters: Mapping[str, Any]) -> list[str]:
    """Faults of values about to be passed: unknown names, and types other than declared."""
    declared = declared_parameters(read_notebook(path))
    types: dict[str, type | tuple[type, ...]] = {
        "str": str,
        "int": int,
        "float": (int, float),
        "bool": bool,
    }
    faults = []
    for name, value in parameters.items():
        if name not in declared:
            faults.append(f"unknown parameter {name!r}; it has {', '.join(declared)}")
            continue
        expected = types.get(declared[name])
        is_bool_for_number = isinstance(value, bool) and declared[name] in ("int", "float")
        if expected is not None and (not isinstance(value, expected) or is_bool_for_number):
            faults.append(f"parameter {name}: {declared[name]} is expected, got {value!r}")
    return faults
