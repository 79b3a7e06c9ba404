"""Outcomes travel without weights, and only to the study that they belong to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from matlib.config import Profile, Run, load_profile
from matlib.study.records import FILE, accept_records, keep_seconds, write_records
from matlib.study.runs import Study
from matlib.study.tables import write_results
from matlib.study.tasks import Rows, Task, is_done
from matlib.study.workers import make_rows
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
    other = Study(profile(), tmp_path / "other")
    assert accept_records(other, tmp_path / "published") > 0
    assert is_done(other, Task("judged", "text-at", 1))
    assert is_done(other, Task("sanity", "text-at", 0))
    assert not is_done(other, Task("judged", "text-at", 0)), "its captions are shown"
    here, there = (study.judged("text-at", 1).outcomes for study in (other, done))
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
    assert set(pd.read_csv(tmp_path / "a" / FILE)["kind"]) == {"judged", "sanity"}
    assert accept_records(done, tmp_path / "nowhere") == 0


def test_what_is_published_again_keeps_the_provenance_of_the_runs_that_made_it(
    done: Study, tmp_path: Path
) -> None:
    write_results(done)
    write_records(done, tmp_path)
    shutil.copy(done.root / "provenance.json", tmp_path)
    other = Study(profile(), tmp_path / "other")
    accept_records(other, tmp_path, whole=True)
    write_results(other)
    kinds = ("judged", "sanity")
    first, again = (
        {a["hash"]: a for a in json.loads(text)["artefacts"] if a["kind"] in kinds}
        for text in ((s.root / "provenance.json").read_text() for s in (done, other))
    )
    assert again and again == {key: first[key] for key in again}


def test_seconds_that_are_unknown_here_stay_as_they_were_published(tmp_path: Path) -> None:
    old = tmp_path / "techniques.csv"
    old.write_text("row,seed,seconds\nmat,0,30.5\nmat,1,31.5\n")
    new = "row,seed,gain,seconds\nmat,0,0.1,\nmat,1,0.2,29.0\nmat+,0,0.3,\n"
    kept = "row,seed,gain,seconds\nmat,0,0.1,30.5\nmat,1,0.2,29.0\nmat+,0,0.3,\n"
    assert keep_seconds(new, old) == kept
    assert keep_seconds(new, tmp_path / "none.csv") == new
    assert keep_seconds("row,seed\nmat,0\n", old) == "row,seed\nmat,0\n"
