"""Fréchet distance: mean and covariance of two samples of embeddings compared.

It is biased: two samples of n rows from one distribution are about (D + 1) / n apart in units
of the variance. So it never stands alone here: the distance of random splits of the pooled
rows (no shift, the same sizes) is its zero, and the permutation p-value says whether it is
beyond that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.analysis.embeddings import Matrix, two_samples
from matlib.evaluation.statistics import Estimate


@dataclass(frozen=True)
class FrechetTest:
    """Fréchet distance of two samples beside that of random splits of the same rows.

    Attributes:
        distance: squared Fréchet distance, as FID.
        without_shift: its mean over random splits: what it is where there is no shift.
        p_value: share of the splits at least as far apart, the observed one included.
        n_x, n_y: rows of the two samples.
    """

    distance: float
    without_shift: float
    p_value: float
    n_x: int
    n_y: int


def frechet_distance(x: Matrix, y: Matrix) -> float:
    """|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), in [0, inf).

    Heusel et al. 2017, *GANs Trained by a Two Time-Scale Update Rule* (FID), eq. 6. The trace
    of the root is the sum of the roots of the eigenvalues of S_x S_y, taken from a symmetric
    matrix with the same spectrum: no root of a nearly singular matrix is needed.

    Args:
        x: (n, D), independent rows, n >= 2.
        y: (m, D), m >= 2.
    """
    a, b = two_samples(x, y)
    return _distance(a, b)


def frechet_test(
    x: Matrix, y: Matrix, generator: torch.Generator, *, n_permutations: int = 99
) -> FrechetTest:
    """The distance, its value without shift, and a permutation p-value.

    Args:
        x, y: (n, D) and (m, D), independent rows (one per original).
        generator: of the permutations.
        n_permutations: random splits; the smallest p-value is 1 / (n_permutations + 1).
    """
    a, b = two_samples(x, y)
    rows = torch.cat([a, b])
    observed = _distance(a, b)
    splits = torch.rand(n_permutations, len(rows), generator=generator).argsort(1)
    null = torch.tensor([_distance(rows[s[: len(a)]], rows[s[len(a) :]]) for s in splits])
    p = (float((null >= observed - 1e-12).sum()) + 1) / (n_permutations + 1)
    return FrechetTest(observed, float(null.mean()), p, len(a), len(b))


def frechet_interval(
    x: Matrix, y: Matrix, *, without_shift: float = 0.0, n_blocks: int = 20, z: float = 1.96
) -> Estimate:
    """Fréchet distance with a delete-a-block jackknife interval.

    Bootstrap resamples hold copies, which lowers the rank of the covariance and so moves the
    distance; leaving rows out does not.

    Args:
        x, y: (n, D) and (m, D), independent rows in random order.
        without_shift: `FrechetTest.without_shift`, subtracted from value and limits.
        n_blocks: blocks per side, at most half as many as rows.
        z: half-width in standard errors.

    Returns:
        nan as limits where a side has less than four rows: too few to leave a block out.
    """
    a, b = two_samples(x, y)
    value = _distance(a, b) - without_shift
    if min(len(a), len(b)) < 4:
        return Estimate(value, math.nan, math.nan, len(a))
    variance = sum(
        _jackknife_variance(torch.tensor([_distance(*kept) for kept in parts]))
        for parts in (
            [(_without(a, k, n_blocks), b) for k in range(min(n_blocks, len(a) // 2))],
            [(a, _without(b, k, n_blocks)) for k in range(min(n_blocks, len(b) // 2))],
        )
    )
    half = z * variance**0.5
    return Estimate(value, value - half, value + half, len(a))


def _distance(a: Tensor, b: Tensor) -> float:
    mean = (a.mean(0) - b.mean(0)).square().sum()
    x = (a - a.mean(0)) / (len(a) - 1) ** 0.5
    y = (b - b.mean(0)) / (len(b) - 1) ** 0.5
    # S_x S_y = X^T X Y^T Y has the non-zero eigenvalues of R^T S_y R with S_x = R R^T, and these
    # are the squared singular values of X Y^T: the smaller of the two is decomposed
    if min(len(a), len(b)) > a.shape[1]:
        values, vectors = torch.linalg.eigh(x.T @ x)
        root = vectors * values.clamp(min=0).sqrt()
        cross = torch.linalg.eigvalsh(root.T @ (y.T @ y) @ root).clamp(min=0).sqrt().sum()
    else:
        cross = torch.linalg.svdvals(x @ y.T).sum()
    total = mean + x.square().sum() + y.square().sum() - 2 * cross
    return max(0.0, float(total))


def _without(rows: Tensor, block: int, n_blocks: int) -> Tensor:
    n = min(n_blocks, len(rows) // 2)
    return rows[torch.arange(len(rows)) % n != block]


def _jackknife_variance(values: Tensor) -> float:
    n = len(values)
    return float((n - 1) * values.double().var(correction=0)) if n > 1 else 0.0
