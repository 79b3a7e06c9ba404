"""Two-sample classifier: how well can a linear model tell added from test embeddings?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from matlib.analysis.embeddings import Groups, Matrix, group_labels, two_samples
from matlib.evaluation.statistics import Estimate, percentile_estimate, resampled_ratios


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
    a, b = two_samples(x, y)
    labels_x, labels_y = group_labels(a, b, groups_x, groups_y)
    fewest = min(len(np.unique(labels_x)), len(np.unique(labels_y)))
    if fewest < n_folds:
        raise ValueError(f"{n_folds} folds need {n_folds} originals in each sample; got {fewest}")
    features = torch.cat([a, b]).numpy()
    is_x = np.arange(len(features)) < len(a)
    groups = np.concatenate([labels_x, labels_y])
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    )
    # with one row per original the groups bind nothing, and looking for them costs most
    is_single = len(np.unique(groups)) == len(groups)
    splitter = StratifiedKFold if is_single else StratifiedGroupKFold
    folds = splitter(n_folds, shuffle=True, random_state=seed)
    bound = None if is_single else groups
    guess = cross_val_predict(classifier, features, is_x, groups=bound, cv=folds)
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
