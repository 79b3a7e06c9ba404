"""Does the theory predict techniques that it has not seen?

The model was fitted to dialled runs. Real techniques have measured coordinates instead of set
levels; these are brought to the scale of the levels by the relation between level and measure
in the dialled runs, and then the model says what each technique should gain.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from matlib.analysis.agreement import rank_correlation
from matlib.analysis.factorial import DIALS, Effects
from matlib.evaluation.bootstrap import bootstrap_mean

MODELS = ("theory", "theory_offset", "baseline")
"""`theory`: the fitted model as it is; `theory_offset`: with the mean error on the other
techniques taken out; `baseline`: the mean gain of the other techniques."""


def levels_from_measures(
    runs: pd.DataFrame, achieved: Mapping[str, str], techniques: pd.DataFrame
) -> pd.DataFrame:
    """The levels at which the dialled runs have the techniques' measured coordinates.

    Per modality the achieved measures are linear in all three set levels (so cross-talk is
    accounted for), and the three equations are solved for the levels.

    Args:
        runs: columns alignment, diversity, shift (set), modality, and the measures.
        achieved: dial -> column of its measure, in `runs`.
        techniques: columns technique, modality, and alignment, diversity, shift (*measured*, in
            the units of the measures).

    Returns:
        columns technique, modality, alignment, diversity, shift (levels, may leave [0, 1]) and
        `inside`, False where the model has to extrapolate.

    Raises:
        ValueError: a modality without runs, or measures that the dials do not move apart.
    """
    rows = []
    for _, technique in techniques.iterrows():
        part = runs[runs["modality"] == technique["modality"]]
        if part.empty:
            raise ValueError(f"no dialled runs of modality {technique['modality']!r}")
        design = np.column_stack([np.ones(len(part)), part[list(DIALS)].to_numpy(dtype=float)])
        measures = part[[achieved[dial] for dial in DIALS]].to_numpy(dtype=float)
        linear = np.linalg.lstsq(design, measures, rcond=None)[0]  # (4, 3)
        scale = np.abs(linear[1:]).max(0)
        if (scale == 0).any() or np.linalg.cond(linear[1:] / scale) > 1e4:
            raise ValueError("the dials do not move their measures apart: see manipulation_check")
        wanted = technique[list(DIALS)].to_numpy(dtype=float) - linear[0]
        levels = np.linalg.solve(linear[1:].T, wanted)
        inside = bool(((levels >= -0.05) & (levels <= 1.05)).all())
        rows.append({"technique": technique["technique"], "modality": technique["modality"],
                     **dict(zip(DIALS, levels.tolist(), strict=True)),
                     "inside": inside})  # fmt: skip
    return pd.DataFrame(rows)


def predict_left_out(effects: Effects, levels: pd.DataFrame, gain: pd.Series) -> pd.DataFrame:
    """Predicted and measured gain of techniques that took no part in the fit.

    Args:
        effects: fitted to the dialled runs only.
        levels: from `levels_from_measures`, P techniques.
        gain: (P,), measured gain of each, by `technique`.

    Returns:
        columns technique, modality, inside, gain, and a column per entry of `MODELS`.

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
    return levels[["technique", "modality", "inside"]].assign(
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
        rows.append({"model": model, "error": error.value, "low": error.low, "high": error.high,
                     "rmse": float(own.square().mean().sqrt()), "better_by": better.value,
                     "better_low": better.low, "better_high": better.high,
                     "n": error.n})  # fmt: skip
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
        rows.append({"coordinate": name, "value": found.value, "low": found.low,
                     "high": found.high, "p_above": found.p_below, "p_below": turned.p_below,
                     "n": found.n})  # fmt: skip
    return pd.DataFrame(rows)
