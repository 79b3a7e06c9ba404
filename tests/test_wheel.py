"""The package as it is installed: without the checkout, under its own name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


NO_EXTRAS = """
import sys

class NoExtras:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.names:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(NoExtras, sys.meta_path)
"""


def of_extras() -> set[str]:
    """Modules that are here, and would not be after an installation without extras."""
    waiting = [*tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
    kept: set[str] = {"matlib-robust", "pip", "setuptools"}
    while waiting:
        needed = Requirement(waiting.pop())
        name = canonicalize_name(needed.name)
        if name not in kept and (not needed.marker or needed.marker.evaluate({"extra": ""})):
            kept.add(name)
            waiting += requires(name) or []
    others = {module: owners for module, owners in packages_distributions().items()
              if module != "matlib"}  # fmt: skip
    return {module for module, owners in others.items()
            if not {canonicalize_name(owner) for owner in owners} & kept}  # fmt: skip


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
    """An environment with the wheel, as if its dependencies alone were installed beside it."""
    place = wheel.parent / "venv"
    venv.create(place, symlinks=True, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    # a line here is a folder to search: an editable install there is not followed
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\nimport no_extras\n")
    (packages / "no_extras.py").write_text(f"{NO_EXTRAS}\nNoExtras.names = {of_extras()!r}\n")
    pip = [sys.executable, "-m", "pip", "--python", place, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "-q", "--force-reinstall", wheel], check=True)
    return place / "bin" / "matlib"


def run(command: Path, cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [command, *map(str, words)], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )


@pytest.mark.full
def test_the_source_distribution_holds_what_the_study_needs(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".*", "__pycache__", "results", "site", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "source", check=True,
                   capture_output=True)  # fmt: skip
    [found] = tmp_path.glob("matlib_robust-*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("profiles", "data_manifests", "notebooks", "published", "docs", "matlib"):
        files = [
            p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts
        ]
        assert files and {p.relative_to(ROOT).as_posix() for p in files} <= names, folder
    assert {"constraints.txt", "Makefile", "environment.sh", "CHANGELOG.md"} <= names


@pytest.mark.full
def test_an_installation_without_extras_has_no_notebooks_and_no_generators() -> None:
    beyond = of_extras()
    assert {"jupyterlab", "IPython", "papermill", "diffusers", "pytest", "mkdocs"} <= beyond
    assert not {"torch", "open_clip", "transformers", "pandas", "typer"} & beyond


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
    judged = run(installed, tmp_path, "evaluate", *model, "--pretrained", weights, *own, *steps,
                 "--out", tmp_path / "own.json")  # fmt: skip
    assert judged.returncode == 0 and "worst" in judged.stdout, judged.stderr
    assert run(installed, tmp_path, "board", tmp_path).returncode == 0
    for refused in (("study",), ("data", "verify", "coco")):
        said = run(installed, tmp_path, *refused)
        assert said.returncode in (1, 2) and "Traceback" not in said.stderr
        assert "Clone the repository" in " ".join(said.stderr.replace("|", " ").split())
