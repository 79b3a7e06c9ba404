"""Did the dials do what they were set to? Achieved measures against set levels.

A dial that does not move its own measure has set nothing. One that also moves another measure
by more than a tenth of that measure's range has failed: its effect cannot be told from the
other's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from matlib.analysis.factorial import DIALS
from matlib.evaluation.bootstrap import Estimate, percentile_estimate

CROSS_TALK = 0.10
"""Share of another measure's range that a dial may move at most. source: ours (design)."""


def manipulation_check(
    runs: pd.DataFrame,
    achieved: Mapping[str, str],
    *,
    ranges: Mapping[str, float] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How far every dial moved every measure, by modality.

    *Moved* is the mean of the measure at the level that is farthest from the lowest one, minus
    that at the lowest level, averaged over the settings of the other dials; these are what
    the interval resamples. A level in the middle counts, so a bend cannot hide.

    Args:
        runs: columns alignment, diversity, shift (set levels), modality, and the measures.
        achieved: dial -> column with the measure that it is meant to move upwards.
        ranges: dial -> range of its measure; by default how far its own dial moves it.
        n_boot: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        columns modality, dial, measure (dial whose measure it is), moved, low, high, share
        (of the measure's range), is_own, failed, verdict; one row per dial and measure.

    Raises:
        ValueError: a measure is missing, or no dial varies.
    """
    missing = {*achieved.values(), *DIALS, "modality"} - set(runs.columns)
    if missing:
        raise ValueError(f"the table of runs lacks {sorted(missing)}")
    rows = []
    for modality, part in runs.groupby("modality"):
        dials = [dial for dial in achieved if part[dial].nunique() > 1]
        if not dials:
            raise ValueError(f"no dial was set to more than one level ({modality})")
        moved = {
            (dial, measure): _moved(part, dial, achieved[measure], n_boot, seed)
            for dial in dials
            for measure in dials
        }
        for (dial, measure), found in moved.items():
            of = abs(moved[measure, measure].value) if ranges is None else ranges[measure]
            share = abs(found.value) / of if of > 0 else math.inf
            verdict = _verdict(dial == measure, found, share)
            rows.append({"modality": modality, "dial": dial, "measure": measure,
                         "moved": found.value, "low": found.low, "high": found.high,
                         "share": share, "is_own": dial == measure,
                         "failed": verdict.startswith("failed"), "verdict": verdict})  # fmt: skip
    return pd.DataFrame(rows)


def achieved_levels(runs: pd.DataFrame, achieved: Mapping[str, str]) -> pd.DataFrame:
    """Mean of each dial's own measure at each of its levels: the curve from set to achieved.

    Returns:
        columns modality, dial, level, value, low, high (range over the runs), n.
    """
    rows = []
    for dial, column in achieved.items():
        for (modality, level), part in runs.groupby(["modality", dial]):
            found = part[column]
            rows.append({"modality": modality, "dial": dial, "level": level,
                         "value": found.mean(), "low": found.min(), "high": found.max(),
                         "n": len(found)})  # fmt: skip
    return pd.DataFrame(rows)


def range_check(
    runs: pd.DataFrame,
    achieved: Mapping[str, str],
    techniques: pd.DataFrame,
    *,
    quantiles: tuple[float, float] = (0.1, 0.9),
) -> pd.DataFrame:
    """Do the dials reach as far as real techniques do?

    Args:
        runs: as for `manipulation_check`.
        achieved: dial -> column of a measure that both tables have.
        techniques: columns modality and the measures, one row per real technique.
        quantiles: of the techniques, that the dialled runs are to span.

    Returns:
        columns modality, dial, reached_low, reached_high (over the runs), wanted_low,
        wanted_high, n (techniques), spans (within a tenth of the reached range).
    """
    rows = []
    for modality, part in runs.groupby("modality"):
        own = techniques[techniques["modality"] == modality]
        for dial, column in achieved.items():
            low, high = float(part[column].min()), float(part[column].max())
            wanted = own[column].astype(float).quantile(list(quantiles)).tolist()
            slack = CROSS_TALK * (high - low)
            spans = bool(low - slack <= wanted[0] and wanted[1] <= high + slack)
            rows.append({"modality": modality, "dial": dial, "reached_low": low,
                         "reached_high": high, "wanted_low": wanted[0], "wanted_high": wanted[1],
                         "n": len(own), "spans": spans})  # fmt: skip
    return pd.DataFrame(rows)


def _moved(part: pd.DataFrame, dial: str, column: str, n_boot: int, seed: int) -> Estimate:
    others = [name for name in DIALS if name != dial]
    blocks = part.pivot_table(index=others, columns=dial, values=column, aggfunc="mean").dropna()
    if blocks.empty:
        raise ValueError(f"no setting of {' and '.join(others)} was run at every level of {dial}")
    differences = blocks.to_numpy()[:, 1:] - blocks.to_numpy()[:, :1]
    farthest = int(np.abs(differences.mean(0)).argmax())
    own = differences[:, farthest]
    rng = np.random.default_rng((seed, 0))
    samples = own[rng.integers(len(own), size=(n_boot, len(own)))].mean(1)
    return percentile_estimate(float(own.mean()), torch.from_numpy(samples), len(own), 0.95, 0.0)


def _verdict(is_own: bool, found: Estimate, share: float) -> str:
    if is_own:
        return "moves its measure" if found.low > 0 else "failed: does not move its measure up"
    if share > CROSS_TALK:
        return f"failed: moves another measure by {100 * share:.0f} % of its range"
    return "leaves it alone"
