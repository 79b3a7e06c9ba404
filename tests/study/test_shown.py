"""What a results folder shows is what the last study of this very profile has made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matlib.study.profile.profile import ProfileError, load_profile
from matlib.study.publish import shown
from matlib.study.publish.shown import PROFILE, keep_profile, kept_profile
from matlib.study.run import pipeline
from matlib.study.run.pipeline import write_report
from matlib.study.study import Study
from tests.study.toy_notebooks import toy_notebook, write_notebook

SMOKE = load_profile("smoke")
OTHER = SMOKE.model_copy(update={"seeds": (0, 1)})


def filled(folder: Path) -> Path:
    """A folder with tables, a figure, notebooks and a page, as a study leaves it."""
    for name in ("inside.csv", "held_out.csv", "figures/good_pairs.png", "report/25_old.html",
                 "runs/model-x/weights", "extra/own.csv"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")
    (folder / "claims.json").write_text("[]")
    for name in ("00_data", "25_inside_mat"):
        write_notebook(folder / "notebooks" / f"{name}.ipynb", toy_notebook())
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_changed_profile_left_is_removed_and_its_artefacts_stay(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    keep_profile(OTHER, folder)
    assert files(folder) == {PROFILE, "runs/model-x/weights", "extra/own.csv"}
    filled(folder)
    before = files(folder)
    keep_profile(OTHER, folder)
    assert files(folder) == before, "the same profile: a study goes on"


def test_the_kept_profile_is_the_one_that_was_run(tmp_path: Path) -> None:
    for profile in (SMOKE, OTHER, SMOKE.limited(5)):
        assert load_profile(keep_profile(profile, tmp_path)) == profile
    assert kept_profile(SMOKE, tmp_path).limit == 5
    with pytest.raises(ProfileError, match="profile smoke has changed since"):
        kept_profile(OTHER, tmp_path)
    (tmp_path / PROFILE).unlink()
    with pytest.raises(FileNotFoundError, match="holds no study to show"):
        kept_profile(SMOKE, tmp_path)


def test_a_report_links_the_notebooks_of_its_profile_only(tmp_path: Path) -> None:
    profile = SMOKE.model_copy(update={"notebooks": ("00",)})
    keep_profile(profile, tmp_path)
    filled(tmp_path)
    text = write_report(profile, tmp_path).read_text()
    assert "00_data.html" in text and "25_inside_mat" not in text
    assert not (tmp_path / "report" / "25_old.html").exists()


def test_a_report_that_cannot_be_written_is_shown_as_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_profile(SMOKE, tmp_path)
    filled(tmp_path)
    page = write_report(SMOKE, tmp_path)
    before = page.stat()
    for module in (shown, pipeline):
        monkeypatch.setattr(module, "is_writable", lambda folder: False)
    monkeypatch.setattr(pipeline, "build_report", None)
    assert write_report(SMOKE, tmp_path) == page
    assert page.stat() == before


def test_a_claims_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    keep_profile(SMOKE, tmp_path)
    filled(tmp_path)
    (tmp_path / "claims.json").write_text(json.dumps([])[:1])
    with pytest.raises(ValueError, match=r"claims\.json"):
        write_report(SMOKE, tmp_path)


def test_an_unfinished_study_on_a_disk_that_is_only_read_says_what_is_missing(
    base_study: Study,
) -> None:
    with pytest.raises(OSError, match=r"cannot be written, and the study is not finished \("):
        pipeline._show(base_study, lambda line: None)
