"""Distribution shift: do the added embeddings come from where the test embeddings come from?

Two views of the same question. MMD measures a distance and tests whether it is zero; the
two-sample classifier says how well the two samples can be told apart, in a unit that a
person can read (50 % is chance).

Variants of one original are not independent: `groups` names the original of each row. The
MMD test then uses one row per original, and the classifier keeps the variants of an original
on one side of every split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from matlib.analysis.embeddings import Matrix, float_rows
from matlib.evaluation.bootstrap import Estimate, percentile_estimate, resampled_ratios

Groups = np.ndarray | Tensor | list[Any]
"""One label per row: the original that the row is a variant of."""


@dataclass(frozen=True)
class MmdTest:
    """Maximum mean discrepancy of two samples and its permutation test.

    Attributes:
        mmd2: unbiased estimate of MMD^2; below zero is possible where there is no shift.
        bandwidth: sigma of the kernel exp(-|a - b|^2 / (2 sigma^2)).
        p_value: share of permutations with at least this MMD^2, the observed one included.
        n_x, n_y: rows that entered the test.
    """

    mmd2: float
    bandwidth: float
    p_value: float
    n_x: int
    n_y: int


@dataclass(frozen=True)
class TwoSampleClassifier:
    """How well a linear classifier tells two samples apart.

    Attributes:
        accuracy: mean of the accuracies on the two samples (balanced, so 0.5 is chance
            whatever their sizes), out of fold, with an interval that resamples originals.
        n_x, n_y: rows of the two samples.
    """

    accuracy: Estimate
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
    """Unbiased MMD^2 with a Gaussian kernel (Gretton et al. 2012, *A Kernel Two-Sample Test*).

    Args:
        x: (n, D), n >= 2.
        y: (m, D), m >= 2.
        bandwidth: sigma > 0 of exp(-|a - b|^2 / (2 sigma^2)).

    Raises:
        ValueError: fewer than two rows on a side, or a bandwidth that is not positive.
    """
    a, b = _two_samples(x, y)
    is_x = torch.cat([torch.ones(len(a)), torch.zeros(len(b))]).double()
    return float(_mmd2_of_splits(_kernel(torch.cat([a, b]), bandwidth), is_x[None])[0])


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
    a, b = _two_samples(x, y)
    labels_x, labels_y = _labels(a, b, groups_x, groups_y)
    if np.intersect1d(labels_x, labels_y).size:
        raise ValueError(
            "some originals have rows in both samples, so these are not independent; "
            "compare variants of some originals with other originals"
        )
    a = a[_one_per_group(labels_x, generator)[:max_rows]]
    b = b[_one_per_group(labels_y, generator)[:max_rows]]
    a, b = _two_samples(a, b)
    sigma = median_bandwidth(a, b) if bandwidth is None else bandwidth
    kernel = _kernel(torch.cat([a, b]), sigma)
    is_x = torch.cat([torch.ones(len(a)), torch.zeros(len(b))]).double()
    shuffled = torch.rand(n_permutations, len(is_x), generator=generator).argsort(1)
    values = _mmd2_of_splits(kernel, torch.cat([is_x[None], is_x[shuffled]]))
    observed = float(values[0])
    # rounding must not decide ties between the observed split and a permuted one
    p = float((values >= observed - 1e-12).double().mean())
    return MmdTest(observed, sigma, p, len(a), len(b))


def two_sample_accuracy(
    x: Matrix,
    y: Matrix,
    *,
    groups_x: Groups | None = None,
    groups_y: Groups | None = None,
    seed: int = 0,
    n_folds: int = 5,
    n_boot: int = 2000,
) -> TwoSampleClassifier:
    """Cross-validated accuracy of a logistic regression that tells x from y.

    Lopez-Paz & Oquab 2017, *Revisiting Classifier Two-Sample Tests*. Features are
    standardised on each training fold, the two samples weigh the same, L2 with C = 1. The
    interval holds for the fitted classifiers: it resamples originals, not training sets.

    Args:
        x, y: (n, D) and (m, D).
        groups_x, groups_y: the original of each row; equal labels in x and y are one original.
        seed: of the folds and the bootstrap.
        n_folds: folds; each sample needs at least as many originals.
        n_boot: bootstrap samples.

    Raises:
        ValueError: too few originals, or shapes that do not fit.
    """
    a, b = _two_samples(x, y)
    labels_x, labels_y = _labels(a, b, groups_x, groups_y)
    fewest = min(len(np.unique(labels_x)), len(np.unique(labels_y)))
    if fewest < n_folds:
        raise ValueError(f"{n_folds} folds need {n_folds} originals in each sample; got {fewest}")
    features = torch.cat([a, b]).numpy()
    is_x = np.arange(len(features)) < len(a)
    groups = np.concatenate([labels_x, labels_y])
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    guess = cross_val_predict(classifier, features, is_x, groups=groups, cv=folds)
    accuracy = _balanced_accuracy(guess == is_x, is_x, groups, seed=seed, n_boot=n_boot)
    return TwoSampleClassifier(accuracy, len(a), len(b))


def _balanced_accuracy(
    is_right: np.ndarray, is_x: np.ndarray, groups: np.ndarray, *, seed: int, n_boot: int
) -> Estimate:
    """Mean of the accuracies on x and on y, resampling originals with all their rows."""
    sides = np.stack([is_x, ~is_x], 1).astype(float)  # (n, 2)
    counts = np.zeros((len(np.unique(groups)), 2))
    right = np.zeros_like(counts)
    codes = np.unique(groups, return_inverse=True)[1]
    np.add.at(counts, codes, sides)
    np.add.at(right, codes, sides * is_right[:, None])
    top, bottom = torch.from_numpy(right), torch.from_numpy(counts)
    samples = resampled_ratios(top, bottom, n_boot=n_boot, seed=(seed, 0))
    # a resample of few originals can hold none of x or none of y; then there is no accuracy
    samples = samples[~samples.isnan()]
    value = float((top.sum(0) / bottom.sum(0)).mean())
    return percentile_estimate(value, samples, len(counts), level=0.95, threshold=0.5)


def _two_samples(x: Matrix, y: Matrix) -> tuple[Tensor, Tensor]:
    a, b = float_rows(x), float_rows(y)
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "expected two samples (n, D) and (m, D) of the same D with n, m >= 2; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a, b


def _labels(
    a: Tensor, b: Tensor, groups_x: Groups | None, groups_y: Groups | None
) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) and (m,): the original of each row, equal where the given labels are."""
    if (groups_x is None) != (groups_y is None):
        raise ValueError("give groups for both samples or for neither: labels are compared")
    if groups_x is None or groups_y is None:
        return np.arange(len(a)), np.arange(len(a), len(a) + len(b))
    if len(groups_x) != len(a) or len(groups_y) != len(b):
        raise ValueError(
            f"groups need one label per row ({len(a)} and {len(b)}); "
            f"got {len(groups_x)} and {len(groups_y)}"
        )
    pooled = np.concatenate([np.asarray(groups_x), np.asarray(groups_y)])
    codes = np.unique(pooled, return_inverse=True)[1]
    return codes[: len(a)], codes[len(a) :]


def _one_per_group(labels: np.ndarray, generator: torch.Generator) -> Tensor:
    """int64 (G,): a random row of each group, in random order."""
    order = torch.randperm(len(labels), generator=generator)
    first = np.unique(labels[order.numpy()], return_index=True)[1]
    return order[torch.from_numpy(np.sort(first))]


def _kernel(rows: Tensor, bandwidth: float) -> Tensor:
    """(n, n) Gaussian kernel with a zero diagonal: a row is never compared with itself."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive; got {bandwidth}")
    kernel = torch.cdist(rows, rows).square().div(-2 * bandwidth**2).exp()
    return kernel.fill_diagonal_(0.0)


def _mmd2_of_splits(kernel: Tensor, is_x: Tensor) -> Tensor:
    """Unbiased MMD^2 of each split (S, n) of the pooled rows into x (1.0) and y (0.0)."""
    n = is_x.sum(1)
    m = is_x.shape[1] - n
    within_x = ((is_x @ kernel) * is_x).sum(1)
    to_any = is_x @ kernel.sum(1)  # from x to every row
    between = to_any - within_x
    within_y = kernel.sum() - within_x - 2 * between
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
