"""Results in words say what the numbers say."""

from __future__ import annotations

import math

import pytest

from matlib.analysis.figures.sentences import (
    bend_sentence,
    captions_html,
    claim_numbers,
    claim_sentence,
    comparison,
    marked_html,
    marked_text,
    percent,
    theory_sentence,
)


def test_changed_words_are_marked_and_only_they() -> None:
    before, after = "a red star", "a crimson star"
    assert marked_text(before, after) == "a [red→crimson] star"
    assert marked_html(before, after) == "a <del>red</del> <ins><b>crimson</b></ins> star"
    assert marked_text(before, before) == marked_html(before, before) == before


def test_captions_of_another_length_are_marked_whole() -> None:
    assert marked_text("a star", "a big star") == "[a star→a big star]"
    assert marked_html("a", "b c") == "<del>a</del> <ins><b>b c</b></ins>"


def test_captions_cannot_bring_markup_with_them() -> None:
    html = captions_html(["a <b>"], {"<i>": ["a <script>"]})
    assert "<script>" not in html and "<i>" not in html
    assert "&lt;script&gt;" in html


def test_a_table_of_captions_needs_as_many_of_each() -> None:
    with pytest.raises(ValueError, match="needs 2 captions"):
        captions_html(["a", "b"], {"attack": ["a"]})


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.3, "is above"), (-0.3, -0.01, "is below"), (-0.1, 0.3, "cannot be told from")],
)
def test_comparison_follows_the_interval(low: float, high: float, expected: str) -> None:
    assert expected in comparison("MAT", "TeCoA", (low + high) / 2, low, high)


def test_below_is_said_with_positive_points() -> None:
    assert comparison("a", "b", -0.2, -0.3, -0.1) == "a is below b by 20.0 points [10.0, 30.0]"


def test_percent_leaves_out_limits_that_are_unknown() -> None:
    assert percent(0.1234, 0.1, 0.2) == "12.3 % [10.0, 20.0]"
    assert percent(0.5) == "50.0 %"
    assert percent(math.nan) == "not measured"


def test_claim_sentence_says_number_interval_and_verdict() -> None:
    claim = {
        "id": "C0", "claim": "MAT helps", "contrast": "mat - base", "estimate": 0.123,
        "ci_low": 0.1, "ci_high": 0.15, "n": 250, "unit": "query", "n_seeds": 1,
        "verdict": "favourable, for these weights only",
    }  # fmt: skip
    assert claim_sentence(claim) == (
        "C0 (MAT helps): favourable, for these weights only. mat - base: +12.3 points "
        "[+10.0, +15.0], over 250 images, 1 training seed."
    )


def test_design_points_are_named_by_their_contrast_alone() -> None:
    claim = {
        "id": "C7a", "contrast": "high - low, over 54 design points, 2 seeds", "estimate": 0.1,
        "ci_low": 0.05, "ci_high": 0.15, "n": 54, "unit": "point", "n_seeds": 2,
    }  # fmt: skip
    wanted = "high - low, over 54 design points, 2 seeds: +10.0 points [+5.0, +15.0], "
    assert claim_numbers(claim) == f"{wanted}2 training seeds"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((-0.116, -0.011), "1.1 to 11.6 points farther than the mean"),
        ((0.02, 0.03), "2.0 to 3.0 points nearer than the mean"),
        ((-0.02, 0.01), "not told apart from the mean of the others (-2.0 to +1.0 points nearer)"),
    ],
)
def test_the_theory_is_nearer_or_farther_than_the_mean(
    limits: tuple[float, float], words: str
) -> None:
    sentence = theory_sentence(0.108, *limits, n_inside=1, n=10)
    assert "10.8 points" in sentence and words in sentence and "1 of 10 techniques" in sentence
    within = theory_sentence(0.108, *limits, n_inside=10, n=10)
    assert within.endswith("(10 techniques)")


def test_a_bend_says_whether_the_middle_is_better() -> None:
    better = bend_sentence("image", "alignment", -0.029)
    assert better == "added images: half alignment is better than its ends foretell, by 2.9 points"
    assert "is worse" in bend_sentence("text", "shift", 0.01)
