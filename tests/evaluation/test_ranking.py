"""Agreement of rankings: scipy's correlation pair by pair, and intervals that mean something."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import spearmanr

from matlib.analysis.agreement import agreement_of_rankings, mean_rank_correlation, permutation_p
from matlib.evaluation.retrieval import Outcomes
from tests.toys import generator

OWN = torch.arange(60).repeat_interleave(2)


def outcomes(recall: float, seed: int) -> Outcomes:
    g = generator(seed)
    tr, ir = (torch.rand(n, generator=g) for n in (60, 120))
    return Outcomes((tr > recall).long(), (ir > recall).long())


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(3, 6), st.integers(0, 2**31))
def test_it_is_the_mean_of_scipys_correlations(n_models: int, n_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(5, size=(n_models, n_rows)).astype(float)  # with ties
    values[:, :2] = [0, 9]  # no model ranks nothing
    plain = [spearmanr(a, b).statistic for a, b in combinations(values, 2)]
    assert mean_rank_correlation(values) == pytest.approx(np.mean(plain))


def test_a_model_that_ranks_nothing_agrees_with_none() -> None:
    values = np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
    assert mean_rank_correlation(values) == 0
    batch = np.stack([values, values[:, ::-1]])
    assert mean_rank_correlation(batch).shape == (2,)


def agreement(levels: list[list[float]], n_seeds: int = 1):  # type: ignore[no-untyped-def]
    models = [
        [[outcomes(level, 100 * i + 10 * j + s) for s in range(n_seeds)]
         for j, level in enumerate(rows)]
        for i, rows in enumerate(levels)
    ]  # fmt: skip
    return agreement_of_rankings(models, OWN, n_boot=300)


def test_clear_orders_agree_or_disagree() -> None:
    up = [0.05, 0.3, 0.6, 0.9]
    same, turned = agreement([up, up, up]), agreement([up, up[::-1]])
    assert same.value == same.low == 1 and same.unit == "query" and same.n == 60
    assert same.p_below < 0.025
    assert turned.value == -1 and turned.high < 0 and turned.p_below > 0.9
    close = agreement([[0.48, 0.5, 0.52, 0.5]] * 2)
    assert close.low < 0, "an order within the noise is no order"


def test_three_techniques_on_two_models_can_agree_by_chance() -> None:
    # one of 3! orders is the same, so that agreement alone supports nothing
    values = np.array([[0.1, 0.5, 0.9]] * 2)
    assert permutation_p(values) == pytest.approx(1 / 6)
    found = agreement([[0.05, 0.5, 0.95]] * 2)
    assert found.value == found.low == 1 and found.p_below > 0.025


def test_seeds_are_resampled_from_three_on() -> None:
    up = [0.1, 0.4, 0.7]
    three, two = agreement([up, up], 3), agreement([up, up], 2)
    assert (three.unit, three.n) == ("seed", 3) and (two.unit, two.n) == ("query", 60)
    # one seed in three turns the order of the second model
    good, bad = [outcomes(x, i) for i, x in enumerate(up)], [outcomes(x, 9) for x in (1, 0.4, 0)]
    models = [[[g, g, g] for g in good], [[g, g, b] for g, b in zip(good, bad, strict=True)]]
    assert agreement_of_rankings(models, OWN, n_boot=300).low < 0


def test_rankings_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="3 techniques"):
        agreement([[0.1, 0.2]] * 2)
    with pytest.raises(ValueError, match="1 models"):
        agreement([[0.1, 0.2, 0.3]])
    with pytest.raises(ValueError, match="two models"):
        mean_rank_correlation(np.zeros((1, 3)))
