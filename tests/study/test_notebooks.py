"""The runner: what papermill lets pass is refused, and a person sees where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import matlib
from matlib.study.publish.notebooks import (
    NotebookError,
    find_notebooks,
    read_notebook,
    run_notebooks,
)
from tests.study.toy_notebooks import toy_notebook, write_notebook

NARRATED = """\
from pathlib import Path
from matlib.progress import note
note("train mat s0: 1/2")
print("a result", Path.cwd().name, limit)
note("train mat s0: 2/2")"""


def test_notebooks_run_in_order_with_parameters_and_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MATLIB_PROGRESS", raising=False)
    sources = tmp_path / "notebooks"
    write_notebook(sources / "10_b.ipynb", toy_notebook())
    write_notebook(sources / "00_a.ipynb", toy_notebook(NARRATED))
    lines: list[str] = []
    done = run_notebooks(
        find_notebooks(sources),
        tmp_path / "out",
        {"profile": "smoke", "limit": 7},
        say=lines.append,
    )
    assert [run.executed.name for run in done] == ["00_a.ipynb", "10_b.ipynb"]
    assert lines[:3] == ["[1/2] 00_a", "    train mat s0: 1/2", "    train mat s0: 2/2"]
    assert lines[3].startswith("[1/2] 00_a: ") and lines[4] == "[2/2] 10_b"
    cells = {cell.id: cell for cell in read_notebook(done[0].executed).cells}
    assert "a result notebooks 7\n" in cells["step-0"].outputs[0].text
    assert cells["last"].outputs[0].text == "smoke 0.5\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "00_a.ipynb",
        "10_b.ipynb",
    ]
    assert "MATLIB_PROGRESS" not in os.environ
    # a kernel that is shut down under load may complain of its own sockets
    told = capfd.readouterr().err
    assert not any(word in told for word in ("train mat", "papermill", "Warning")), told


def test_kernels_import_the_package_that_runs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "matlib").mkdir(parents=True)
    (tmp_path / "elsewhere" / "matlib" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    source = write_notebook(tmp_path / "00_a.ipynb", toy_notebook(
        "import matlib\nprint(matlib.__file__)"))  # fmt: skip
    [run] = run_notebooks([source], tmp_path / "out", {}, say=lambda line: None)
    cells = {cell.id: cell for cell in read_notebook(run.executed).cells}
    assert cells["step-0"].outputs[0].text.strip() == matlib.__file__
    assert os.environ["PYTHONPATH"] == str(tmp_path / "elsewhere")


def test_two_run_side_by_side_and_their_lines_say_whose_they_are(tmp_path: Path) -> None:
    """Each waits for what the other gives: one after the other they would not end."""
    for name in ("ab", "ba"):
        os.mkfifo(tmp_path / name)
    sources = [
        write_notebook(tmp_path / "00_a.ipynb", toy_notebook(
            "from matlib.progress import note\nnote('step 1/2')",
            "print('to b', file=open('ab', 'w'))", "print(open('ba').read())",
            "import torch\nprint(torch.get_num_threads())")),
        write_notebook(tmp_path / "10_b.ipynb", toy_notebook(
            "print(open('ab').read())", "print('to a', file=open('ba', 'w'))")),
    ]  # fmt: skip
    lines: list[str] = []
    here, seen = Path.cwd(), set()

    def say(line: str) -> None:
        lines.append(line)
        seen.add(Path.cwd())

    done = run_notebooks(sources, tmp_path / "out", {}, cell_timeout_seconds=240, at_once=2,
                         say=say)  # fmt: skip
    assert [run.source for run in done] == sources
    assert seen == {here}, "the process itself moved, and the last of two threads leaves it there"
    texts = [{cell.id: cell for cell in read_notebook(run.executed).cells} for run in done]
    assert texts[0]["step-2"].outputs[0].text == "to a\n\n"
    assert texts[1]["step-0"].outputs[0].text == "to b\n\n"
    assert texts[0]["step-3"].outputs[0].text == "1\n", "each takes every core"
    assert "    step 1/2 (00_a)" in lines


def test_after_a_failure_the_notebooks_that_wait_do_not_begin(tmp_path: Path) -> None:
    sources = [write_notebook(tmp_path / f"{i}0_a.ipynb", toy_notebook("1 / 0")) for i in range(6)]
    said: list[str] = []
    with pytest.raises(NotebookError, match=r"00_a\.ipynb failed"):
        run_notebooks(sources, tmp_path / "out", {}, at_once=2, say=said.append)
    assert len([line for line in said if line.endswith("_a")]) < 6


def test_every_fault_of_every_notebook_is_told_before_a_kernel_starts(tmp_path: Path) -> None:
    first = write_notebook(tmp_path / "00_a.ipynb", toy_notebook("print(nosuch)"))
    second = write_notebook(tmp_path / "10_b.ipynb", toy_notebook())
    with pytest.raises(NotebookError, match=r"(?s)00_a.*nosuch.*10_b.*unknown parameter 'eps'"):
        run_notebooks([first, second], tmp_path / "out", {"eps": 1})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("raise SystemExit(0)", "cell 3 ended with SystemExit"),
        ("1 / 0", "division by zero"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "kernel died"),
    ],
)
def test_a_notebook_that_does_not_run_to_its_end_fails(
    tmp_path: Path, step: str, message: str
) -> None:
    source = write_notebook(tmp_path / "00_a.ipynb", toy_notebook(step))
    with pytest.raises(NotebookError, match=message):
        run_notebooks([source], tmp_path / "out", {}, say=lambda line: None)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00_a.failed.ipynb"]


def test_a_folder_without_notebooks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no notebook"):
        find_notebooks(tmp_path)


def test_the_executed_copy_keeps_no_widget_state(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "00_a.ipynb", toy_notebook())
    (run,) = run_notebooks([source], tmp_path / "out", {}, say=lambda line: None)
    assert "widgets" not in json.loads(run.executed.read_text())["metadata"]
