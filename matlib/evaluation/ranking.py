"""Do several models rank the same techniques alike? Rank correlation with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from matlib.evaluation.bootstrap import Estimate, percentile_estimate, resampled_ratios
from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import PRIMARY, Stratum, primary_endpoint

MIN_ROWS = 3
"""Fewer techniques make no ranking: two agree by chance half of the time."""

N_PERMUTATIONS = 10_000

Array = NDArray[np.float64]


def mean_rank_correlation(values: Array) -> Array:
    """Spearman's correlation, averaged over all pairs of models.

    Ties share their mean rank. A model that ranks nothing (all values equal) correlates 0 with
    every other: it has no order that could carry over.

    Args:
        values: (..., A, R), R techniques on each of A models.

    Returns:
        (...), in [-1, 1].

    Raises:
        ValueError: fewer than two models or two techniques.
    """
    n_models, n_rows = values.shape[-2:]
    if n_models < 2 or n_rows < 2:
        raise ValueError(
            f"a correlation needs two models and two techniques; got {n_models} and {n_rows}"
        )
    # rounding: equal recalls, summed in another order, are one recall
    ranks = stats.rankdata(np.round(values, 12), axis=-1)
    centred = ranks - ranks.mean(-1, keepdims=True)
    length = np.sqrt((centred**2).sum(-1, keepdims=True))
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    # |sum of the models' unit vectors|^2 holds every pair twice and every model once
    both = (unit.sum(-2) ** 2).sum(-1) - (unit**2).sum((-2, -1))
    return np.round(both / (n_models * (n_models - 1)), 12)


def agreement_of_rankings(
    outcomes: Sequence[Sequence[Sequence[Outcomes]]],
    own: Tensor,
    *,
    n_boot: int = 2000,
    seed: int = 0,
) -> Estimate:
    """How alike models rank techniques by the primary endpoint.

    The interval resamples images with all their captions, the same for all techniques and
    models, and from three training seeds on also the seeds (each with all its weights). A
    resample is noisier than the data, which lowers correlations: the interval leans down.

    It tells how well the correlation of *these* techniques is measured, not whether so few of
    them could agree by chance. So `p_below` is the larger of the bootstrap's p-value (of "at most
    0") and that of a permutation test (rankings independent between models).

    Args:
        outcomes: [model][technique][training seed], all on the same queries; below three
            seeds the first one decides.
        own: int64 (M,), the image of each caption.

    Raises:
        ValueError: fewer than two models or `MIN_ROWS` techniques, or not the same number of
            techniques and seeds everywhere.
    """
    shape = _shape(outcomes)
    has_seeds = shape[2] >= MIN_SEEDS_FOR_INTERVAL
    n_seeds = shape[2] if has_seeds else 1
    kept = [each for model in outcomes for row in model for each in row[:n_seeds]]
    by_model = (shape[0], shape[1], n_seeds)
    values = np.reshape([primary_endpoint(each) for each in kept], by_model).mean(-1)
    samples = np.stack([_resampled(each, own, n_boot, seed) for each in kept])
    means = _over_seeds(samples.reshape(*by_model, n_boot), seed)
    value = float(mean_rank_correlation(values))
    drawn = torch.from_numpy(mean_rank_correlation(means))
    n = n_seeds if has_seeds else len(kept[0].tr_rank)
    found = percentile_estimate(value, drawn, n, 0.95, 0.0)
    p = max(found.p_below, permutation_p(values, seed=seed))
    return Estimate(value, found.low, found.high, n, p, "seed" if has_seeds else "query")


def permutation_p(values: Array, *, seed: int = 0) -> float:
    """One-sided p-value of "the models rank the techniques independently".

    Args:
        values: (A, R).
    """
    rng, (n_models, n_rows) = np.random.default_rng(seed), values.shape
    drawn = np.broadcast_to(values, (N_PERMUTATIONS, n_models, n_rows))
    found = mean_rank_correlation(rng.permuted(drawn, axis=-1))
    n_reached = int((found >= mean_rank_correlation(values) - 1e-9).sum())
    return (n_reached + 1) / (N_PERMUTATIONS + 1)


def _shape(outcomes: Sequence[Sequence[Sequence[Outcomes]]]) -> tuple[int, int, int]:
    rows = {len(model) for model in outcomes}
    seeds = {len(row) for row in chain(*outcomes)}
    if len(outcomes) < 2 or len(rows) != 1 or min(rows) < MIN_ROWS or len(seeds) != 1:
        raise ValueError(
            f"a comparison of rankings needs two models, the same {MIN_ROWS} techniques or more "
            f"on each, and the same seeds; got {len(outcomes)} models, {sorted(rows)} techniques "
            f"and {sorted(seeds)} seeds"
        )
    return len(outcomes), min(rows), min(seeds)


def _resampled(outcomes: Outcomes, own: Tensor, n_boot: int, seed: int) -> Array:
    """(n_boot,): the endpoint per resample; same seed and images, same resamples."""
    hits, queries = Stratum(((1.0, outcomes),), own).totals(PRIMARY)
    return resampled_ratios(hits, queries, n_boot=n_boot, seed=(seed, 0)).numpy()


def _over_seeds(samples: Array, seed: int) -> Array:
    """(n_boot, A, R) from (A, R, S, n_boot): means over seeds drawn anew in each resample."""
    n_seeds, n_boot = samples.shape[2:]
    drawn = np.random.default_rng((seed, 1)).multinomial(n_seeds, [1 / n_seeds] * n_seeds, n_boot)
    return np.asarray(np.einsum("arsb,bs->bar", samples, drawn) / n_seeds)
