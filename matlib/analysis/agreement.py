"""Do several models rank the same techniques alike? Rank correlation with its interval.

Do two measures agree? Correlations with intervals, calibration, and matrices of both.

Is a measure fooled by its own reference model? A measure that is made of embeddings is the
opinion of the encoder that made them. It is repeated under encoders that were trained otherwise,
and `reference_agreement` tells how far they agree, technique by technique.

What is resampled decides what an interval speaks of, so there are three kinds here:
`correlation` resamples *originals* with all their rows (other images, same techniques);
`rank_agreement` resamples originals below means per technique (the same);
`rank_correlation` treats the *points* themselves (techniques, runs) as the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, combinations

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from matlib.analysis.embeddings import Groups
from matlib.evaluation.crossed import Array
from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.statistics import (
    MIN_SEEDS_FOR_INTERVAL,
    PRIMARY,
    Estimate,
    Stratum,
    bootstrap_ratio,
    percentile_estimate,
    resampled_ratios,
)

MIN_ROWS = 3
"""Fewer techniques make no ranking: two agree by chance half of the time."""

N_PERMUTATIONS = 10_000


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
    found = np.nan_to_num(_correlations(np.round(values, 12)))
    first, second = np.triu_indices(n_models, 1)
    return np.asarray(np.round(found[..., first, second].mean(-1), 12))


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
    totals = [
        [[Stratum(((1.0, each),), own).totals(PRIMARY) for each in row] for row in model]
        for model in outcomes
    ]
    return agreement_of_ratios(totals, n_boot=n_boot, seed=seed)


Totals = tuple[Tensor, Tensor]
"""What is counted per image and of how many, float64 (N, Q) each: the endpoint is the mean over Q
of sum over sum."""


def agreement_of_ratios(
    totals: Sequence[Sequence[Sequence[Totals]]], *, n_boot: int = 2000, seed: int = 0
) -> Estimate:
    """The same for any endpoints, one for each model or task, on the same images.

    Args:
        totals: [model or task][technique][training seed].

    Raises:
        ValueError: as `agreement_of_rankings`.
    """
    shape = _shape(totals)
    has_seeds = shape[2] >= MIN_SEEDS_FOR_INTERVAL
    n_seeds = shape[2] if has_seeds else 1
    kept = [each for model in totals for row in model for each in row[:n_seeds]]
    by_model = (shape[0], shape[1], n_seeds)
    found = [float((hits.sum(0) / n.sum(0)).mean()) for hits, n in kept]
    values = np.reshape(found, by_model).mean(-1)
    samples = np.stack([
        resampled_ratios(hits, n, n_boot=n_boot, seed=(seed, 0)).numpy() for hits, n in kept
    ])  # fmt: skip
    means = _over_seeds(samples.reshape(*by_model, n_boot), seed)
    value = float(mean_rank_correlation(values))
    drawn = torch.from_numpy(mean_rank_correlation(means))
    n = n_seeds if has_seeds else len(kept[0][0])
    spread = percentile_estimate(value, drawn, n)
    p = max(spread.p_below, permutation_p(values, seed=seed))
    return Estimate(value, spread.low, spread.high, n, p, "seed" if has_seeds else "query")


def permutation_p(values: Array, *, seed: int = 0) -> float:
    """One-sided p-value of "the models rank the techniques independently".

    Args:
        values: (A, R).
    """

    def statistic(*models: Array, axis: int) -> Array:
        return mean_rank_correlation(np.stack(models, axis=-2))

    return _p_of_order(tuple(values), statistic, N_PERMUTATIONS, np.random.default_rng(seed))


def _p_of_order(
    samples: tuple[Array, ...],
    statistic: Callable[..., Array],
    n_permutations: int,
    rng: np.random.Generator,
) -> float:
    """Share of the orders of each sample that give `statistic` or more.

    Of all orders where there are no more than `n_permutations`; else of so many random ones,
    with the data themselves counted among them.
    """
    found = stats.permutation_test(
        samples, statistic, permutation_type="pairings", alternative="greater", vectorized=True,
        n_resamples=n_permutations, rng=rng,
    )  # fmt: skip
    return float(found.pvalue)


def _shape(outcomes: Sequence[Sequence[Sequence[object]]]) -> tuple[int, int, int]:
    rows = {len(model) for model in outcomes}
    seeds = {len(row) for row in chain(*outcomes)}
    if len(outcomes) < 2 or len(rows) != 1 or min(rows) < MIN_ROWS or len(seeds) != 1:
        raise ValueError(
            f"a comparison of rankings needs two models, the same {MIN_ROWS} techniques or more "
            f"on each, and the same seeds; got {len(outcomes)} models, {sorted(rows)} techniques "
            f"and {sorted(seeds)} seeds"
        )
    return len(outcomes), min(rows), min(seeds)


def _over_seeds(samples: Array, seed: int) -> Array:
    """(n_boot, A, R) from (A, R, S, n_boot): means over seeds drawn anew in each resample."""
    n_seeds, n_boot = samples.shape[2:]
    drawn = np.random.default_rng((seed, 1)).multinomial(n_seeds, [1 / n_seeds] * n_seeds, n_boot)
    return np.asarray(np.einsum("arsb,bs->bar", samples, drawn) / n_seeds)


def correlation(
    x: Tensor,
    y: Tensor,
    groups: Groups,
    *,
    n_boot: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Spearman's correlation of two measures of the same rows; the interval resamples originals.

    Args:
        x, y: (P,), for example similarity and truth of added pairs.
        groups: (P,) labels; a resampled original brings all its rows.
        n_boot: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        value in [-1, 1], percentile interval, n the number of originals. NaN throughout if a
        side is constant.

    Raises:
        ValueError: lengths differ, or fewer than two originals.
    """
    if not len(x) == len(y) == len(groups):
        raise ValueError(f"expected rows of one length; got {len(x)}, {len(y)}, {len(groups)}")
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    n = int(codes.max()) + 1 if len(codes) else 0
    if n < 2:
        raise ValueError(f"an interval over originals needs two of them; got {n}")
    pair = np.stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    value = _correlations(pair)[0, 1]
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan, n)
    rows = [np.flatnonzero(codes == g) for g in range(n)]
    rng = np.random.default_rng((seed, 0))
    samples = np.array(
        [
            _correlations(pair[:, np.concatenate([rows[g] for g in drawn])])[0, 1]
            for drawn in rng.integers(n, size=(n_boot, n))
        ]
    )
    return _interval(float(value), samples, n)


def rank_agreement(
    values: Mapping[str, Tensor], *, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Spearman's correlation of every two measures over techniques (or doses).

    Each measure ranks P techniques by their mean over N originals; the interval resamples
    originals, the same ones for all measures, and so holds for these P techniques.

    Args:
        values: measure -> (P, N), its value for each technique and original.
        n_boot: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        columns first, second, value, low, high, n_points, n; one row per two measures.

    Raises:
        ValueError: measures of different shapes, or fewer than three techniques.
    """
    shapes = {tuple(v.shape) for v in values.values()}
    if len(shapes) != 1 or next(iter(shapes))[0] < 3:
        raise ValueError(
            f"expected every measure as (P, N) of one shape with P >= 3; got {sorted(shapes)}"
        )
    stacked = torch.stack(list(values.values())).double().numpy()  # (M, P, N)
    n_points, n = stacked.shape[1:]
    centre = _correlations(stacked.mean(2))
    rng = np.random.default_rng((seed, 0))
    samples = np.stack(
        [_correlations(stacked[:, :, drawn].mean(2)) for drawn in rng.integers(n, size=(n_boot, n))]
    )
    rows = []
    for (i, first), (j, second) in combinations(enumerate(values), 2):
        found = _interval(float(centre[i, j]), samples[:, i, j], n)
        rows.append({"first": first, "second": second, **found.columns(),
                     "n_points": n_points, "n": n})  # fmt: skip
    return pd.DataFrame(rows)


def rank_correlation(
    x: Tensor, y: Tensor, *, level: float = 0.95, n_permutations: int = 9999, seed: int = 0
) -> Estimate:
    """Spearman's correlation over independent points, with an interval that holds for few.

    Fisher's z with the standard error sqrt((1 + r^2 / 2) / (n - 3)) of Bonett & Wright 2000,
    *Sample size requirements for estimating Pearson, Kendall and Spearman correlations*. At
    |r| = 1, where z is infinite, the limit is that of the nearest |r| that n points can have.

    Args:
        x, y: (P,), for example a coordinate and the gain of P techniques; P >= 4.
        level: of the interval.
        n_permutations: random orders for the p-value where P! is too many.
        seed: of those.

    Returns:
        value, interval, n = P; `p_below` is the one-sided permutation p-value of "at most 0".

    Raises:
        ValueError: fewer than four points or different lengths.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 4:
        raise ValueError(f"expected two rows of at least 4 points; got {a.shape} and {b.shape}")
    n = len(a)
    value = float(_correlations(np.stack([a, b]))[0, 1])
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan, n)
    nearest = 1 - 12 / (n * (n * n - 1))  # one swap of neighbours away from a perfect ranking
    used = float(np.clip(value, -nearest, nearest))
    half = stats.norm.ppf((1 + level) / 2) * math.sqrt((1 + used**2 / 2) / (n - 3))
    low, high = math.tanh(math.atanh(used) - half), math.tanh(math.atanh(used) + half)
    first, second = stats.rankdata(a), stats.rankdata(b)

    def statistic(order: Array, axis: int) -> Array:
        return order @ first

    rng = np.random.default_rng((seed, 0))
    p = _p_of_order((second,), statistic, n_permutations, rng)
    return Estimate(value, min(low, value), max(high, value), n, p)


MODEL_FREE = frozenset(
    {"distinct_1", "distinct_2", "compressed", "n_distinct", "true_fraction"},
)
"""Measures that no reference model takes part in."""

MIN_TECHNIQUES = 4
"""Fewer points have no interval of a rank correlation."""


def reference_agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of two references over techniques, per measure and modality.

    Args:
        table: from `measure_under`; the originals (`none`) are a technique like the others.

    Returns:
        columns property, measure, modality, first, second, value, low, high, n (techniques);
        measures of fewer than four techniques, and those without a model, are left out.

    Raises:
        ValueError: fewer than two references.
    """
    names = list(dict.fromkeys(table["reference"]))
    if len(names) < 2:
        raise ValueError(f"agreement needs two references; got {names}")
    rows = []
    modelled = table[~table["measure"].isin(MODEL_FREE)]
    for key, part in modelled.groupby(["property", "measure", "modality"], sort=False):
        wide = part.pivot(index="technique", columns="reference", values="value").dropna()
        if len(wide) < MIN_TECHNIQUES:
            continue
        for first, second in combinations(names, 2):
            x, y = (torch.tensor(wide[name].to_numpy(copy=True)) for name in (first, second))
            found = rank_correlation(x, y)
            names_of_row = dict(zip(("property", "measure", "modality"), key, strict=True))
            pair = {"first": first, "second": second}
            rows.append({**names_of_row, **pair, **found.columns(), "n": found.n})
    columns = ["property", "measure", "modality", "first", "second", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def calibration(
    score: Tensor,
    truth: Tensor,
    groups: Groups,
    *,
    n_bins: int = 8,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean truth of the pairs of each bin of a score, with intervals over originals.

    Args:
        score: (P,), for example similarity under a reference model.
        truth: (P,), what it stands for, for example the true aligned fraction in [0, 1].
        groups: (P,) the original of each pair.
        n_bins: bins of equally many pairs; bins that ties leave empty are dropped.
        n_boot: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        columns score_low, score_high, score (mean), value, low, high, n_pairs, n, by score.

    Raises:
        ValueError: lengths differ, or fewer pairs than bins.
    """
    if not len(score) == len(truth) == len(groups) or len(score) < n_bins:
        raise ValueError(
            f"expected at least {n_bins} pairs with score, truth and original each; "
            f"got {len(score)}, {len(truth)} and {len(groups)}"
        )
    codes = torch.from_numpy(np.unique(np.asarray(groups), return_inverse=True)[1])
    edges = np.unique(np.quantile(score.double().numpy(), np.linspace(0, 1, n_bins + 1)))
    where = np.clip(np.searchsorted(edges, score.double().numpy(), side="right") - 1, 0, None)
    where = np.minimum(where, max(len(edges) - 2, 0))
    rows = []
    for b in np.unique(where):
        kept = torch.from_numpy(where == b)
        own = torch.unique(codes[kept], return_inverse=True)[1]
        counts = torch.bincount(own).double()
        total = torch.zeros(len(counts), dtype=torch.double)
        total.index_add_(0, own, truth[kept].double())
        found = bootstrap_ratio(total, counts, n_boot=n_boot, seed=seed)
        inside = score[kept].double()
        rows.append({"score_low": float(inside.min()), "score_high": float(inside.max()),
                     "score": float(inside.mean()), **found.columns(),
                     "n_pairs": int(kept.sum()), "n": found.n})  # fmt: skip
    return pd.DataFrame(rows)


def _correlations(rows: Array) -> Array:
    """(..., M, M) Spearman correlations of (..., M, P) rows, ties averaged; NaN where a row is
    constant."""
    ranked = stats.rankdata(rows, axis=-1)
    centred = ranked - ranked.mean(-1, keepdims=True)
    norm = np.sqrt((centred**2).sum(-1))
    norm = np.where(norm > 0, norm, np.nan)
    found = (centred @ centred.swapaxes(-1, -2)) / (norm[..., None] * norm[..., None, :])
    return np.asarray(np.clip(found, -1.0, 1.0))


def _interval(value: float, samples: np.ndarray, n: int) -> Estimate:
    """Percentile interval, widened where needed to hold the estimate.

    Resampling adds noise to ranks, so samples of a high correlation lie below it.
    """
    usable = torch.from_numpy(samples[~np.isnan(samples)])
    if math.isnan(value) or len(usable) == 0:
        return Estimate(value, math.nan, math.nan, n)
    found = percentile_estimate(value, usable, n)
    return Estimate(value, min(found.low, value), max(found.high, value), n, found.p_below)
