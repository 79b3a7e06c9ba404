"""Estimates from a crossed model: training seeds, images and worlds are random effects.

A training seed meets every image of its world, and every world has images and trainings of its
own. So the variance of a mean over all of them has three parts, each estimated by the mean squares
of the analysis of variance (Searle, Casella & McCulloch 1992, ch. 4): of images, with all their
captions; of seeds; and of worlds, each with a base model. Seeds of two rows are not paired
(training decorrelates them: Welch 1947); images are. Degrees of freedom are Satterthwaite's (1946).

The variance between worlds is what the means of the worlds show beyond the other two, and 0
where they show less. The interval then covers 93 to 97 % over three worlds and 95 to 97 % over
five, whatever their true variance (`tests/evaluation/test_crossed.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import (
    MIN_SEEDS_FOR_INTERVAL,
    Estimate,
    bootstrap_mean,
    primary_difference,
)

Array = NDArray[np.float64]

EndpointName = Literal["R@1", "MRR"]

SCORES: Mapping[EndpointName, Callable[[Array], Array]] = {
    "R@1": lambda rank: (rank == 0).astype(float),
    "MRR": lambda rank: 1.0 / (rank + 1.0),
}
"""What a query is worth by the rank of its first right answer (0 is the top): a hit, or the
reciprocal rank. An endpoint is the mean over images and that over captions, averaged."""


def contributions(found: Outcomes, own: Tensor, endpoint: EndpointName = "R@1") -> Array:
    """What every image with its captions adds to an endpoint.

    Args:
        own: int64 (M,), the image of each caption.

    Returns:
        float64 (N,) whose mean is the endpoint and whose sample variance over N is the variance
        of it (to first order where images have different numbers of captions).
    """
    score, n = SCORES[endpoint], len(found.tr_rank)
    image = score(found.tr_rank.numpy())
    caption = score(found.ir_rank.numpy())
    mean, counts = caption.mean(), np.bincount(own.numpy(), minlength=n)
    beyond = np.bincount(own.numpy(), weights=caption, minlength=n) - mean * counts  # (M,) -> (N,)
    return np.asarray((image + mean + beyond / counts.mean()) / 2)


@dataclass(frozen=True)
class UncertainMean:
    """A mean, the variance of it, and the degrees of freedom that this variance has."""

    value: float
    variance: float
    df: float


def satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Sum of variances and its degrees of freedom.

    Args:
        parts: (variance, degrees of freedom); a variance may be negative (a correction).
    """
    variance = sum(each for each, _ in parts)
    spread = sum(each**2 / df for each, df in parts if df > 0)
    return variance, variance**2 / spread if spread > 0 else math.inf


def within_a_world(first: Array, second: Array | None = None) -> UncertainMean:
    """The mean of a row over seeds and images, or its difference from another row's.

    Args:
        first: (S, N), contributions of N images with each of S seeds.
        second: (S', N) of the other row on the same images. A row with one seed (the base) has
            no variance of seeds: it is what it is.

    Raises:
        ValueError: other images, or fewer than two.
    """
    rows = [first] if second is None else [first, second]
    n = first.shape[1]
    if n < 2 or any(each.shape[1] != n for each in rows):
        raise ValueError(f"the same two or more images expected; got {[r.shape for r in rows]}")
    per_image = first.mean(0) - (0 if second is None else second.mean(0))  # (S, N) -> (N,)
    images = (float(per_image.var(ddof=1)) / n, float(n - 1))
    parts = [images]
    for row in rows:
        s = len(row)
        if s < 2:
            continue
        means = row.mean(1)
        parts.append((float(means.var(ddof=1)) / s, float(s - 1)))
        parts.append(_interaction(row))
    variance, df = satterthwaite(parts)
    if variance < images[0]:  # seeds differ less than chance has it
        variance, df = images
    return UncertainMean(float(per_image.mean()), variance, df)


def _interaction(row: Array) -> tuple[float, float]:
    """What seeds and images have in common, of (S, N): it is in the variance of both, so it is
    taken out once."""
    s, n = row.shape
    rest = row - row.mean(1, keepdims=True) - row.mean(0) + row.mean()
    df = float((s - 1) * (n - 1))
    return -float((rest**2).sum()) / df / (s * n), df


def over_worlds(parts: Sequence[UncertainMean]) -> UncertainMean:
    """The mean over worlds, which are a sample of those that the generator can make.

    Raises:
        ValueError: no world.
    """
    if not parts:
        raise ValueError("an estimate needs one world or more; got none")
    n, values = len(parts), np.array([part.value for part in parts])
    inside, df = satterthwaite([(part.variance / n**2, part.df) for part in parts])
    between = float(values.var(ddof=1)) / n if n > 1 else 0.0
    if between > inside:
        return UncertainMean(float(values.mean()), between, n - 1)
    return UncertainMean(float(values.mean()), inside, df)


def interval(part: UncertainMean, n: int, *, level: float = 0.95) -> Estimate:
    """Student's interval of a part, with the p-value of "at most 0"."""
    error = math.sqrt(part.variance)
    half = float(stats.t.ppf((1 + level) / 2, part.df)) * error
    p = float(stats.t.sf(part.value / error, part.df)) if error > 0 else float(part.value <= 0)
    return Estimate(part.value, part.value - half, part.value + half, n, p, "seed")


def between_galleries(first: Array, second: Array) -> UncertainMean:
    """The mean of a row in one gallery minus that in another, with the same trainings.

    Args:
        first, second: (S, N) and (S, M): contributions of other images, seed by seed.
    """
    sides = (first, second)
    parts = [(float(each.mean(0).var(ddof=1)) / each.shape[1], each.shape[1] - 1.0)
             for each in sides]  # fmt: skip
    images, s = satterthwaite(parts), len(first)
    if s > 1:
        by_seed = first.mean(1) - second.mean(1)
        parts.append((float(by_seed.var(ddof=1)) / s, s - 1.0))
        parts += [_interaction(each) for each in sides]
    variance, df = max(satterthwaite(parts), images)
    return UncertainMean(float(first.mean() - second.mean()), variance, df)


def linearised(values: Array, of: Callable[[Array], float]) -> Array:
    """Contributions to a function of several endpoints, to first order.

    Args:
        values: (K, S, N), contributions to K endpoints of the same trainings and images.
        of: of (K,) endpoints.

    Returns:
        (S, N) whose mean is the function of the means.
    """
    means, step = values.mean((1, 2)), 1e-5
    gradient = [(of(means + d) - of(means - d)) / (2 * step) for d in step * np.eye(len(means))]
    return np.asarray(of(means) + np.tensordot(gradient, values - means[:, None, None], 1))


def crossed_parts(parts: Sequence[UncertainMean], n_weights: int, n_images: int) -> Estimate:
    """The interval of a mean over worlds; of fewer than three weights about these weights only.

    Args:
        parts: of each world; of the first seed alone where the weights are too few.
        n_weights, n_images: trained weights in all, images of a world.
    """
    found = interval(over_worlds(parts), n_weights)
    if n_weights >= MIN_SEEDS_FOR_INTERVAL:
        return found
    return replace(found, unit="query", n=n_images)


OutcomesOfWorld = tuple[Sequence[Outcomes], Sequence[Outcomes] | None, Tensor]
"""Outcomes of a row with each seed, those of the row that it is compared with, and the image of
each caption."""


def crossed_estimate(
    worlds: Sequence[OutcomesOfWorld], endpoint: EndpointName = "R@1", *, n_boot: int = 2000
) -> Estimate:
    """An endpoint of a row, or its difference from another's, over seeds, images and worlds.

    With fewer than three trained weights in all, the first world's first ones with a bootstrap
    over images: such an interval is about these weights only.

    Args:
        worlds: one entry for each.
        n_boot: samples of that bootstrap.

    Returns:
        a share of 1, or a difference; `n` are the trained weights behind it.

    Raises:
        ValueError: no world or no seed, or outcomes of different queries.
    """
    if not worlds or not all(first for first, _, _ in worlds):
        raise ValueError("an estimate needs one world and one seed or more; got none")

    def values(found: Sequence[Outcomes], own: Tensor) -> Array:
        return np.stack([contributions(each, own, endpoint) for each in found])  # (S, N)

    sides = [
        (values(first, own), None if second is None else values(second, own))
        for first, second, own in worlds
    ]
    n = sum(max(len(first), 0 if second is None else len(second)) for first, second in sides)
    if n < MIN_SEEDS_FOR_INTERVAL:
        (own, *_), others, image_of = worlds[0]
        other = others[0] if others else None
        if endpoint == "R@1":
            return primary_difference(own, other, image_of, n_boot=n_boot)
        first, second = sides[0]
        per_image = first[0] if second is None else first[0] - second[0]
        return bootstrap_mean(torch.from_numpy(per_image), n_boot=n_boot)
    return interval(over_worlds([within_a_world(*each) for each in sides]), n)
