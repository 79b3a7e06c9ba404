from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest

import matlib
from matlib.cli import main
from matlib.commands import options
from matlib.data import manifest
from matlib.data.manifest import manifest_names
from matlib.evaluation.suite import ATTACKS, OWN
from matlib.study.profile.profile import profile_names
from matlib.study.run import calibrate

ROOT = Path(matlib.__file__).parents[1]

OPEN_OTHERS = ("os", "opener", "opened", "opening", "models", "door", "found", "tarfile", "Image",
               "PIL.Image")  # fmt: skip
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


ATTACK = "attack --model m --pretrained w --images i --captions c --out o"
BAD = [
    *(f"study --shard {bad}" for bad in ("3/2", "x", "0/4", "5/4", "a/b", "1/²")),
    *(f"{command} --limit {bad}" for command in ("study", "plan smoke") for bad in ("0", "-3")),
    *(f"plan smoke --workers {bad}" for bad in ("-1", "²")),
]
SAYS = {"--shard": "expected i/n with 1 <= i <= n", "--limit": "(leave the option away for all)",
        "--workers": "expected a whole number, 0 or more; got"}  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        *((bad, SAYS[bad.split()[-2]]) for bad in BAD),
        ("", "Missing command"),
        ("nonsense", "No such command 'nonsense'"),
        ("study --resalts x", "No such option: --resalts"),
        ("study more", "unexpected extra argument"),
        ("calibrate 2e-4", "unrecognized arguments: 0.0002"),
        ("calibrate --lr fast", "--lr"),
        ("data fetch nothing", "choose from coco, flickr30k, flickr8k, scenes"),
        ("data verify", "Missing argument 'NAME'"),
        ("attack --model m", "Missing option '--pretrained'"),
        (f"{ATTACK} --attack fgsm", "invalid choice: 'fgsm' (choose from pgd, bert,"),
        (f"{ATTACK} --format gif", "'gif' is not one of 'png', 'float'"),
        (f"{ATTACK} --masked-lm a --candidates b", "--candidates: not allowed with"),
    ],
)
def test_bad_options_are_refused(
    bad: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(bad.split()) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


COMMANDS = ("study", "report", "readme", "calibrate", "attack", "evaluate", "board", "plan",
            "data", "data fetch", "data verify", "data export")  # fmt: skip


def test_help_of_every_command_needs_no_library_of_the_work() -> None:
    """It answers at once: torch and pandas alone take seconds to import."""
    program = f"""
import sys
from matlib.cli import main
for command in ["", *{COMMANDS!r}]:
    print("->", command, main([*command.split(), "--help"]))
print({{"torch", "pandas", "numpy", "scipy", "transformers", "PIL"}} & {{*sys.modules}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    for command in COMMANDS:
        assert f" {command} [OPTIONS]" in done.stdout and f"-> {command} 0" in done.stdout
    for name in ("sga|", "demo-full"):  # of tables that are not loaded
        assert name in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_options_offer_what_the_tables_have() -> None:
    assert {*options.ATTACK_NAMES} == {*ATTACKS} - {OWN}
    assert (*profile_names(),) == options.PROFILE_NAMES
    assert manifest_names() == options.DATA_SET_NAMES


def test_rates_follow_their_option(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    table = pd.DataFrame(columns=["row", "lr", "value", "note"])
    monkeypatch.setattr(calibrate, "calibrate", lambda *a: told.append(a[2:]) or table)
    for rates in ("", "--lr 1e-3", "--lr 1e-3 2e-3 --workers 1", "--lr=0.1 --lr 0.2"):
        assert main(["calibrate", "--profile", "smoke", *rates.split()]) == 0
    assert told == [
        (0, [2e-4, 5e-4, 1e-3], 0), (0, [1e-3], 0), (0, [1e-3, 2e-3], 1), (0, [0.1, 0.2], 0),
    ]  # fmt: skip


def test_a_stopped_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "verify", stop)
    assert main(["data", "verify", "coco"]) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on where it was\n"


def test_the_console_script_is_the_command_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert EntryPoint("matlib", project["scripts"]["matlib"], "console_scripts").load() is main


def test_world_is_exported_and_verify_reports_missing_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["data", "export", str(tmp_path / "world"), "--n-test", "5"]) == 0
    assert "5 test images" in capsys.readouterr().out
    assert (tmp_path / "world" / "dataset_scenes.json").is_file()
    assert main(["data", "verify", "coco", "--root", str(tmp_path / "none")]) == 1


def test_lines_beyond_ascii_are_printed_whatever_the_locale(tmp_path: Path) -> None:
    """`evaluate` says what it is about, with a dot between, before it misses the checkpoint."""
    words = "evaluate --model small --pretrained gone.pt --profile smoke --name x --results"
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
