"""Estimates with intervals, and the bootstrap of means and ratios over independent units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Unit = Literal["query", "seed"]
_DRAWS_AT_ONCE = 2**22  # bounds the memory of a bootstrap to some 100 MB


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the estimate.
        low, high: interval, at 95 % unless said otherwise.
        n: what was resampled or averaged (images, originals, seeds).
        p_below: one-sided p-value of "the true value is at most `threshold`" if computed.
        unit: whether the interval is over queries (of given weights) or over seeds.
    """

    value: float
    low: float
    high: float
    n: int
    p_below: float = float("nan")
    unit: Unit = "query"


def bootstrap_ratio(
    numerator: Tensor,
    denominator: Tensor,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    threshold: float = 0.0,
) -> Estimate:
    """Interval of sum(numerator) / sum(denominator), resampling units (rows).

    Args:
        numerator, denominator: (n,), totals per unit, e.g. hits and captions per image; or
            (n, Q) for the mean of Q such ratios.
        threshold: for `p_below`, the share of bootstrap samples at or below it.

    Raises:
        ValueError: no units, or different shapes.
    """
    if len(numerator) == 0 or denominator.shape != numerator.shape:
        raise ValueError(
            "expected as many numerators as denominators; "
            f"got {tuple(numerator.shape)} and {tuple(denominator.shape)}"
        )
    n = len(numerator)
    top, bottom = numerator.double().view(n, -1), denominator.double().view(n, -1)
    samples = resampled_ratios(top, bottom, n_boot=n_boot, seed=(seed, 0))
    value = float((top.sum(0) / bottom.sum(0)).mean())
    return percentile_estimate(value, samples, n, level, threshold)


def bootstrap_mean(
    values: Tensor,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    threshold: float = 0.0,
) -> Estimate:
    """Interval of the mean of (n,) independent values.

    Raises:
        ValueError: no values.
    """
    return bootstrap_ratio(
        values.double(),
        torch.ones(len(values), dtype=torch.double),
        n_boot=n_boot,
        seed=seed,
        level=level,
        threshold=threshold,
    )


def resampled_ratios(
    numerator: Tensor, denominator: Tensor, *, n_boot: int, seed: tuple[int, ...]
) -> Tensor:
    """float64 (n_boot,): the mean over columns of sum(numerator) / sum(denominator) per resample.

    Args:
        numerator, denominator: float64 (n, Q), totals per unit.
        seed: same seed and n, same resamples, whatever the totals.
    """
    samples = [
        ((weights @ numerator) / (weights @ denominator)).mean(1)
        for weights in _weights(len(numerator), n_boot, seed)
    ]
    return torch.cat(samples)


def percentile_estimate(
    value: float, samples: Tensor, n: int, level: float, threshold: float
) -> Estimate:
    """The estimate `value` with the percentile interval of its bootstrap `samples`."""
    if not 0 < level < 1:
        raise ValueError(f"level is a share in (0, 1), e.g. 0.95; got {level}")
    tail = (1 - level) / 2
    low, high = np.quantile(samples.numpy(), [tail, 1 - tail]).tolist()
    # (count + 1) / (samples + 1): never 0, since n_boot samples cannot show more than that
    p = (float((samples <= threshold).sum()) + 1) / (len(samples) + 1)
    return Estimate(value, low, high, n, p)


def _weights(n: int, n_boot: int, seed: tuple[int, ...]) -> Iterator[Tensor]:
    """float64 (B, n) parts of (n_boot, n): how often each unit is drawn in each resample."""
    rng = np.random.default_rng(seed)
    rows_at_once = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, n_boot, rows_at_once):
        rows = min(rows_at_once, n_boot - start)
        drawn = rng.integers(n, size=(rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        yield torch.from_numpy(counts).double()
