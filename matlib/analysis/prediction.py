"""Does the theory predict techniques that it has not seen?

The model was fitted to dialled runs. Real techniques have measured coordinates instead of set
levels; the setting of the dials that comes nearest to them stands for the technique, and the
model says what it should gain.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from matlib.analysis.agreement import rank_correlation
from matlib.analysis.experiment import CROSS_TALK, DIALS, Effects
from matlib.evaluation.statistics import bootstrap_mean

GRID = 41
"""Levels of a dial that are searched."""

MODELS = ("theory", "theory_offset", "baseline")
"""`theory`, the one that is reported first: the fitted model as it is, which has seen no
technique; `theory_offset`: with the mean error on the other techniques taken out; `baseline`:
the mean gain of the other techniques."""


def levels_from_measures(
    runs: pd.DataFrame, achieved: Mapping[str, str], techniques: pd.DataFrame
) -> pd.DataFrame:
    """The set levels whose measures come nearest to those of each technique.

    Per modality every achieved measure is fitted as a function of the three levels and their
    products (an added caption that is wrong loses less similarity by a dialect than a true one),
    and a fine grid of levels is searched. So a level never leaves the dial's range; a technique
    whose measures no setting has is placed at the nearest one and marked.

    Args:
        runs: columns alignment, diversity, shift (set), modality, and the measures.
        achieved: dial -> column of its measure, in `runs`.
        techniques: columns technique, modality, and alignment, diversity, shift (*measured*, in
            the units of the measures).

    Returns:
        columns technique, modality, alignment, diversity, shift (levels in [0, 1]), `miss` (the
        measure that is farthest off there, as a share of its range over the runs) and
        `inside`, whether that is at most a tenth.

    Raises:
        ValueError: a modality without runs, or a measure that does not move.
    """
    steps = np.linspace(0, 1, GRID)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    rows = []
    for _, technique in techniques.iterrows():
        part = runs[runs["modality"] == technique["modality"]]
        if part.empty:
            raise ValueError(f"no dialled runs of modality {technique['modality']!r}")
        measures = part[[achieved[dial] for dial in DIALS]].to_numpy(dtype=float)
        span = np.ptp(measures, axis=0)
        if (span == 0).any():
            raise ValueError("a dial moves its measure nowhere: see manipulation_check")
        set_levels = part[list(DIALS)].to_numpy(dtype=float)
        fitted = np.linalg.lstsq(_products(set_levels), measures, rcond=None)[0]
        miss = (_products(grid) @ fitted - technique[list(DIALS)].to_numpy(dtype=float)) / span
        nearest = int((miss**2).sum(1).argmin())
        farthest = float(np.abs(miss[nearest]).max())
        rows.append({"technique": technique["technique"], "modality": technique["modality"],
                     **dict(zip(DIALS, grid[nearest].tolist(), strict=True)),
                     "miss": farthest, "inside": farthest <= CROSS_TALK})  # fmt: skip
    return pd.DataFrame(rows)


def _products(levels: np.ndarray) -> np.ndarray:
    """(P, 7): one, the three levels, and their products in pairs."""
    a, d, s = levels.T
    return np.column_stack([np.ones(len(levels)), a, d, s, a * d, a * s, d * s])


def predict_left_out(effects: Effects, levels: pd.DataFrame, gain: pd.Series) -> pd.DataFrame:
    """Predicted and measured gain of techniques that took no part in the fit.

    Args:
        effects: fitted to the dialled runs only.
        levels: from `levels_from_measures`, P techniques.
        gain: (P,), measured gain of each, by `technique`.

    Returns:
        the columns of `levels`, gain, and a column per entry of `MODELS`.

    Raises:
        ValueError: fewer than three techniques, or one without gain.
    """
    measured = gain.reindex(levels["technique"]).to_numpy(dtype=float)
    if len(measured) < 3 or not np.isfinite(measured).all():
        raise ValueError("the gain of at least three techniques is needed, and of every one named")
    n = len(measured)
    theory = effects.predict(levels)
    error = measured - theory
    mean_of_others = (measured.sum() - measured) / (n - 1)
    offset = (error.sum() - error) / (n - 1)
    return levels.assign(
        gain=measured, theory=theory, theory_offset=theory + offset, baseline=mean_of_others
    )


def prediction_errors(
    predicted: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Mean absolute error of each model, and by how much it is below the baseline's.

    Intervals resample techniques; the difference is paired.

    Args:
        predicted: from `predict_left_out`.

    Returns:
        columns model, error, low, high, rmse, better_by (baseline minus model), better_low,
        better_high, n.
    """
    miss = {
        model: torch.tensor((predicted[model] - predicted["gain"]).abs().to_numpy(copy=True))
        for model in MODELS
    }
    rows = []
    for model, own in miss.items():
        error = bootstrap_mean(own, n_boot=n_boot, seed=seed)
        better = bootstrap_mean(miss["baseline"] - own, n_boot=n_boot, seed=seed)
        rows.append({"model": model, **error.columns("error"),
                     "rmse": float(own.square().mean().sqrt()),
                     **better.columns("better_by", "better_"), "n": error.n})  # fmt: skip
    return pd.DataFrame(rows)


def coordinate_correlations(techniques: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of each coordinate with the gain, over techniques.

    Args:
        techniques: columns alignment, diversity, shift and gain; one row per technique, at least
            four.

    Returns:
        columns coordinate, value, low, high, p_above, p_below (one-sided, by permutation:
        "the correlation is not above / not below 0"), n.
    """
    rows = []
    gain = torch.tensor(techniques["gain"].to_numpy(dtype=float, copy=True))
    for name in DIALS:
        own = torch.tensor(techniques[name].to_numpy(dtype=float, copy=True))
        found, turned = rank_correlation(own, gain), rank_correlation(-own, gain)
        rows.append({"coordinate": name, **found.columns(), "p_above": found.p_below,
                     "p_below": turned.p_below, "n": found.n})  # fmt: skip
    return pd.DataFrame(rows)
