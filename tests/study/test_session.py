"""Opening a study from a notebook's parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matlib.study.profile.profile import ProfileError
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.study import open_study, results_folder


def test_opening_says_profile_commit_and_time_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = open_study("smoke", str(tmp_path), "", 4)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "profile smoke, partial: at most 4 test images" in said
    assert "takes about 2 min" in said and str(tmp_path) not in said
    assert study.root == tmp_path / "smoke" and study.profile.dataset.n_test == 4


def test_results_lie_in_the_checkout_unless_said_otherwise(tmp_path: Path) -> None:
    assert results_folder("") == PACKAGE_ROOT / "results"
    assert results_folder(str(tmp_path)) == tmp_path


def test_bad_parameters_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no profile 'nosuch'; known:"):
        open_study("nosuch", str(tmp_path / "results"))
    with pytest.raises(ValueError, match="limit is the number of test images"):
        open_study("smoke", str(tmp_path / "results"), limit=-1)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("limit", ["x", "-1", "4.0", "", 4.0, True, None, "²"])
def test_a_limit_that_is_no_whole_number_is_refused(limit: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="limit is the number of test images at most"):
        open_study("smoke", str(tmp_path), "", limit)


def test_a_limit_in_digits_is_taken_as_papermill_passes_it(tmp_path: Path) -> None:
    assert open_study("smoke", str(tmp_path), "", "4").profile.dataset.n_test == 4
    with pytest.raises(ValueError, match="results is expected as text"):
        open_study("smoke", 5)  # type: ignore[arg-type]
