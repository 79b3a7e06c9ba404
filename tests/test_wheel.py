"""The package as it is installed: without the checkout, under its own name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from matlib.cli import main
from matlib.commands import options
from tests.commands.toy_data import make_toy

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", ["study", "report", "readme", "calibrate", "plan smoke"])
def test_without_the_checkout_a_study_says_what_it_needs(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "HAS_CHECKOUT", False)
    assert main(command.split()) == 1
    assert "Clone the repository" in capsys.readouterr().err


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "matlib", root / "source" / "matlib", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / "source" / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "-q", "-w", root, root / "source"]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (found,) = root.glob("matlib_robust-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """An environment with the wheel, which sees the libraries of the one that runs the tests."""
    place = wheel.parent / "venv"
    venv.create(place, symlinks=True, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    # a line here is a folder to search: an editable install there is not followed
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", place, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "-q", "--force-reinstall", wheel], check=True)
    return place / "bin" / "matlib"


def run(command: Path, cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [command, *map(str, words)], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )


@pytest.mark.full
def test_the_wheel_holds_the_doors_and_templates(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"matlib/__init__.pyi", "matlib/attacks/__init__.pyi"} <= {*names}
    assert any(name.endswith(".j2") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"matlib", "matlib_robust"}


@pytest.mark.full
def test_the_installed_command_attacks_evaluates_and_asks_for_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    helped = run(installed, tmp_path, "--help")
    assert helped.returncode == 0 and "attack any model" in helped.stdout
    toy = make_toy(tmp_path / "toy")
    own = ("--images", toy.images, "--captions", toy.captions, "--synonyms", toy.synonyms)
    model, steps = ("--model", "small"), ("--eps", 8, "--steps", 1)
    weights, out = toy.weights, tmp_path / "out"
    done = run(installed, tmp_path, "attack", *model, "--pretrained", weights, *own, *steps,
               "--attack", "sep", "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "pairs.json").read_text())["summary"]["n_images"] == 5
    judged = run(installed, tmp_path, "evaluate", *model, "--checkpoint", weights, *own, *steps,
                 "--out", tmp_path / "own.json")  # fmt: skip
    assert judged.returncode == 0 and "worst" in judged.stdout, judged.stderr
    assert run(installed, tmp_path, "board", tmp_path).returncode == 0
    for refused in (("study",), ("data", "verify", "coco")):
        said = run(installed, tmp_path, *refused)
        assert said.returncode in (1, 2) and "Traceback" not in said.stderr
        assert "Clone the repository" in " ".join(said.stderr.replace("|", " ").split())
