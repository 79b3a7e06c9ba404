"""Seeds, multiplicity and verdicts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st
from scipy import stats

from matlib.evaluation.statistics import holm, t_interval, verdict

# hypothesis' floats refuse a processor that flushes denormals, as the tests' set-up does
SHARES = st.integers(0, 1000).map(lambda i: i / 1000)


def test_t_interval_equals_a_textbook_example() -> None:
    """Differences 1 to 5: mean 3, s = sqrt(2.5), t(0.975, 4) = 2.776."""
    found = t_interval([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(2.5 / 5)
    assert (found.value, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half), abs=1e-5)
    assert (found.n, found.unit) == (5, "seed")


def test_t_interval_p_value_equals_scipys_one_sided_test() -> None:
    differences = [0.02, 0.05, -0.01, 0.04]
    wanted = stats.ttest_1samp(differences, 0.01, alternative="greater").pvalue
    assert t_interval(differences, threshold=0.01).p_below == pytest.approx(float(wanted))


def test_t_interval_of_equal_differences_is_a_point() -> None:
    found = t_interval([0.5, 0.5, 0.5])
    assert (found.low, found.high, found.p_below) == (0.5, 0.5, 0.0)
    assert t_interval([0.0, 0.0, 0.0]).p_below == 1.0


def test_t_interval_refuses_two_seeds() -> None:
    with pytest.raises(ValueError, match="needs 3 seeds"):
        t_interval([0.1, 0.2])


def test_holm_equals_a_textbook_example() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(SHARES, min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(
    p: list[float],
) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert all(a <= min(1.0, len(p) * b) for a, b in zip(adjusted, p, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_holm_refuses_what_is_no_p_value() -> None:
    for bad in (float("nan"), -0.1, 1.1):
        with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
            holm([0.5, bad])


ABOVE, BELOW, ACROSS = (0.06, 0.2), (-0.1, 0.04), (0.01, 0.1)  # of a threshold of 0.05


@pytest.mark.parametrize(
    ("interval", "word", "of_weights"),
    [
        (ABOVE, "supported", "favourable"),
        (BELOW, "not supported", "unfavourable"),
        (ACROSS, "inconclusive", "inconclusive"),
    ],
)
def test_the_verdict_follows_from_interval_and_seeds(
    interval: tuple[float, float], word: str, of_weights: str
) -> None:
    assert verdict(*interval, n_seeds=5, threshold=0.05) == word
    for n_seeds in (3, 4):
        assert verdict(*interval, n_seeds=n_seeds, threshold=0.05) == "inconclusive"
    only = f"{of_weights}, for these weights only"
    for n_seeds in (1, 2):
        assert verdict(*interval, n_seeds=n_seeds, threshold=0.05) == only
    assert verdict(*interval, n_seeds=9, unit="query", threshold=0.05) == only


@given(SHARES, SHARES, st.integers(0, 4), SHARES)
def test_nothing_is_ever_supported_below_five_seeds(
    low: float, width: float, n_seeds: int, p: float
) -> None:
    assert verdict(low - 0.5, low - 0.5 + width, n_seeds=n_seeds, p_adjusted=p) not in (
        "supported",
        "not supported",
    )


def test_an_interval_that_touches_the_threshold_decides_nothing() -> None:
    assert verdict(0.0, 0.1, n_seeds=5) == "inconclusive"
    assert verdict(-0.1, 0.0, n_seeds=5) == "inconclusive"


def test_a_claim_that_holm_takes_away_is_inconclusive() -> None:
    assert verdict(*ABOVE, n_seeds=5, p_adjusted=0.02) == "supported"
    assert verdict(*ABOVE, n_seeds=5, p_adjusted=0.03) == "inconclusive"
    assert verdict(*ABOVE, n_seeds=5, p_adjusted=float("nan")) == "inconclusive"


def test_the_floor_decides_before_the_interval_does() -> None:
    assert verdict(*ABOVE, n_seeds=5, at_floor=True) == "inconclusive (floor)"


def test_what_was_not_measured_is_not_yet_tested() -> None:
    assert verdict(float("nan"), float("nan"), n_seeds=5) == "not yet tested"
    assert verdict(*ABOVE, n_seeds=0) == "not yet tested"


def test_a_reversed_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="ends before it begins"):
        verdict(0.2, 0.1, n_seeds=5)
