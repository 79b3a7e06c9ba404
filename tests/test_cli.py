from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import matlib
from matlib.cli import main

OPEN_OTHERS = ("os", "opener", "opened", "tarfile", "Image", "PIL.Image")
"""What has an `open` that is not of text."""


def test_unknown_profile_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "--profile", "nope"]) == 1
    assert "no profile 'nope'" in capsys.readouterr().err


def test_study_on_disk_without_its_folder_says_what_to_pass(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["study", "--profile", "flickr8k", "--results", str(tmp_path)]) == 1
    assert "DATA=<folder>" in capsys.readouterr().err
    gone = ["--data", str(tmp_path / "gone")]
    assert main(["study", "--profile", "flickr8k", "--results", str(tmp_path), *gone]) == 1
    assert "no data folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.parametrize(
    "bad",
    [
        ["study", "--limit", "-1"],
        ["study", "--shard", "3/2"],
        ["study", "--shard", "x"],
        ["study", "--shard", "0/4"],
        ["study", "--shard", "5/4"],
        ["study", "--shard", "a/b"],
        ["study", "--shard", "1/²"],
        ["study", "--limit", "0"],
        ["plan", "smoke", "--limit", "0"],
        ["plan", "smoke", "--workers", "-1"],
        ["plan", "smoke", "--limit", "-3"],
        ["plan", "smoke", "--workers", "²"],
    ],
)
def test_bad_options_are_refused(bad: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(bad)
    assert stopped.value.code == 2


def test_world_is_exported_and_verify_reports_missing_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["data", "export", str(tmp_path / "world"), "--n-test", "5"]) == 0
    assert "5 test images" in capsys.readouterr().out
    assert (tmp_path / "world" / "dataset_scenes.json").is_file()
    assert main(["data", "verify", "coco", "--root", str(tmp_path / "none")]) == 1


def test_lines_beyond_ascii_are_printed_whatever_the_locale(tmp_path: Path) -> None:
    """`evaluate` says what it is about, with a dot between, before it misses the checkpoint."""
    words = "evaluate --model small --checkpoint gone.pt --profile smoke --name x --results"
    done = subprocess.run(
        [sys.executable, "-m", "matlib", *words.split(), str(tmp_path)],
        env={**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONIOENCODING": ""},
        capture_output=True, check=False,
    )  # fmt: skip
    assert "profile smoke · " in done.stdout.decode("utf-8")
    assert done.stderr.decode("utf-8") == "error: no checkpoint file at gone.pt\n"


def test_no_text_is_read_or_written_in_the_encoding_of_a_locale() -> None:
    """`read_text`, `write_text` and `open` for text say UTF-8, everywhere in the package."""
    faults = []
    for path in sorted(Path(matlib.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _is_text(node):
                named = {keyword.arg for keyword in node.keywords}
                faults += [] if "encoding" in named else [f"{path.name}:{node.lineno}"]
    assert faults == []


def _is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name != "open" or ast.unparse(call.func.value) in OPEN_OTHERS:  # type: ignore[attr-defined]
        return name in ("read_text", "write_text")
    return not any("b'" in ast.unparse(mode) for mode in call.args)
