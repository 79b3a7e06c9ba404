"""The crossed model: closed forms of it, and what its intervals cover on simulated data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from matlib.evaluation.crossed import (
    Array,
    UncertainMean,
    between_galleries,
    contributions,
    crossed_estimate,
    interval,
    linearised,
    over_worlds,
    within_a_world,
)
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import primary_difference, primary_endpoint
from tests.toys import generator

OWN = torch.arange(40).repeat_interleave(torch.tensor([1, 3] * 20))


def outcomes(seed: int) -> Outcomes:
    g = generator(seed)
    return Outcomes(torch.randint(3, (40,), generator=g), torch.randint(3, (80,), generator=g))


def test_contributions_average_to_the_endpoint() -> None:
    found = outcomes(0)
    assert contributions(found, OWN).mean() == pytest.approx(primary_endpoint(found))
    reciprocal = [(1 / (ranks + 1.0)).mean() for ranks in (found.tr_rank, found.ir_rank)]
    mrr = contributions(found, OWN, "MRR").mean()
    assert mrr == pytest.approx(float(sum(reciprocal) / 2)) and mrr > primary_endpoint(found)


def test_over_images_alone_the_interval_is_the_bootstraps() -> None:
    """Captions of an image stay together, and their numbers differ between images."""
    found = outcomes(0)
    values = contributions(found, OWN)
    own = primary_difference(found, None, OWN, n_boot=8000)
    half = 1.96 * math.sqrt(values.var(ddof=1) / len(values))
    assert half == pytest.approx((own.high - own.low) / 2, rel=0.05)


def test_without_images_to_differ_it_is_welchs_test() -> None:
    first, second = np.array([0.3, 0.35, 0.28, 0.33]), np.array([0.2, 0.29, 0.25])
    parts = [np.repeat(each[:, None], 5, 1) for each in (first, second)]
    found = interval(within_a_world(*parts), 4)
    wanted = stats.ttest_ind(first, second, equal_var=False)
    limits = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))
    one_sided = stats.ttest_ind(first, second, equal_var=False, alternative="greater")
    assert found.p_below == pytest.approx(one_sided.pvalue)


def test_one_seed_on_both_sides_is_the_paired_test_over_images() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((1, 30)), rng.random((1, 30))
    found = interval(within_a_world(first, second), 1)
    limits = stats.ttest_rel(first[0], second[0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))


def test_worlds_that_differ_are_the_sample() -> None:
    values = [0.1, 0.3, 0.2, 0.5]
    found = interval(over_worlds([UncertainMean(value, 1e-9, 10.0) for value in values]), 4)
    limits = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high))
    alike = over_worlds([UncertainMean(0.2, 0.01, 10.0)] * 4)  # no more than each by itself shows
    assert alike.variance == pytest.approx(0.01 / 4) and alike.df == pytest.approx(40.0)


def test_two_galleries_have_images_of_their_own_and_the_same_trainings() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.random((1, 30)), rng.random((1, 50))
    found = between_galleries(train, test)  # of one training: Welch's test over images
    wanted = stats.ttest_ind(train[0], test[0], equal_var=False).confidence_interval(0.95)
    limits = interval(found, 1)
    assert (limits.low, limits.high) == pytest.approx((wanted.low, wanted.high))
    gaps = np.array([0.3, 0.1, 0.2, 0.15])  # images alike, trainings not: the paired test
    level = rng.random((4, 1))
    same = between_galleries(np.repeat(level + gaps[:, None], 30, 1), np.repeat(level, 50, 1))
    wanted = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    limits = interval(same, 4)
    assert (limits.low, limits.high) == pytest.approx((wanted.low, wanted.high))


def test_a_function_of_several_endpoints_is_exact_where_it_is_linear() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((2, 3, 20))
    found = linearised(values, lambda left: float(left[0] - 2 * left[1]))
    assert found == pytest.approx(values[0] - 2 * values[1], abs=1e-8)
    product = linearised(values, lambda left: float(left[0] * left[1]))
    first, second = values[0].mean(), values[1].mean()
    assert product.mean() == pytest.approx(first * second)
    by_hand = second * (values[0] - first) + first * (values[1] - second)
    assert product - product.mean() == pytest.approx(by_hand, abs=1e-8)


def drawn(rng: np.random.Generator, sd: dict[str, float], world: float) -> Array:
    """(5, 60) contributions with effects of seeds, images and both, about a world's mean."""
    seeds, images = rng.normal(0, sd["seed"], (5, 1)), rng.normal(0, sd["image"], (1, 60))
    return np.asarray(world + seeds + images + rng.normal(0, sd["both"], (5, 60)))


@pytest.mark.parametrize("n_worlds", [1, 3, 5])
@pytest.mark.parametrize("of_worlds", [0.0, 0.03, 0.1])
def test_intervals_cover_what_they_say(n_worlds: int, of_worlds: float) -> None:
    """Truth 0.2; one world speaks of itself, several of all worlds that could have been."""
    rng, sd, n, hits = np.random.default_rng(1), {"seed": 0.02, "image": 0.2, "both": 0.3}, 600, 0
    for _ in range(n):
        means = 0.2 + rng.normal(0, of_worlds if n_worlds > 1 else 0.0, n_worlds)
        parts = [within_a_world(drawn(rng, sd, mean)) for mean in means]
        found = interval(over_worlds(parts), 5 * n_worlds)
        hits += found.low <= 0.2 <= found.high
    assert 0.91 <= hits / n <= 0.99  # 0.95, and 3 standard errors of this simulation


def test_below_three_trainings_it_is_about_the_first_weights() -> None:
    own, other = [outcomes(0), outcomes(1)], [outcomes(2), outcomes(3)]
    found = crossed_estimate([(own, other, OWN)], n_boot=50)
    assert found == primary_difference(own[0], other[0], OWN, n_boot=50)
    assert (found.unit, found.n_seeds) == ("query", 1)
    by_rank = crossed_estimate([(own, other, OWN)], "MRR", n_boot=50)
    gain = contributions(own[0], OWN, "MRR") - contributions(other[0], OWN, "MRR")
    assert by_rank.value == pytest.approx(gain.mean()) and by_rank.unit == "query"


def test_the_base_has_one_seed_beside_any_number() -> None:
    own, base = [outcomes(seed) for seed in range(3)], [outcomes(9)]
    found = crossed_estimate([(own, base, OWN)])
    wanted = sum(map(primary_endpoint, own)) / 3 - primary_endpoint(base[0])
    assert found.value == pytest.approx(wanted) and (found.unit, found.n_seeds) == ("seed", 3)
    assert crossed_estimate([(own, base, OWN)] * 2).n_seeds == 6


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="one world and one seed"):
        crossed_estimate([])
    with pytest.raises(ValueError, match="one world and one seed"):
        crossed_estimate([([], None, OWN)])
    with pytest.raises(ValueError, match="the same two or more images"):
        within_a_world(np.zeros((3, 5)), np.zeros((3, 6)))
    with pytest.raises(ValueError, match="one world or more"):
        over_worlds([])
