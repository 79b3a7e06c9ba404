"""A whole study under its options and its mishaps: a limit, and a disk that fills up."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from matlib.cli import main
from matlib.study.profile.profile import load_profile
from matlib.study.publish.full import published_study
from matlib.study.publish.shown import FIGURES, SHOW_IMAGES
from matlib.study.run import pipeline


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke profile with one defence, as a user's own YAML file."""
    profile = load_profile("smoke").model_dump(mode="json")
    profile |= {"name": "own", "runs": [{"defence": "mat"}], "transfer_rows": ["mat"]}
    profile |= {"techniques": [], "sweeps": [], "intervention": None, "other_tasks": None}
    path = tmp_path_factory.mktemp("profiles") / "own.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


def test_limit_makes_the_whole_study_partial_and_says_so_everywhere(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "notebooks"
    last.mkdir()
    shutil.copy(pipeline.NOTEBOOKS / "90_claims.ipynb", last)
    monkeypatch.setattr(pipeline, "NOTEBOOKS", last)
    results = tmp_path / "results"
    monkeypatch.chdir(small.parent)  # notebooks run in another folder, where `own.yaml` is not
    arguments = ["study", "--profile", small.name, "--results", str(results), "--limit", "6"]
    assert main(arguments) == 0, capsys.readouterr().err
    table = pd.read_csv(results / "own" / "robustness.csv")
    assert set(table[table["direction"] == "TR"]["n_queries"]) == {6}
    claims = json.loads((results / "own" / "claims.json").read_text())
    assert all("partial: at most 6 test images" in claim["scope"] for claim in claims)
    assert json.loads((results / "own" / "provenance.json").read_text())["partial"] is True
    page = (results / "own" / "report" / "index.html").read_text()
    assert "Partial study: at most 6 test images" in page
    assert main(["report", "--profile", small.name, "--results", str(results)]) == 0
    assert (results / "own" / "report" / "index.html").read_text() == page, "it says so again"


def test_a_study_of_chosen_notebooks_has_its_claims_and_its_report(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = yaml.safe_load(small.read_text()) | {"name": "chosen", "notebooks": ["85"]}
    path = tmp_path / "chosen.yaml"
    path.write_text(yaml.safe_dump(chosen))
    assert main(["study", "--profile", str(path), "--results", str(tmp_path), "--limit", "6"]) == 0
    said = capsys.readouterr()
    assert "report: " in said.out and not said.err.count("error")
    assert json.loads((tmp_path / "chosen" / "claims.json").read_text())
    assert "85_transfer" in (tmp_path / "chosen" / "report" / "index.html").read_text()


class FillingDisk:
    """Room for `n` beginnings of artefacts, and for no more until `is_freed`."""

    def __init__(self, n: int) -> None:
        self.n, self.is_freed = n, False

    def usage(self, folder: Path) -> SimpleNamespace:
        self.n -= 1
        return SimpleNamespace(free=2**40 if self.is_freed or self.n >= 0 else 1000)


def test_no_figure_that_shows_photographs_is_published() -> None:
    world, photographs = (load_profile(name) for name in ("demo", "photos"))
    assert set(pipeline.figures_of(world)) >= SHOW_IMAGES
    assert set(pipeline.figures_of(photographs)) == set(FIGURES) - SHOW_IMAGES
    for path in pipeline.PUBLISHED.glob("*/provenance.json"):
        if published_study(path.parent).profile["dataset"]["name"] != "scenes":
            pictures = {each.stem for each in path.parent.glob("*.png")}
            assert pictures <= set(pipeline.figures_of(photographs)), path.parent.name


@pytest.mark.parametrize("n_before", [0, 4])
def test_full_disk_stops_a_study_plainly_and_it_goes_on_afterwards(
    small: Path,
    tmp_path: Path,
    n_before: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk = FillingDisk(n_before)
    monkeypatch.setattr("matlib.files.shutil.disk_usage", disk.usage)
    arguments = ["study", "--profile", str(small), "--results", str(tmp_path), "--shard", "1/1",
                 "--workers", "1"]  # fmt: skip
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "free some space and run the command again" in message and "Traceback" not in message
    whole = sorted(path.name for path in (tmp_path / "own" / "runs").glob("[a-z]*"))
    assert len(whole) <= n_before  # one that waits for its inputs is not whole
    assert not list((tmp_path / "own" / "runs").glob(".making-*"))
    assert not (tmp_path / "own" / "robustness.csv").exists()
    disk.is_freed = True
    assert main(arguments) == 0
    assert set(whole) < {path.name for path in (tmp_path / "own" / "runs").glob("[a-z]*")}
    assert (tmp_path / "own" / "robustness.csv").is_file()


def test_disk_that_fills_up_in_the_middle_of_a_table_leaves_no_half_table(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["study", "--profile", str(small), "--results", str(tmp_path), "--shard", "1/1",
                 "--workers", "1"]  # fmt: skip
    written: list[Path] = []

    def full(descriptor: int) -> None:
        names = {path.name for path in (tmp_path / "own").iterdir()}
        if any(name.startswith(".robustness.csv") for name in names):
            written.append(tmp_path)
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("matlib.files.os.fsync", full)
        assert main(arguments) == 1
    assert written and "Free some space" in capsys.readouterr().err
    assert not list((tmp_path / "own").glob("*robustness.csv*"))
    assert main(arguments) == 0
    assert len(pd.read_csv(tmp_path / "own" / "robustness.csv")) > 0


def test_records_that_are_not_their_provenances_stop_a_study_in_one_line(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = tmp_path / "published" / "own"
    published.mkdir(parents=True)
    (published / "records.csv.gz").write_bytes(b"cut")
    monkeypatch.setattr(pipeline, "PUBLISHED", tmp_path / "published")
    arguments = ["study", "--profile", str(small), "--results", str(tmp_path), "--shard", "1/2"]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: published/own/records.csv.gz is not taken: its sha256 is")
