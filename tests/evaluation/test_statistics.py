"""Intervals over queries: clusters, pairing, strata, and the edge where nothing varies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import Tensor

from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import (
    Stratum,
    bootstrap_contrast,
    endpoint_over_seeds,
    primary_difference,
    primary_endpoint,
    recall_estimate,
)
from tests.toys import generator

COUNTS = torch.tensor([5, 6, 1, 2] * 20)
OWN = torch.repeat_interleave(torch.arange(len(COUNTS)), COUNTS)


def outcomes(seed: int, own: Tensor = OWN) -> Outcomes:
    g = generator(seed)
    n = int(own.max()) + 1
    return Outcomes(torch.randint(3, (n,), generator=g), torch.randint(3, (len(own),), generator=g))


def constant(rank: int) -> Outcomes:
    return Outcomes(torch.full((len(COUNTS),), rank), torch.full((len(OWN),), rank))


def test_estimates_are_the_plain_recalls() -> None:
    found = outcomes(0)
    assert recall_estimate(found, OWN, "TR", 1).value == pytest.approx(found.recall("TR", 1))
    assert recall_estimate(found, OWN, "IR", 2).value == pytest.approx(found.recall("IR", 2))
    assert primary_endpoint(found) == pytest.approx(
        (found.recall("TR", 1) + found.recall("IR", 1)) / 2
    )
    assert primary_difference(found, None, OWN).value == pytest.approx(primary_endpoint(found))
    assert recall_estimate(found, OWN, "IR", 1).n == len(COUNTS)  # images, not captions


def test_swapping_the_models_mirrors_the_difference() -> None:
    a, b = outcomes(0), outcomes(1)
    there = primary_difference(a, b, OWN, seed=3)
    back = primary_difference(b, a, OWN, seed=3)
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_a_model_differs_from_itself_by_exactly_zero() -> None:
    same = primary_difference(outcomes(0), outcomes(0), OWN)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_pairing_narrows_the_interval_of_two_models_that_agree() -> None:
    a = outcomes(0)
    b = Outcomes(a.tr_rank.clone(), a.ir_rank.clone())
    b.tr_rank[:4], b.ir_rank[:9] = 2, 2
    paired = primary_difference(a, b, OWN)
    strata = [Stratum(((1.0, a),), OWN), Stratum(((-1.0, b),), OWN)]
    apart = bootstrap_contrast(strata)
    assert paired.value == pytest.approx(apart.value)
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_the_variance_of_independent_strata_adds_up() -> None:
    small = torch.arange(50)
    a, b = outcomes(0), outcomes(1, small)
    first = bootstrap_contrast([Stratum(((1.0, a),), OWN)], n_boot=4000)
    second = bootstrap_contrast([Stratum(((1.0, b),), small)], n_boot=4000)
    both = bootstrap_contrast(
        [Stratum(((1.0, a),), OWN), Stratum(((-1.0, b),), small)], n_boot=4000
    )
    widths = [e.high - e.low for e in (first, second, both)]
    assert widths[2] == pytest.approx((widths[0] ** 2 + widths[1] ** 2) ** 0.5, rel=0.1)
    assert both.n == len(COUNTS) + 50


def test_no_hit_at_all_still_has_an_upper_end() -> None:
    """Clopper & Pearson, 0 of 80 images: 1 - 0.025^(1/80)."""
    none, every = (
        primary_difference(constant(7), None, OWN),
        recall_estimate(constant(0), OWN, "IR", 1),
    )
    beyond = 1 - 0.025 ** (1 / len(COUNTS))
    assert (none.value, none.low, none.high) == (0.0, 0.0, pytest.approx(beyond))
    assert (every.value, every.low, every.high) == (1.0, pytest.approx(1 - beyond), 1.0)


@given(st.integers(1, 6), st.integers(0, 2**20), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_rule_of_intervals(n_seeds: int, first_seed: int, is_difference: bool) -> None:
    """From three seeds on scipy's t-interval of the means; below, the first seed's bootstrap."""
    seeds = range(first_seed, first_seed + n_seeds)
    own = [outcomes(seed) for seed in seeds]
    other = [outcomes(seed + 1000) for seed in seeds] if is_difference else None
    found = endpoint_over_seeds(own, other, OWN, n_boot=50)
    if n_seeds < 3:
        assert found == primary_difference(own[0], other[0] if other else None, OWN, n_boot=50)
        assert (found.unit, found.n, found.n_seeds) == ("query", len(COUNTS), 1)
        return
    levels = [(o.recall("TR", 1) + o.recall("IR", 1)) / 2 for o in (*own, *(other or ()))]
    values = [a - b for a, b in zip(levels, levels[n_seeds:] or [0.0] * n_seeds, strict=False)]
    wanted = stats.ttest_1samp(values, 0.0, alternative="two-sided").confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.value == pytest.approx(sum(values) / n_seeds)
    assert (found.unit, found.n_seeds) == ("seed", n_seeds)


def test_seeds_that_do_not_pair_are_refused() -> None:
    own = [outcomes(0), outcomes(1)]
    for first, second in ((own, own[:1]), ([], None)):
        with pytest.raises(ValueError, match="same seeds twice, one or more"):
            endpoint_over_seeds(first, second, OWN)


def test_outcomes_of_different_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="same queries"):
        primary_difference(outcomes(0), outcomes(1, torch.arange(50)), OWN)
    with pytest.raises(ValueError, match="same queries"):
        recall_estimate(outcomes(0), OWN[:-1], "TR", 1)
    with pytest.raises(ValueError, match="at least one stratum"):
        bootstrap_contrast([])
