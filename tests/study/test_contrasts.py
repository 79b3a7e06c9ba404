"""What a contrast is called says what it was measured at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from matlib.evaluation.robustness import key_of
from matlib.evaluation.statistics import primary_endpoint
from matlib.study.made.protocols import UNIMODAL_ATTACKS, unimodal
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import rows_of
from matlib.study.study import Study
from matlib.study.tables.contrasts import (
    RIVALS,
    THREAT_PARTS,
    beyond_independence,
    joint_beyond_both,
    left_in_words,
    mat_of,
    rivals_of_mat,
)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.29, "29% left, not the 30-60 % that C1 is about"),
        (0.2951, "30% left"),
        (0.3, "30% left"),
        (0.6, "60% left"),
        (0.61, "61% left, not the 30-60 % that C1 is about"),
        (0.0, "0% left, not the 30-60 % that C1 is about"),
    ],
)
def test_less_or_more_left_than_the_claim_is_about_is_said(share: float, words: str) -> None:
    assert left_in_words(share) == words


def test_what_c1_foretells_is_independence_on_the_scale_of_log_odds() -> None:
    """Odds 4, 1 and 1/2: both together leave odds of 1/8, a share of 1/9."""
    clean, image, words = 4 / 5, 1 / 2, 1 / 3
    assert beyond_independence(np.array([clean, image, words, 0.0])) == pytest.approx(1 / 9)
    assert beyond_independence(np.array([clean, image, words, 0.2])) == pytest.approx(1 / 9 - 0.2)
    nothing = beyond_independence(np.array([0.8, 0.8, 0.3, 0.3]))  # an attack that does nothing
    assert nothing == pytest.approx(0.0)


def test_c1_sets_what_both_leave_beside_what_each_foretells(base_study: Study) -> None:
    e = base_study.profile.evaluation
    outcomes = base_study.evaluated("base", 0, unimodal(e)).outcomes
    [found] = joint_beyond_both(base_study)
    left = [primary_endpoint(outcomes[key_of(a, e.primary_threat)]) for a in UNIMODAL_ATTACKS]
    assert found.estimate.value == pytest.approx(beyond_independence(np.array(left)))
    assert found.unit == "query" and found.estimate.low <= found.estimate.value
    for share in left[1:3]:
        assert left_in_words(share) in found.name


def test_each_threat_has_a_row_and_the_mat_of_its_words() -> None:
    profile = load_profile("demo-full")
    study = cast(Study, SimpleNamespace(profile=profile, rows=lambda: rows_of(profile)))
    mats = {part.name: mat_of(study, part) for part in THREAT_PARTS}
    assert mats["known words"] == "mat-valid" and mats["held-out words"] == "mat"
    without = profile.model_copy(update={"runs": (Run(defence="mat"),)})
    study = cast(Study, SimpleNamespace(profile=without, rows=lambda: rows_of(without)))
    assert {mat_of(study, part) for part in THREAT_PARTS} == {"mat"}
    assert rivals_of_mat(study) == []  # no image-only, no text-only training, no TeCoA
    trained = {run.row for run in profile.runs if not run.row.startswith(("clean", "mat"))}
    assert trained <= {*RIVALS} and {f"{name}-valid" for name in ("mmcoa", "fare+leaf")} <= {
        *RIVALS
    }
