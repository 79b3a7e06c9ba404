"""Shift: against a naive MMD, and calibrated where there is no shift."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from matlib.analysis.shift.classifier import two_sample_accuracy
from matlib.analysis.shift.mmd import median_bandwidth, mmd2_unbiased, mmd_test
from tests.toys import generator


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Hundreds of tiny products: on a busy machine, waiting for a second thread costs most."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sample(n: int, seed: int, shift: float = 0.0, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=generator(seed)) + shift


def naive_mmd2(x: Tensor, y: Tensor, sigma: float) -> float:
    def mean(a: Tensor, b: Tensor, skip_same: bool) -> float:
        values = [
            math.exp(-float((a[i] - b[j]).square().sum()) / (2 * sigma**2))
            for i in range(len(a))
            for j in range(len(b))
            if not (skip_same and i == j)
        ]
        return sum(values) / len(values)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 9), (12, 3)])
def test_mmd_equals_a_double_loop(n: int, m: int) -> None:
    x, y = sample(n, 0).double(), sample(m, 1, 0.5).double()
    assert mmd2_unbiased(x, y, 1.7) == pytest.approx(naive_mmd2(x, y, 1.7))


def test_mmd_is_symmetric_and_takes_numpy() -> None:
    x, y = sample(10, 0).numpy(), sample(14, 1).numpy()
    assert mmd2_unbiased(x, y, 2.0) == pytest.approx(mmd2_unbiased(y, x, 2.0))


def test_the_bandwidth_is_the_median_distance() -> None:
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]])
    assert median_bandwidth(x, y) == 2.0  # distances 1, 2, 3
    with pytest.raises(ValueError, match="copies"):
        median_bandwidth(torch.zeros(3, 1), torch.zeros(3, 1))


def test_p_values_without_shift_are_about_uniform() -> None:
    p = [
        mmd_test(sample(30, 2 * s), sample(25, 2 * s + 1), generator(s), n_permutations=99).p_value
        for s in range(150)
    ]
    for level in (0.1, 0.5, 0.9):
        error = (level * (1 - level) / len(p)) ** 0.5
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=3 * error)


def test_a_shift_is_found() -> None:
    near = mmd_test(sample(60, 0), sample(60, 1), generator(), bandwidth=4.0)
    far = mmd_test(sample(60, 0), sample(60, 1, shift=1.0), generator(), bandwidth=4.0)
    assert far.mmd2 > 10 * abs(near.mmd2)
    assert far.p_value == pytest.approx(1 / 501)
    assert (far.n_x, far.n_y, far.bandwidth) == (60, 60, 4.0)


def variants_of(n: int, seed: int, per_original: int = 4) -> tuple[Tensor, Tensor]:
    """Near copies of n originals, and the original of each row."""
    originals = torch.arange(n).repeat_interleave(per_original)
    return sample(n, seed)[originals] + 0.05 * sample(n * per_original, seed + 500), originals


def test_near_copies_of_one_original_do_not_make_a_shift() -> None:
    """Without groups most of these tests would reject at 5 %; with them about 5 % do."""
    naive, grouped = [], []
    for s in range(40):
        x, of_x = variants_of(15, s)
        y = sample(40, s + 1000)
        naive.append(mmd_test(x, y, generator(s), n_permutations=99).p_value)
        test = mmd_test(
            x, y, generator(s), groups_x=of_x, groups_y=torch.arange(100, 140), n_permutations=99
        )
        grouped.append(test.p_value)
        assert (test.n_x, test.n_y) == (15, 40)
    assert np.mean(np.array(naive) <= 0.05) > 0.5
    assert np.mean(np.array(grouped) <= 0.05) < 0.2


def test_the_test_is_a_function_of_its_generator_and_bounded_in_size() -> None:
    first = mmd_test(sample(50, 0), sample(40, 1), generator(1), max_rows=20)
    assert mmd_test(sample(50, 0), sample(40, 1), generator(1), max_rows=20) == first
    assert (first.n_x, first.n_y) == (20, 20)
    assert mmd_test(sample(50, 0), sample(40, 1), generator(2), max_rows=20) != first


def test_the_classifier_is_at_chance_without_shift_and_high_with_it() -> None:
    same = [
        two_sample_accuracy(sample(150, 2 * s), sample(60, 2 * s + 1), seed=s) for s in range(8)
    ]
    # balanced in spite of 150 against 60; the interval leaves out how training samples vary
    assert sum(found.accuracy.low < 0.5 < found.accuracy.high for found in same) >= 6
    assert abs(np.mean([found.accuracy.value for found in same]) - 0.5) < 0.06
    shifted = two_sample_accuracy(sample(100, 0), sample(100, 1, shift=1.5))
    assert shifted.accuracy.low > 0.9
    assert (same[0].n_x, same[0].n_y) == (150, 60)


def test_variants_of_one_original_never_lie_on_both_sides_of_a_split() -> None:
    """Many near copies in many dimensions: a leaking split would recognise each original."""
    g = generator(0)
    originals, per_original = 24, 8
    rows = torch.randn(originals, 40, generator=g).repeat_interleave(per_original, 0)
    group = torch.arange(originals).repeat_interleave(per_original)
    x, y = rows[group < 12], rows[group >= 12]
    leaking = two_sample_accuracy(x, y)
    apart = two_sample_accuracy(x, y, groups_x=group[group < 12], groups_y=group[group >= 12])
    assert leaking.accuracy.value == 1.0
    assert apart.accuracy.value < 0.8
    assert apart.accuracy.n == originals


def test_the_classifier_is_a_function_of_its_seed() -> None:
    x, y = sample(30, 0), sample(30, 1, 0.3)
    assert two_sample_accuracy(x, y, seed=1) == two_sample_accuracy(x, y, seed=1)


@pytest.mark.parametrize("n_y", [5, 100])
def test_few_originals_still_have_an_interval(n_y: int) -> None:
    """Some resamples of five and n_y originals hold none of the five."""
    found = two_sample_accuracy(sample(5, 0), sample(n_y, 1)).accuracy
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_global_generators_are_left_as_they_were() -> None:
    before = torch.get_rng_state()
    before_numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    mmd_test(sample(10, 0), sample(10, 1), generator())
    two_sample_accuracy(sample(10, 0), sample(10, 1), n_boot=50)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == before_numpy  # noqa: NPY002


def test_bad_input_is_refused() -> None:
    x, y = sample(10, 0), sample(10, 1)
    with pytest.raises(ValueError, match="same D"):
        mmd2_unbiased(x, y[:, :3], 1.0)
    with pytest.raises(ValueError, match="same D"):
        mmd2_unbiased(x, y[:1], 1.0)
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        mmd2_unbiased(x, y, 0.0)
    with pytest.raises(ValueError, match="for both samples or for neither"):
        mmd_test(x, y, generator(), groups_x=torch.arange(10))
    with pytest.raises(ValueError, match="one label per row"):
        mmd_test(x, y, generator(), groups_x=torch.arange(9), groups_y=torch.arange(10, 20))
    with pytest.raises(ValueError, match="rows in both samples"):
        mmd_test(x, y, generator(), groups_x=torch.arange(10), groups_y=torch.arange(9, 19))
    with pytest.raises(ValueError, match="5 folds need 5 originals"):
        two_sample_accuracy(x[:4], y)
