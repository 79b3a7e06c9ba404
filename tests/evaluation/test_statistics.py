"""Intervals over queries: clusters, pairing, strata, and the edge where nothing varies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import (
    Stratum,
    bootstrap_contrast,
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


def test_outcomes_of_different_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="same queries"):
        primary_difference(outcomes(0), outcomes(1, torch.arange(50)), OWN)
    with pytest.raises(ValueError, match="same queries"):
        recall_estimate(outcomes(0), OWN[:-1], "TR", 1)
    with pytest.raises(ValueError, match="at least one stratum"):
        bootstrap_contrast([])
