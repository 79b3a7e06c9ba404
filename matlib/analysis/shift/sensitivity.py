"""How sensitive is each shift measure? Known doses of shift, and samples of known size.

Samples are drawn from a pool of items whose shift is known, measured against test items, and
drawn again. A measure *detects* where it exceeds the 95th percentile of draws without shift
of the same size: one unit for all measures, whatever their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from matlib.analysis.shift.classifier import two_sample_accuracy
from matlib.analysis.shift.frechet import frechet_distance
from matlib.analysis.shift.mmd import kernel_distance, median_bandwidth, mmd2_unbiased

Statistic = Callable[[Tensor, Tensor], float]
"""(added (n, D), test (m, D)) -> a number that grows with the shift."""

QUANTILE = 0.95
"""Of the draws without shift; beyond it a shift is detected, so 5 % are false alarms."""


def shift_statistics(plain: Tensor, test: Tensor, *, n_folds: int = 2) -> dict[str, Statistic]:
    """MMD^2, kernel and Fréchet distance and classifier accuracy as functions of two samples.

    Args:
        plain, test: rows without shift, which set the width of the Gaussian kernel.
        n_folds: of the classifier; two cost least, and a curve fits it hundreds of times.
    """
    bandwidth = median_bandwidth(plain[:500], test[:500])

    def accuracy(x: Tensor, y: Tensor) -> float:
        return two_sample_accuracy(x, y, n_folds=n_folds, n_boot=1).accuracy.value

    return {
        "mmd2": lambda x, y: mmd2_unbiased(x, y, bandwidth),
        "kernel_distance": kernel_distance,
        "frechet": frechet_distance,
        "accuracy": accuracy,
    }


def dose_curve(
    pools: Mapping[float, Tensor],
    test: Tensor,
    statistics: Mapping[str, Statistic],
    *,
    n: int,
    n_draws: int = 20,
    n_null: int = 40,
    seed: int = 0,
) -> pd.DataFrame:
    """Every statistic against the dose of shift, at one sample size.

    Args:
        pools: dose -> (P, D) items of that dose; dose 0 is without shift. Items at the same
            place of all pools are of one original.
        test: (T, D) items to compare with, of other originals.
        statistics: from `shift_statistics`.
        n: items drawn on either side, at most half the pool, so that draws differ.
        n_draws: draws per dose.
        n_null: further draws without shift, which set the threshold of detection.
        seed: of the draws.

    Returns:
        columns measure, dose, n, value (mean of the draws), low, high (between which 95 % of
        the draws lie), detected (share), detected_low, detected_high (Clopper-Pearson, which
        takes the draws as independent), threshold.

    Raises:
        ValueError: no dose 0, or pools too small for n.
    """
    _check_pools(pools, test, n)
    null = _drawn(pools[0.0], test, statistics, n, n_null, seed=seed + 1)
    rows = []
    for dose in sorted(pools):
        drawn = _drawn(pools[dose], test, statistics, n, n_draws, seed=seed)
        rows += [{"dose": dose, "n": n, **row} for row in _summaries(drawn, null)]
    return pd.DataFrame(rows)


def size_curve(
    pools: Mapping[float, Tensor],
    test: Tensor,
    statistics: Mapping[str, Statistic],
    *,
    sizes: Sequence[int],
    n_draws: int = 20,
    n_null: int = 40,
    seed: int = 0,
) -> pd.DataFrame:
    """Every statistic against the sample size, at every dose; columns as `dose_curve`."""
    return pd.concat(
        [
            dose_curve(pools, test, statistics, n=n, n_draws=n_draws, n_null=n_null, seed=seed)
            for n in sizes
        ],
        ignore_index=True,
    )


def mixed(plain: Tensor, shifted: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(P, D): a random `share` of the rows taken from `shifted`, the others from `plain`.

    The generator must have another seed than the curve: with the same one, the first draw is
    made of the very rows that were exchanged.

    Raises:
        ValueError: a share outside [0, 1], or other shapes.
    """
    if not 0 <= share <= 1 or plain.shape != shifted.shape:
        raise ValueError(
            f"expected a share in [0, 1] and equal shapes; got {share}, {tuple(plain.shape)} "
            f"and {tuple(shifted.shape)}"
        )
    chosen = torch.randperm(len(plain), generator=generator)[: round(share * len(plain))]
    out = plain.clone()
    out[chosen] = shifted[chosen]
    return out


def _check_pools(pools: Mapping[float, Tensor], test: Tensor, n: int) -> None:
    if 0.0 not in pools:
        raise ValueError(f"dose 0 (no shift) is needed as the zero; got {sorted(pools)}")
    sizes = {len(pool) for pool in pools.values()}
    if len(sizes) != 1 or min(*sizes, len(test)) < n:
        raise ValueError(
            f"samples of {n} need pools of one size of at least {n} items and as many test "
            f"items; got {sorted(sizes)} and {len(test)}"
        )


def _drawn(
    pool: Tensor,
    test: Tensor,
    statistics: Mapping[str, Statistic],
    n: int,
    n_draws: int,
    *,
    seed: int,
) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {name: [] for name in statistics}
    for x, y in _draws(pool, test, n, n_draws, seed):
        for name, statistic in statistics.items():
            found[name].append(statistic(x, y))
    return {name: np.array(values) for name, values in found.items()}


def _draws(
    pool: Tensor, test: Tensor, n: int, n_draws: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_draws):
        here = torch.randperm(len(pool), generator=generator)[:n]
        there = torch.randperm(len(test), generator=generator)[:n]
        yield pool[here], test[there]


def _summaries(
    drawn: Mapping[str, np.ndarray], null: Mapping[str, np.ndarray]
) -> Iterator[dict[str, float | str]]:
    for name, values in drawn.items():
        threshold = float(np.quantile(null[name], QUANTILE))
        hits = int((values > threshold).sum())
        limits = stats.binomtest(hits, len(values)).proportion_ci(method="exact")
        low, high = np.quantile(values, [0.025, 0.975]).tolist()
        yield {
            "measure": name,
            "value": float(values.mean()),
            "low": low,
            "high": high,
            "detected": hits / len(values),
            "detected_low": float(limits.low),
            "detected_high": float(limits.high),
            "threshold": threshold,
        }
