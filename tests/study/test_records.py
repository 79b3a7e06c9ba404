"""Outcomes travel without weights, and only to the study that they belong to."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from matlib.study.profile.profile import Profile, load_profile
from matlib.study.profile.rows import Run
from matlib.study.run.pipeline import PUBLISHED
from matlib.study.run.records import (
    RECORDS_FILE,
    Expected,
    RecordsError,
    accept_records,
    checked_files,
    keep_seconds,
    write_records,
)
from matlib.study.run.tasks import Rows, Task, is_done, make_rows
from matlib.study.store.shared_json import read_shared
from matlib.study.study import Study
from matlib.study.tables.results import write_results
from tests.study.smoke_parts import NO_PAIRS

SMOKE = load_profile("smoke")
TWO_SEEDS = SMOKE.model_copy(update={"runs": (Run(defence="text-at"),), "seeds": (0, 1)})


def profile(**more: object) -> Profile:
    return TWO_SEEDS.model_copy(update={**NO_PAIRS, **more})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(profile(), tmp_path_factory.mktemp("done"))
    make_rows(study, None, Rows(study.rows()), 1, lambda line: None)
    return study


def test_another_machine_takes_the_ranks_and_trains_only_what_it_shows(
    done: Study, tmp_path: Path
) -> None:
    write_records(done, tmp_path / "published")
    other = Study(profile(), tmp_path / "other", source=done.source)
    assert accept_records(other, tmp_path / "published") > 0
    assert is_done(other, Task("judged", "text-at", 1))
    assert is_done(other, Task("sanity", "text-at", 0))
    assert not is_done(other, Task("judged", "text-at", 0)), "its captions are shown"
    here, there = (study.evaluated("text-at", 1).outcomes for study in (other, done))
    assert here.keys() == there.keys()
    for key, found in there.items():
        assert torch.equal(here[key].tr_rank, found.tr_rank)
        assert torch.equal(here[key].ir_rank, found.ir_rank)
    assert not list(other.root.glob("runs/model-*")), "nothing was trained"


def test_records_of_another_setting_are_left_alone(done: Study, tmp_path: Path) -> None:
    write_records(done, tmp_path)
    assert SMOKE.finetune is not None
    finetune = SMOKE.finetune.model_copy(update={"lr": 1e-4})
    evaluation = SMOKE.evaluation.model_copy(update={"pgd_steps": 3})
    other = Study(profile(finetune=finetune, evaluation=evaluation), tmp_path / "other")
    assert accept_records(other, tmp_path) == 0


def test_the_same_outcomes_give_the_same_file_and_no_file_gives_nothing(
    done: Study, tmp_path: Path
) -> None:
    first = write_records(done, tmp_path / "a").read_bytes()
    assert write_records(done, tmp_path / "b").read_bytes() == first
    assert set(pd.read_csv(tmp_path / "a" / RECORDS_FILE)["kind"]) == {"judged", "sanity"}
    assert accept_records(done, tmp_path / "nowhere") == 0


def test_what_is_published_again_keeps_the_provenance_of_the_runs_that_made_it(
    done: Study, tmp_path: Path
) -> None:
    write_results(done)
    shutil.copy(done.root / "provenance.json", tmp_path)
    write_records(done, tmp_path)
    other = Study(profile(), tmp_path / "other", source=done.source)
    accept_records(other, tmp_path, whole=True)
    write_results(other)
    kinds = ("judged", "sanity")
    first, again = (
        {
            a["hash"]: a
            for a in read_shared(s.root / "provenance.json")["artefacts"]
            if a["kind"] in kinds
        }
        for s in (done, other)
    )
    assert again and again == {key: first[key] for key in again}


def forged(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the records and name their new hash, as whoever writes both files can."""
    path, provenance = folder / RECORDS_FILE, folder / "provenance.json"
    table = change(pd.read_csv(path, dtype=str, keep_default_na=False))
    path.write_bytes(gzip.compress(table.to_csv(index=False).encode(), mtime=0))
    named = json.loads(provenance.read_text())
    named["records"] = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance.write_text(json.dumps(named))


EXPECTED = Expected(
    3, 6, {"ranks.csv": ("clean/", "worst/typo"), "curve.csv": ("0.0", "2.0")}, (), 0
)


def lines(**first: str) -> pd.DataFrame:
    """The records of one artefact, with changes in the first row."""
    content = {"TR": "0 5 1", "IR": "0 2 1 0 0 2"}
    rows = [
        {"file": file, "attack": attack, "direction": direction, "content": ranks}
        for file, attacks in EXPECTED.ranks.items()
        for attack in attacks
        for direction, ranks in content.items()
    ]
    return pd.DataFrame([{**rows[0], **first}, *rows[1:]])


def test_ranks_of_the_gallery_are_taken() -> None:
    found = checked_files(lines(), EXPECTED)
    assert list(found) == ["ranks.csv", "curve.csv"]
    assert isinstance(found["ranks.csv"], pd.DataFrame)
    assert found["ranks.csv"]["rank"].to_list()[:9] == [0, 5, 1, 0, 2, 1, 0, 0, 2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lines(file="../../../../x.json"), r"the files .* are expected, got .*'\.\./\.\./"),
        (lines(file="/tmp/x.json"), "the files .* are expected, got '/tmp/x.json'"),
        (lines(file="provenance.json"), "the files curve.csv, ranks.csv are expected"),
        (lines()[:4], "the files curve.csv, ranks.csv are expected"),
        (lines(content="0 -1 0"), "a rank is a whole number from 0 to 5 here, got '-1'"),
        (lines(content="0 6 0"), "a rank is a whole number from 0 to 5 here, got '6'"),
        (lines(content="0 0.5 0"), "a rank is a whole number"),
        (lines(content="0 ² 0"), "a rank is a whole number"),
        (lines(content="0  0"), "a rank is a whole number"),
        (lines(content=""), "3 ranks are expected, got 1"),
        (lines(content="0 0 0 0"), "3 ranks are expected, got 4"),
        (lines()[1:], "one row of each attack and direction"),
        (lines()[lines()["direction"] == "TR"], "one row of each attack and direction"),
        (pd.concat([lines(), lines()[:1]]), "twice or not expected: 'clean/ TR'"),
        (lines(attack="own/typo"), "missing, twice or not expected"),
    ],
)
def test_ranks_that_a_study_cannot_have_found_are_refused(rows: pd.DataFrame, message: str) -> None:
    with pytest.raises(RecordsError, match=message):
        checked_files(rows, EXPECTED)


CHECK: dict[str, Any] = {
    "name": "more_steps", "asserts": "", "numbers": {"pgd": 20.0},
    "gains": {"a - b": [1.0, -1.0, 2.0]}, "exact": False, "n_images": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("checks.json", [[[]]], "not what the study writes"),
        ("checks.json", [], "each check once"),
        ("checks.json", [CHECK, CHECK], "each check once"),
        ("checks.json", [{**CHECK, "gains": {"a - b": [1.0, 2.0]}}], "an estimate and its bounds"),
        ("checks.json", [{**CHECK, "gains": {"a - b": [float("nan")] * 3}}], "finite numbers"),
        ("checks.json", [{**CHECK, "gains": {}}], "finite numbers"),
        ("checks.json", [{**CHECK, "n_images": 2}], "3 images are expected, got 2"),
        ("coordinates.json", {"similarity": 0.5}, "finite numbers named similarity, vendi, mmd2"),
        ("coordinates.json", {"similarity": 2, "vendi": 1, "mmd2": 0}, "from -1 to 1"),
        ("coordinates.json", {"similarity": 1, "vendi": 0, "mmd2": 0}, "1 or more"),
    ],
)
def test_other_files_of_records_are_checked_too(file: str, content: Any, message: str) -> None:
    rows = pd.DataFrame([{"file": file, "content": json.dumps(content)}])
    with pytest.raises(RecordsError, match=message):
        checked_files(rows, Expected(3, 6, {}, (file,), 3))


def test_a_record_that_names_a_file_elsewhere_writes_nothing(done: Study, tmp_path: Path) -> None:
    def elsewhere(table: pd.DataFrame) -> pd.DataFrame:
        return table.replace({"file": {"ranks.csv": "../../../../x.json"}})

    write_records(done, tmp_path / "published")
    forged(tmp_path / "published", elsewhere)
    other = Study(profile(), tmp_path / "a" / "b" / "other", source=done.source)
    with pytest.raises(RecordsError, match=r"delete records\.csv\.gz") as refused:
        accept_records(other, tmp_path / "published", whole=True)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.rglob("x.json"))


def test_only_the_records_that_their_provenance_names_are_taken(
    done: Study, tmp_path: Path
) -> None:
    path = write_records(done, tmp_path)
    whole = path.read_bytes()
    better = gzip.compress(gzip.decompress(whole).replace(b" 1 ", b" 0 "), mtime=0)
    for other in (b"", b"no gzip", whole[:-9], better):
        path.write_bytes(other)
        with pytest.raises(RecordsError, match=r"its sha256 is .* names"):
            accept_records(done, tmp_path)
    path.write_bytes(whole)
    (tmp_path / "provenance.json").write_text('{"artefacts": 1}')
    with pytest.raises(RecordsError, match=r"provenance\.json is damaged"):
        accept_records(done, tmp_path)
    (tmp_path / "provenance.json").unlink()
    with pytest.raises(RecordsError, match="names none"):
        accept_records(done, tmp_path)


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"\xff", mtime=0), gzip.compress(b"", mtime=0)]
)
def test_named_records_that_are_no_table_are_refused(
    done: Study, tmp_path: Path, content: bytes
) -> None:
    write_records(done, tmp_path).write_bytes(content)
    named = json.dumps({"artefacts": [], "records": hashlib.sha256(content).hexdigest()})
    (tmp_path / "provenance.json").write_text(named)
    with pytest.raises(RecordsError, match="it cannot be read"):
        accept_records(done, tmp_path)


def test_the_published_records_are_those_that_their_provenance_names() -> None:
    folders = sorted(path.parent for path in PUBLISHED.glob(f"*/{RECORDS_FILE}"))
    assert folders
    for folder in folders:
        named = json.loads((folder / "provenance.json").read_text())["records"]
        assert hashlib.sha256((folder / RECORDS_FILE).read_bytes()).hexdigest() == named


def test_seconds_that_are_unknown_here_stay_as_they_were_published(tmp_path: Path) -> None:
    old = tmp_path / "techniques.csv"
    old.write_text("row,seed,seconds\nmat,0,30.5\nmat,1,31.5\n")
    new = "row,seed,gain,seconds\nmat,0,0.1,\nmat,1,0.2,29.0\nmat+,0,0.3,\n"
    kept = "row,seed,gain,seconds\nmat,0,0.1,30.5\nmat,1,0.2,29.0\nmat+,0,0.3,\n"
    assert keep_seconds(new, old) == kept
    assert keep_seconds(new, tmp_path / "none.csv") == new
    assert keep_seconds("row,seed\nmat,0\n", old) == "row,seed\nmat,0\n"
