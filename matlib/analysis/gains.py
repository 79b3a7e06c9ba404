"""What techniques gain: from a table of runs to one line per technique, with intervals."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from matlib.evaluation.bootstrap import Estimate
from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL, t_interval

CONTROLS = ("mismatched", "restated", "characters")
"""Techniques that stand for no way of augmenting: wrong captions, nothing new, misspelt words."""

GAIN_COORDINATES = ("similarity", "vendi", "mmd2", "true_fraction")


def gains_of_techniques(runs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """One line per row of the comparison, the largest gain first.

    Args:
        runs: columns row, technique, augmentation, modality, seed, n_train, n_variants, worst,
            sga, clean, gain, gain_low, gain_high, sga_gain, gap, seconds, validation and the
            coordinates, one line per row and seed.
        reference: the row that gains are counted from; left out.

    Returns:
        the same without seeds: means over seeds, `gain` with `low` and `high` (t-interval over
        seeds from three on; below, the first seed's over images), `sga_gain` with `sga_low` and
        `sga_high`, `gap` with `gap_low` and `gap_high`, and `clean_gain` over the reference with
        `clean_low` and `clean_high` (t-intervals; else not a number), n_seeds.
    """
    clean = runs[runs["row"] == reference].set_index("seed")["clean"]
    rows: list[dict[str, Any]] = []
    for name, part in runs.groupby("row", sort=False):
        if name == reference:
            continue
        part = part.sort_values("seed")
        first = part.iloc[0]
        own = _estimate(part["gain"].tolist(), first["gain_low"], first["gain_high"])
        kept = part["clean"].to_numpy() - clean.reindex(part["seed"]).to_numpy()
        of_clean, of_sga, gap = (
            _estimate(values, math.nan, math.nan)
            for values in (kept.tolist(), part["sga_gain"].tolist(), part["gap"].tolist())
        )
        about = ("row", "technique", "augmentation", "modality", "n_train", "n_variants")
        means = ("worst", "sga", "clean", "seconds", "validation", *GAIN_COORDINATES)
        n_seeds = len(part) if len(part) >= MIN_SEEDS_FOR_INTERVAL else 1
        rows.append(
            {
                **{column: first[column] for column in about},
                **{column: part[column].astype(float).mean() for column in means},
                "gain": own.value, "low": own.low, "high": own.high,
                "sga_gain": of_sga.value, "sga_low": of_sga.low, "sga_high": of_sga.high,
                "gap": gap.value, "gap_low": gap.low, "gap_high": gap.high,
                "clean_gain": of_clean.value, "clean_low": of_clean.low,
                "clean_high": of_clean.high, "n_seeds": n_seeds,
            }
        )  # fmt: skip
    found = pd.DataFrame(rows)
    return found.sort_values("gain", ascending=False, ignore_index=True) if rows else found


def _estimate(values: list[float], low: float, high: float) -> Estimate:
    if len(values) >= MIN_SEEDS_FOR_INTERVAL:
        return t_interval(values)
    return Estimate(values[0], low, high, 1, math.nan)


def best_on_validation(runs: pd.DataFrame, modality: str) -> str | None:
    """The row with plain options that does best on validation pairs, of one modality.

    Controls are no candidates.

    Args:
        runs: as for `technique_gains`.
        modality: `text` or `image`.
    """
    plain = runs[(runs["modality"] == modality) & (runs["technique"] == runs["augmentation"])]
    plain = plain[~plain["augmentation"].isin(CONTROLS)]
    if plain.empty:
        return None
    return str(plain.groupby("row", sort=False)["validation"].mean().idxmax())
