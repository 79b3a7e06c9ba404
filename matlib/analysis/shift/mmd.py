"""Kernel distances: MMD with a Gaussian kernel, and the kernel distance (KID) with a cubic one.

Both are the unbiased MMD^2 of Gretton et al. 2012, *A Kernel Two-Sample Test*; they differ in
the kernel alone, and so share the permutation test and the jackknife interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matlib.analysis.embeddings import (
    Groups,
    Matrix,
    float_rows,
    group_labels,
    one_per_group,
    two_samples,
    unit_rows,
)
from matlib.evaluation.statistics import Estimate


@dataclass(frozen=True)
class MmdTest:
    """Maximum mean discrepancy of two samples and its permutation test.

    Attributes:
        mmd2: unbiased estimate of MMD^2; below zero is possible where there is no shift.
        bandwidth: sigma of the kernel exp(-|a - b|^2 / (2 sigma^2)); NaN for the cubic kernel.
        p_value: share of permutations with at least this MMD^2, the observed one included.
        n_x, n_y: rows that entered the test.
    """

    mmd2: float
    bandwidth: float
    p_value: float
    n_x: int
    n_y: int


def median_bandwidth(x: Matrix, y: Matrix) -> float:
    """Median of the distances between different rows of the pooled sample.

    Garreau et al. 2017, *Large sample analysis of the median heuristic*.

    Raises:
        ValueError: the median distance is 0 (the rows are copies of each other).
    """
    pooled = torch.cat([float_rows(x), float_rows(y)])
    bandwidth = float(torch.pdist(pooled).median()) if len(pooled) > 1 else 0.0
    if bandwidth == 0:
        raise ValueError("the median distance between rows is 0: more than half are copies")
    return bandwidth


def mmd2_unbiased(x: Matrix, y: Matrix, bandwidth: float) -> float:
    """Unbiased MMD^2 with a Gaussian kernel.

    Args:
        x: (n, D), n >= 2.
        y: (m, D), m >= 2.
        bandwidth: sigma > 0 of exp(-|a - b|^2 / (2 sigma^2)).

    Raises:
        ValueError: fewer than two rows on a side, or a bandwidth that is not positive.
    """
    a, b = two_samples(x, y)
    return _mmd2(_gaussian(torch.cat([a, b]), bandwidth), len(a))


def kernel_distance(x: Matrix, y: Matrix) -> float:
    """Kernel distance: unbiased MMD^2 with the cubic kernel (cos(a, b) + 1)^3.

    Binkowski et al. 2018, *Demystifying MMD GANs* (KID), use (a.b / D + 1)^3 on features whose
    entries are of order 1, that is |a|^2 about D. Rows of norm 1 stand for rows of norm
    sqrt(D) here: with 1 / D on top of unit rows the kernel would be linear to within 1 / D.

    Args:
        x: (n, D), n >= 2; rows are scaled to norm 1.
        y: (m, D), m >= 2.
    """
    a, b = two_samples(x, y)
    return _mmd2(_cubic(torch.cat([a, b])), len(a))


def mmd_test(
    x: Matrix,
    y: Matrix,
    generator: torch.Generator,
    *,
    groups_x: Groups | None = None,
    groups_y: Groups | None = None,
    bandwidth: float | None = None,
    n_permutations: int = 500,
    max_rows: int = 2000,
) -> MmdTest:
    """MMD^2 between two samples and the p-value of "both come from one distribution".

    The permutation test needs independent rows, so with groups one row of each original is
    drawn, and then at most `max_rows` per sample.

    Args:
        x: (n, D), for example embeddings of added captions.
        y: (m, D), for example embeddings of test captions.
        generator: CPU generator for the draws and the permutations.
        groups_x, groups_y: the original of each row; None if each row is one of its own.
        bandwidth: sigma of the kernel; the median heuristic on the rows used by default.
            Pass one number to compare several techniques in one unit.
        n_permutations: the smallest possible p-value is 1 / (n_permutations + 1).
        max_rows: bounds memory by (2 max_rows)^2 numbers.

    Raises:
        ValueError: too few rows, shapes that do not fit, or an original on both sides.
    """
    a, b = _independent_rows(x, y, generator, groups_x, groups_y, max_rows)
    sigma = median_bandwidth(a, b) if bandwidth is None else bandwidth
    return _test(a, b, lambda rows: _gaussian(rows, sigma), sigma, n_permutations, generator)


def kernel_distance_test(
    x: Matrix,
    y: Matrix,
    generator: torch.Generator,
    *,
    groups_x: Groups | None = None,
    groups_y: Groups | None = None,
    n_permutations: int = 500,
    max_rows: int = 2000,
) -> MmdTest:
    """`kernel_distance` with its permutation test; arguments as for `mmd_test`."""
    a, b = _independent_rows(x, y, generator, groups_x, groups_y, max_rows)
    return _test(a, b, _cubic, math.nan, n_permutations, generator)


def mmd2_interval(x: Matrix, y: Matrix, bandwidth: float, z: float = 1.96) -> Estimate:
    """Unbiased MMD^2 with a Gaussian kernel and its jackknife interval.

    MMD^2 is a two-sample U-statistic, so leaving out one row at a time on either side gives
    its variance (Arvesen 1969). Without shift the statistic is degenerate and the interval is
    only a guide: the permutation test decides whether there is one.

    Args:
        x, y: (n, D) and (m, D), independent rows.
        bandwidth: sigma of exp(-|a - b|^2 / (2 sigma^2)).
        z: half-width in standard errors.

    Returns:
        value, interval, and n the number of rows of x; no interval (NaN) below three rows.
    """
    a, b = two_samples(x, y)
    return _jackknife(_gaussian(torch.cat([a, b]), bandwidth), len(a), z)


def kernel_distance_interval(x: Matrix, y: Matrix, z: float = 1.96) -> Estimate:
    """`kernel_distance` with its jackknife interval, as `mmd2_interval`."""
    a, b = two_samples(x, y)
    return _jackknife(_cubic(torch.cat([a, b])), len(a), z)


def _independent_rows(
    x: Matrix,
    y: Matrix,
    generator: torch.Generator,
    groups_x: Groups | None,
    groups_y: Groups | None,
    max_rows: int,
) -> tuple[Tensor, Tensor]:
    a, b = two_samples(x, y)
    labels_x, labels_y = group_labels(a, b, groups_x, groups_y)
    if np.intersect1d(labels_x, labels_y).size:
        raise ValueError(
            "some originals have rows in both samples, so these are not independent; "
            "compare variants of some originals with other originals"
        )
    a = a[one_per_group(labels_x, generator)[:max_rows]]
    b = b[one_per_group(labels_y, generator)[:max_rows]]
    return two_samples(a, b)


def _test(
    a: Tensor,
    b: Tensor,
    kernel_of: Callable[[Tensor], Tensor],
    bandwidth: float,
    n_permutations: int,
    generator: torch.Generator,
) -> MmdTest:
    kernel = kernel_of(torch.cat([a, b]))
    is_x = _first(len(a), len(kernel))
    shuffled = torch.rand(n_permutations, len(is_x), generator=generator).argsort(1)
    values = _mmd2_of_splits(kernel, torch.cat([is_x[None], is_x[shuffled]]))
    observed = float(values[0])
    # rounding must not decide ties between the observed split and a permuted one
    p = float((values >= observed - 1e-12).double().mean())
    return MmdTest(observed, bandwidth, p, len(a), len(b))


def _gaussian(rows: Tensor, bandwidth: float) -> Tensor:
    """(n, n) Gaussian kernel with a zero diagonal: a row is never compared with itself."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive; got {bandwidth}")
    kernel = torch.cdist(rows, rows).square().div(-2 * bandwidth**2).exp()
    return kernel.fill_diagonal_(0.0)


def _cubic(rows: Tensor) -> Tensor:
    """(n, n) cubic kernel of the rows scaled to norm 1, with a zero diagonal."""
    unit = unit_rows(rows)
    return (unit @ unit.T).add(1).pow(3).fill_diagonal_(0.0)


def _first(n: int, total: int) -> Tensor:
    is_x = torch.zeros(total, dtype=torch.double)
    is_x[:n] = 1.0
    return is_x


def _mmd2(kernel: Tensor, n: int) -> float:
    return float(_mmd2_of_splits(kernel, _first(n, len(kernel))[None])[0])


def _mmd2_of_splits(kernel: Tensor, is_x: Tensor) -> Tensor:
    """Unbiased MMD^2 of each split (S, n) of the pooled rows into x (1.0) and y (0.0)."""
    n = is_x.sum(1)
    m = is_x.shape[1] - n
    within_x = ((is_x @ kernel) * is_x).sum(1)
    to_any = is_x @ kernel.sum(1)  # from x to every row
    between = to_any - within_x
    within_y = kernel.sum() - within_x - 2 * between
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)


def _jackknife(kernel: Tensor, n: int, z: float) -> Estimate:
    """Value and interval from an (n + m, n + m) kernel with a zero diagonal."""
    m = len(kernel) - n
    xx, yy, xy = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    a, b, c = xx.sum(), yy.sum(), xy.sum()
    value = float(a / (n * (n - 1)) + b / (m * (m - 1)) - 2 * c / (n * m))
    if min(n, m) < 3:
        return Estimate(value, math.nan, math.nan, n)
    without_x = (
        (a - 2 * xx.sum(1)) / ((n - 1) * (n - 2))
        + b / (m * (m - 1))
        - 2 * (c - xy.sum(1)) / ((n - 1) * m)
    )
    without_y = (
        a / (n * (n - 1))
        + (b - 2 * yy.sum(1)) / ((m - 1) * (m - 2))
        - 2 * (c - xy.sum(0)) / (n * (m - 1))
    )
    variance = (n - 1) * without_x.var(correction=0) + (m - 1) * without_y.var(correction=0)
    half = z * float(variance.sqrt())
    return Estimate(value, value - half, value + half, n)
