"""Gain by the set level of each dial: what the fitted model summarises, level by level."""

from __future__ import annotations

import math

import pandas as pd
import torch

from matlib.analysis.factorial import DIALS, check_runs
from matlib.evaluation.bootstrap import Estimate, bootstrap_mean
from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL, t_interval


def responses_by_dose(runs: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean gain at every level of every dial, by modality, averaged over the other dials.

    With three seeds or more, a t-interval over seeds. With fewer, settings of the *other* dials
    are resampled after their own means are taken out (Cousineau 2005, Morey 2008): the interval
    is about the shape of the curve, not about how much the other dials matter.

    Args:
        runs: as for `fit_effects`.
        n_boot: resamples, where there are fewer than three seeds.
        seed: of the bootstrap.

    Returns:
        columns dial, modality, level, value, low, high, n, unit.
    """
    check_runs(runs)
    rows = []
    for dial in DIALS:
        for modality, part in runs.groupby("modality"):
            for level, found in _level_means(part, dial, n_boot, seed).items():
                rows.append({"dial": dial, "modality": modality, "level": level,
                             "value": found.value, "low": found.low, "high": found.high,
                             "n": found.n, "unit": found.unit})  # fmt: skip
    return pd.DataFrame(rows)


def _level_means(part: pd.DataFrame, dial: str, n_boot: int, seed: int) -> dict[float, Estimate]:
    others = [name for name in DIALS if name != dial]
    per_seed = part.pivot_table(index="seed", columns=dial, values="gain", aggfunc="mean")
    if len(per_seed) >= MIN_SEEDS_FOR_INTERVAL and not per_seed.isna().any(axis=None):
        levels = per_seed.columns.to_numpy(dtype=float).tolist()
        return dict(zip(levels, map(t_interval, per_seed.to_numpy().T.tolist()), strict=True))
    blocks = part.pivot_table(index=others, columns=dial, values="gain", aggfunc="mean").dropna()
    n_levels = blocks.shape[1]
    if blocks.empty or n_levels < 2:
        raise ValueError(f"no setting of {' and '.join(others)} was run at every level of {dial}")
    centred = blocks.sub(blocks.mean(axis=1), axis=0)
    # taking out the block's mean shrinks the variance of L levels by (L - 1) / L
    widened = (centred - centred.mean()) * math.sqrt(n_levels / (n_levels - 1)) + blocks.mean()
    columns = torch.tensor(widened.to_numpy(copy=True)).T
    found = [bootstrap_mean(column, n_boot=n_boot, seed=seed) for column in columns]
    return dict(zip(widened.columns.to_numpy(dtype=float).tolist(), found, strict=True))
