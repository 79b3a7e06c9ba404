"""One list of pins: pyproject, constraints and the conda file hold together."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# torch pins its own CUDA packages; pip and wheel belong to the environment.
PINNED_ELSEWHERE = re.compile(r"nvidia-|cuda-|triton$|pip$|wheel$|matlib-robust$")


def _pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def _direct() -> list[Requirement]:
    texts = [
        *PROJECT["dependencies"],
        *EXTRAS["notebooks"],
        *EXTRAS["test"],
        *EXTRAS["photos"],
        *EXTRAS["eccv"],
        *EXTRAS["slurm"],
        *EXTRAS["docs"],
    ]
    return [Requirement(text) for text in texts]


def test_every_pin_is_one_exact_public_version() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)


@pytest.mark.parametrize("requirement", _direct(), ids=str)
def test_every_direct_dependency_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert _pins()[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.skipif(sys.platform != "linux", reason="the pins were frozen on Linux")
def test_every_indirect_dependency_is_pinned() -> None:
    waiting = [requirement.name for requirement in _direct()]
    seen: set[str] = set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen or PINNED_ELSEWHERE.match(name):
            continue
        seen.add(name)
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # asked for by another Python version only
            continue
        for requirement in map(Requirement, requires):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    assert seen - set(_pins()) == set()


def test_the_supported_versions_are_the_promised_ones() -> None:
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert "torch>=2.6" in PROJECT["dependencies"]
    assert EXTRAS["all"] == ["matlib-robust[notebooks,test,generative,photos,eccv,slurm,docs]"]


def test_conda_installs_from_the_same_pins_as_pip() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", "-e .[all]"]
    named = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert named == ["python=3.11", "pip"], "versions stand in constraints.txt only"
    script = (ROOT / "environment.sh").read_text()
    assert "-c constraints.txt -e '.[all]'" in script


def test_every_import_of_the_package_is_a_declared_dependency() -> None:
    assert _undeclared(map(str, _direct()), (ROOT / "matlib").rglob("*.py")) == set()


def test_the_library_alone_imports_nothing_of_an_extra() -> None:
    """JupyterLab and generators are asked for by name, so `pip install` brings neither."""
    library = [p for p in (ROOT / "matlib").rglob("*.py") if "study" not in p.parts]
    beyond = {name for _, name in _undeclared(PROJECT["dependencies"], library)}
    assert beyond == set() and len(library) > 100
    heavy = ("jupyterlab", "ipython", "diffusers", "nbconvert", "mkdocs", "pytest")
    assert not {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]} & {*heavy}


def _undeclared(requirements: Iterable[str], paths: Iterable[Path]) -> set[tuple[str, str]]:
    """(file, module) of every import that none of the requirements brings."""
    declared = {canonicalize_name(Requirement(each).name) for each in requirements}
    providers = packages_distributions()
    return {
        (path.name, name)
        for path in paths
        for name in _imports(path) - sys.stdlib_module_names - {"matlib"}
        if not {canonicalize_name(found) for found in providers.get(name, [])} & declared
    }


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_ci_runs_the_test_command_and_nothing_else() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    lines = [
        line for line in path.read_text().splitlines() if not line.startswith(("#", "set ", "cd "))
    ]
    assert lines == ["make test"]


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for target in phony.group(1).split():
        assert re.search(rf"^  {target} +\w", shown.stdout, re.MULTILINE), target


def test_make_hands_the_variables_on_to_the_study() -> None:
    shown = subprocess.run(
        ["make", "-n", "study", "PROFILE=flickr8k", "DATA=/my data", "LIMIT=50", "SHARD=1/4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = '-m matlib study --profile flickr8k --data "/my data" --limit 50 --shard 1/4'
    assert wanted in " ".join(shown.split())
