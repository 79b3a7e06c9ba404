"""The bootstrap against closed forms, and its coverage."""

from __future__ import annotations

import pytest
import torch

from matlib.evaluation import statistics as bootstrap
from matlib.evaluation.statistics import bootstrap_mean, bootstrap_ratio, resampled_ratios
from tests.toys import generator


def test_the_spread_of_a_resampled_share_is_binomial() -> None:
    n, hits = 200, 60
    values = torch.zeros(n, 1, dtype=torch.double)
    values[:hits] = 1
    samples = resampled_ratios(values, torch.ones_like(values), n_boot=20_000, seed=(0,))
    p = hits / n
    assert float(samples.mean()) == pytest.approx(p, abs=0.001)
    assert float(samples.std()) == pytest.approx((p * (1 - p) / n) ** 0.5, rel=0.03)


def test_the_spread_of_a_clustered_share_is_that_of_cluster_totals() -> None:
    """Five captions that are right or wrong together: n images, not 5 n captions."""
    n = 150
    together = (torch.rand(n, generator=generator(0)) < 0.4).double()
    found = bootstrap_ratio(5 * together, torch.full((n,), 5.0), n_boot=10_000)
    p = float(together.mean())
    half = 1.96 * (p * (1 - p) / n) ** 0.5
    assert found.value == pytest.approx(p)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_the_spread_of_a_ratio_with_uneven_clusters_is_the_linearised_one() -> None:
    g = generator(1)
    counts = torch.randint(1, 7, (300, 1), generator=g).double()
    hits = (counts * torch.rand(300, 1, generator=g)).round()
    samples = resampled_ratios(hits, counts, n_boot=10_000, seed=(0,))
    ratio = hits.sum() / counts.sum()
    linearised = float((hits - ratio * counts).square().sum().sqrt() / counts.sum())
    assert float(samples.std()) == pytest.approx(linearised, rel=0.04)


def test_95_percent_intervals_cover_about_95_percent_of_the_time() -> None:
    """120 images with 5 captions of a common difficulty; the true recall is 0.5."""
    g, n_trials = generator(2), 250
    covered = 0
    for trial in range(n_trials):
        difficulty = torch.rand(120, 1, generator=g)
        hits = (torch.rand(120, 5, generator=g) < difficulty).double().sum(1)
        found = bootstrap_ratio(hits, torch.full((120,), 5.0), n_boot=300, seed=trial)
        covered += found.low <= 0.5 <= found.high
    assert 0.91 <= covered / n_trials <= 0.98


def test_resamples_depend_on_the_seed_alone_and_not_on_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = torch.rand(50, generator=generator(0))
    first = bootstrap_mean(values, n_boot=300, seed=4)
    assert bootstrap_mean(values, n_boot=300, seed=4) == first
    assert bootstrap_mean(values, n_boot=300, seed=5).low != first.low
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 50 * 7)
    again = bootstrap_mean(values, n_boot=300, seed=4)
    assert (again.low, again.high) == pytest.approx((first.low, first.high), abs=1e-12)


def test_the_mean_of_two_ratios_is_resampled_jointly() -> None:
    one = torch.rand(40, generator=generator(0)).double()
    both = bootstrap_ratio(torch.stack([one, -one], 1), torch.ones(40, 2), n_boot=200)
    assert (both.value, both.low, both.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_p_value_counts_resamples_at_or_below_the_threshold() -> None:
    values = torch.ones(30)
    assert bootstrap_mean(values, n_boot=99, threshold=0.0).p_below == pytest.approx(0.01)
    assert bootstrap_mean(values, n_boot=99, threshold=1.0).p_below == pytest.approx(1.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="as many numerators"):
        bootstrap_ratio(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="as many numerators"):
        bootstrap_mean(torch.ones(0))
    with pytest.raises(ValueError, match="level is a share"):
        bootstrap_mean(torch.ones(3), level=95)
