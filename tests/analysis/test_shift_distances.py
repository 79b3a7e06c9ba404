"""Fréchet and kernel distance: closed forms, the calibrated test, and the known dose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import linalg
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from matlib.analysis.shift.frechet import frechet_distance, frechet_interval, frechet_test
from matlib.analysis.shift.mmd import (
    kernel_distance,
    kernel_distance_interval,
    kernel_distance_test,
)
from matlib.analysis.shift.sensitivity import dose_curve, mixed, shift_statistics, size_curve
from tests.toys import generator


def sample(n: int, seed: int, shift: float = 0.0, d: int = 4, scale: float = 1.0) -> torch.Tensor:
    rows = torch.randn(n, d, generator=generator(seed), dtype=torch.double)
    return scale * rows + shift


def test_distances_equal_those_of_torchmetrics() -> None:
    x, y = sample(40, 0), sample(40, 1, shift=0.3)
    moments = [each for rows in (x, y) for each in (rows.mean(0), rows.T.cov())]
    assert frechet_distance(x, y) == pytest.approx(float(_compute_fid(*moments)))
    unit = (torch.nn.functional.normalize(rows, dim=1) for rows in (x, y))
    assert kernel_distance(x, y) == pytest.approx(float(poly_mmd(*unit, gamma=1.0)))


def fid_by_matrix_root(x: torch.Tensor, y: torch.Tensor) -> float:
    """The formula as written, with scipy's root of the product."""
    a, b = x.numpy(), y.numpy()
    s, t = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(s @ t).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root))


@pytest.mark.parametrize(("n", "m"), [(30, 40), (6, 40), (3, 5)])
def test_frechet_is_the_formula_as_written(n: int, m: int) -> None:
    x, y = sample(n, 0), sample(m, 1, shift=0.5, scale=1.5)
    assert frechet_distance(x, y) == pytest.approx(fid_by_matrix_root(x, y), abs=1e-4)


def test_frechet_of_scaled_and_moved_copies_is_known() -> None:
    x = sample(50, 0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 0.3) == pytest.approx(4 * 0.3**2)
    # S and 9 S: tr(S + 9 S - 2 * 3 S) = 4 tr S; centred, so the means agree
    centred = x - x.mean(0)
    variance = float(centred.square().sum() / 49)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * variance)


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 12))
def test_frechet_is_symmetric_and_not_negative(seed: int, n: int, m: int) -> None:
    x, y = sample(n, seed), sample(m, seed + 1)
    there, back = frechet_distance(x, y), frechet_distance(y, x)
    assert there == pytest.approx(back, abs=1e-8) and there >= 0


def test_frechet_test_takes_out_the_bias_of_small_samples() -> None:
    excess, p_values = [], []
    for seed in range(40):
        found = frechet_test(
            sample(25, 2 * seed, d=8), sample(25, 2 * seed + 1, d=8), generator(seed),
            n_permutations=39,
        )  # fmt: skip
        assert found.distance > 0.5  # biased: there is no shift
        excess.append(found.distance - found.without_shift)
        p_values.append(found.p_value)
    assert abs(np.mean(excess)) < 0.15
    assert np.mean(np.array(p_values) <= 0.1) <= 0.25
    shifted = frechet_test(sample(25, 1, d=8), sample(25, 2, shift=1, d=8), generator())
    assert shifted.p_value == 0.01 and shifted.distance - shifted.without_shift > 4


def test_frechet_interval_is_about_as_wide_as_the_spread_of_samples() -> None:
    values, widths = [], []
    for seed in range(60):
        x, y = sample(60, 2 * seed), sample(60, 2 * seed + 1, shift=0.5)
        found = frechet_interval(x, y)
        assert found.low < found.value < found.high
        values.append(found.value)
        widths.append((found.high - found.low) / (2 * 1.96))
    assert 0.7 < np.mean(widths) / np.std(values) < 1.4
    moved = frechet_interval(x, y, without_shift=0.2)
    assert moved.value == pytest.approx(found.value - 0.2)


def test_frechet_interval_of_too_few_rows_has_no_limits() -> None:
    found = frechet_interval(sample(3, 0), sample(40, 1))
    assert math.isfinite(found.value) and math.isnan(found.low) and math.isnan(found.high)


def test_kernel_distance_is_the_double_loop() -> None:
    x, y = sample(6, 0), sample(5, 1, shift=0.5)
    a, b = (r / r.norm(dim=1, keepdim=True) for r in (x, y))

    def mean(p: torch.Tensor, q: torch.Tensor, same: bool) -> float:
        values = [
            (float(u @ v) + 1) ** 3
            for i, u in enumerate(p)
            for j, v in enumerate(q)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    wanted = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    assert kernel_distance(x, y) == pytest.approx(wanted)
    found = kernel_distance_interval(x, y)
    assert found.value == pytest.approx(wanted) and found.low < wanted < found.high
    tested = kernel_distance_test(x, y, generator(), n_permutations=20)
    assert tested.mmd2 == pytest.approx(wanted) and math.isnan(tested.bandwidth)


def test_kernel_test_is_calibrated_and_sees_a_shift() -> None:
    p = [
        kernel_distance_test(sample(20, s), sample(20, 500 + s), generator(s), n_permutations=39)
        for s in range(60)
    ]
    assert np.mean([t.p_value <= 0.1 for t in p]) <= 0.22
    assert kernel_distance_test(sample(40, 1), sample(40, 2, 1.0), generator()).p_value < 0.01


def pools(n: int = 60) -> tuple[dict[float, torch.Tensor], torch.Tensor]:
    plain, far = sample(n, 0), sample(n, 0, shift=1.5)
    made = {share: mixed(plain, far, share, generator()) for share in (0.0, 0.5, 1.0)}
    return made, sample(n, 9)


def test_more_dose_is_more_shift_for_every_measure() -> None:
    made, test = pools()
    statistics = shift_statistics(made[0.0], test)
    table = dose_curve(made, test, statistics, n=25, n_draws=8, n_null=20)
    assert set(table["measure"]) == set(statistics)
    for name, part in table.groupby("measure"):
        ordered = part.sort_values("dose")
        assert ordered["value"].is_monotonic_increasing, name
        assert ordered["detected"].iloc[-1] == 1 and ordered["detected"].iloc[0] <= 0.4, name
        assert (ordered["low"] <= ordered["value"]).all()
        assert (ordered["detected_low"] <= ordered["detected"]).all()


def test_small_samples_detect_less_and_bias_the_frechet_distance() -> None:
    made, test = pools(100)
    statistics = shift_statistics(made[0.0], test)
    statistics = {name: statistics[name] for name in ("mmd2", "frechet")}
    table = size_curve(
        {dose: made[dose] for dose in (0.0, 0.5)}, test, statistics,
        sizes=(6, 50), n_draws=20, n_null=40,
    ).set_index(["measure", "dose", "n"])  # fmt: skip
    assert table.loc[("mmd2", 0.5, 6), "detected"] < table.loc[("mmd2", 0.5, 50), "detected"]
    no_shift = table.xs(0.0, level="dose")["value"]
    assert no_shift["frechet", 6] > 3 * no_shift["frechet", 50]


def test_doses_need_a_zero_and_enough_items() -> None:
    made, test = pools(20)
    statistics = shift_statistics(made[0.0], test)
    with pytest.raises(ValueError, match="dose 0"):
        dose_curve({1.0: made[1.0]}, test, statistics, n=5)
    with pytest.raises(ValueError, match="at least 21 items"):
        dose_curve(made, test, statistics, n=21)
    with pytest.raises(ValueError, match=r"share in \[0, 1\]"):
        mixed(made[0.0], made[1.0], 1.2, generator())


def test_a_mixture_holds_the_share_that_it_says() -> None:
    plain, far = torch.zeros(40, 2), torch.ones(40, 2)
    assert float(mixed(plain, far, 0.25, generator()).mean()) == 0.25
