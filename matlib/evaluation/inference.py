"""From seeds and p-values to words: the t-interval, Holm's correction, the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from matlib.evaluation.bootstrap import Estimate, Unit

MIN_SEEDS_FOR_INTERVAL = 3
MIN_SEEDS_FOR_CLAIM = 5


def t_interval(
    differences: Sequence[float], *, level: float = 0.95, threshold: float = 0.0
) -> Estimate:
    """Student's interval of the mean of per-seed differences.

    Raises:
        ValueError: fewer than three seeds.
    """
    n = len(differences)
    if n < MIN_SEEDS_FOR_INTERVAL:
        raise ValueError(f"a t-interval needs {MIN_SEEDS_FOR_INTERVAL} seeds; got {n}")
    values = np.asarray(differences, dtype=float)
    mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(n))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    if error == 0:
        p = float(mean <= threshold)
    else:
        p = float(stats.t.sf((mean - threshold) / error, n - 1))
    return Estimate(mean, mean - half, mean + half, n, p, "seed")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979).

    Raises:
        ValueError: a p-value that is NaN or outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie in [0, 1]; got {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda j: p_values[j])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


Verdict = Literal[
    "supported",
    "not supported",
    "inconclusive",
    "inconclusive (floor)",
    "not yet tested",
    "favourable, for these weights only",
    "unfavourable, for these weights only",
    "inconclusive, for these weights only",
]


def is_at_floor(defended: Estimate, undefended: Estimate, chance: float) -> bool:
    """Whether both intervals reach down to chance, so that there is nothing to compare.

    An interval wholly below chance (an attack can do that) counts as reaching it.

    Args:
        chance: the same endpoint of a random ranking, from `chance_recall`.
    """
    return defended.low <= chance and undefended.low <= chance


def verdict(
    low: float,
    high: float,
    *,
    n_seeds: int,
    unit: Unit = "seed",
    threshold: float = 0.0,
    p_adjusted: float = 0.0,
    alpha: float = 0.025,
    at_floor: bool = False,
) -> Verdict:
    """What an interval says about "the contrast is above `threshold`".

    Args:
        low, high: interval of the contrast; NaN if nothing was measured.
        n_seeds: trained weights behind it.
        unit: what the interval is over; one over queries is about those weights only,
            however many there were.
        threshold: smallest difference that counts.
        p_adjusted: one-sided p-value after Holm; above `alpha`, nothing is *supported*.
        alpha: one-sided, so that it fits the two-sided 95 % interval.
        at_floor: from `is_at_floor`.

    Raises:
        ValueError: an interval that ends before it begins.
    """
    if math.isnan(low) or math.isnan(high) or n_seeds == 0:
        return "not yet tested"
    if low > high:
        raise ValueError(f"the interval [{low}, {high}] ends before it begins")
    if at_floor:
        return "inconclusive (floor)"
    is_above, is_below = low > threshold and p_adjusted <= alpha, high < threshold
    if n_seeds < MIN_SEEDS_FOR_INTERVAL or unit == "query":
        if is_above:
            return "favourable, for these weights only"
        if is_below:
            return "unfavourable, for these weights only"
        return "inconclusive, for these weights only"
    if n_seeds < MIN_SEEDS_FOR_CLAIM:
        return "inconclusive"
    if is_above:
        return "supported"
    return "not supported" if is_below else "inconclusive"
