"""What a contrast is called says what it was measured at."""

from __future__ import annotations

import pytest

from matlib.evaluation.statistics import primary_endpoint
from matlib.study.made.protocols import unimodal
from matlib.study.study import Study
from matlib.study.tables.contrasts import left_in_words, unimodal_margins


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.29, "29% left, outside 30-60 %"),
        (0.2951, "30% left"),
        (0.3, "30% left"),
        (0.6, "60% left"),
        (0.61, "61% left, outside 30-60 %"),
        (0.0, "0% left, outside 30-60 %"),
    ],
)
def test_less_or_more_left_than_the_claim_is_about_is_said(share: float, words: str) -> None:
    assert left_in_words(share) == words


def test_the_margins_of_claim_c1_say_what_each_attack_alone_leaves(base_study: Study) -> None:
    e = base_study.profile.evaluation
    outcomes = base_study.evaluated("base", 0, unimodal(e)).outcomes
    image, text = unimodal_margins(base_study)
    for found, key in ((image, ("pgd", "")), (text, ("bert", e.primary_threat))):
        assert f"({left_in_words(primary_endpoint(outcomes[key]))})" in found.name
