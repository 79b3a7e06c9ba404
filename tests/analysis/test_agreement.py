"""Correlations, calibration and agreement: as scipy has them, with intervals that cover."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from matlib.analysis.agreement import calibration, correlation, rank_agreement, rank_correlation
from tests.toys import generator


def two_measures(
    n_groups: int, per_group: int, seed: int, noise: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of one original share half of their value."""
    g = generator(seed)
    groups = torch.arange(n_groups).repeat_interleave(per_group)
    shared = torch.randn(n_groups, generator=g)[groups]
    x = shared + torch.randn(len(groups), generator=g)
    return x, x + noise * (torch.randn(len(groups), generator=g)), groups


def test_correlation_is_scipys() -> None:
    x, y, groups = two_measures(20, 3, 0)
    x = x.round(decimals=1)  # ties
    found = correlation(x, y, groups, n_boot=200)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.value < found.high and found.n == 20


def test_rows_of_one_original_are_resampled_together() -> None:
    """Copies of every row add no information: the interval must not shrink."""
    x, y, groups = two_measures(30, 1, 1)
    once = correlation(x, y, groups, n_boot=500)
    copies = correlation(x.repeat(8), y.repeat(8), groups.repeat(8), n_boot=500)
    assert copies.value == pytest.approx(once.value)
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=1e-6)


def test_interval_of_correlation_covers() -> None:
    x, y, _ = two_measures(20_000, 1, 5)
    truth = float(stats.spearmanr(x, y).statistic)
    hits = 0
    for seed in range(60):
        a, b, groups = two_measures(60, 1, 100 + seed)
        found = correlation(a, b, groups, n_boot=200, seed=seed)
        hits += found.low <= truth <= found.high
    assert hits >= 50


def test_a_constant_side_has_no_correlation() -> None:
    x, y, groups = two_measures(5, 2, 0)
    assert math.isnan(correlation(x, torch.full_like(y, 0.3), groups, n_boot=10).value)
    with pytest.raises(ValueError, match="two of them"):
        correlation(x, y, torch.zeros(10), n_boot=10)


def test_agreement_ranks_techniques_by_their_means() -> None:
    level = torch.arange(5.0)[:, None]
    noise = torch.randn(3, 5, 40, generator=generator(0)) * 0.1
    values = {
        "a": level + noise[0],
        "b": level**2 + noise[1],  # another unit, the same order
        "c": -level + noise[2],
    }
    table = rank_agreement(values, n_boot=100).set_index(["first", "second"])
    assert table.loc[("a", "b"), "value"] == pytest.approx(1)
    assert table.loc[("a", "c"), "value"] == pytest.approx(-1)
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert set(table["n_points"]) == {5} and set(table["n"]) == {40}


def test_agreement_that_few_originals_cannot_show_has_a_wide_interval() -> None:
    g = generator(3)
    values = {name: torch.randn(4, 6, generator=g) for name in "ab"}
    row = rank_agreement(values, n_boot=300).iloc[0]
    assert row["high"] - row["low"] > 0.8


@pytest.mark.parametrize("n", [5, 9])
def test_rank_correlation_of_points_has_an_exact_or_sampled_p_value(n: int) -> None:
    x, y = torch.arange(float(n)), torch.arange(float(n)) ** 2
    found = rank_correlation(x, y)
    assert found.value == found.high == pytest.approx(1)
    assert (found.low > 0) == (n == 9)  # five points in order show little
    assert found.p_below == pytest.approx(1 / math.factorial(n), rel=1e-9, abs=2e-4)
    y = torch.tensor(np.random.default_rng(n).permutation(n))
    if n == 5:
        orders = np.array(list(permutations(range(5))))
        wanted = np.mean(orders @ np.arange(5) >= float(y.double() @ x.double()))
        assert rank_correlation(x, y).p_below == pytest.approx(wanted)


def test_rank_interval_covers_for_few_points() -> None:
    rng = np.random.default_rng(0)
    big = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=100_000)
    truth = stats.spearmanr(big).statistic
    hits = 0
    for _ in range(300):
        few = torch.tensor(rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=8))
        found = rank_correlation(few[:, 0], few[:, 1], n_permutations=1)
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_calibration_finds_the_curve_and_its_spread() -> None:
    g = generator(2)
    groups = torch.arange(200).repeat_interleave(4)
    score = torch.rand(800, generator=g)
    truth = (torch.rand(800, generator=g) < score).double()  # calibrated by construction
    table = calibration(score, truth, groups, n_bins=5, n_boot=300)
    assert table["n_pairs"].tolist() == [160] * 5
    assert table["score"].is_monotonic_increasing
    covered = (table["low"] <= table["score"]) & (table["score"] <= table["high"])
    assert covered.sum() >= 4
    first = score <= table["score_high"].iloc[0]
    assert table["value"].iloc[0] == pytest.approx(float(truth[first].mean()))


def test_calibration_with_many_ties_drops_empty_bins() -> None:
    score = torch.tensor([0.0] * 30 + [1.0] * 10)
    table = calibration(score, score, torch.arange(40), n_bins=8, n_boot=20)
    assert table["n_pairs"].sum() == 40
    constant = calibration(torch.zeros(9), torch.ones(9), torch.arange(9), n_bins=3, n_boot=20)
    assert len(constant) == 1 and constant["value"].item() == 1
