"""What techniques gain: from a table of runs to one line per technique, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from matlib.analysis.experiment import by_training
from matlib.augmentations.table import TECHNIQUES
from matlib.evaluation.statistics import Estimate, over_seeds

CONTROLS = tuple(name for name, each in TECHNIQUES.items() if each.is_control)
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
    runs = by_training(runs)
    clean = runs[runs["row"] == reference].set_index("seed")["clean"]
    rows: list[dict[str, Any]] = []
    for name, part in runs.groupby("row", sort=False):
        if name == reference:
            continue
        part = part.sort_values("seed")
        first = part.iloc[0]
        kept = part["clean"].to_numpy() - clean.reindex(part["seed"]).to_numpy()
        own = _estimate(part["gain"], first["gain_low"], first["gain_high"])
        about = ("row", "technique", "augmentation", "modality", "n_train", "n_variants")
        means = ("worst", "sga", "clean", "seconds", "validation", *GAIN_COORDINATES)
        rows.append(
            {
                **{column: first[column] for column in about},
                **{column: part[column].astype(float).mean() for column in means},
                **own.columns("gain"),
                **_estimate(part["sga_gain"]).columns("sga_gain", "sga_"),
                **_estimate(part["gap"]).columns("gap", "gap_"),
                **_estimate(kept).columns("clean_gain", "clean_"),
                "n_seeds": own.n_seeds,
            }
        )
    found = pd.DataFrame(rows)
    return found.sort_values("gain", ascending=False, ignore_index=True) if rows else found


def _estimate(by_seed: Iterable[float], low: float = math.nan, high: float = math.nan) -> Estimate:
    """By the rule of intervals; the first seed's interval is what the table has of it."""
    values = list(by_seed)
    return over_seeds(values, lambda: Estimate(values[0], low, high, 1))


def best_on_validation(runs: pd.DataFrame, modality: str) -> str | None:
    """The row with plain options that does best on validation pairs, of one modality.

    Controls are no candidates.

    Args:
        runs: as for `gains_of_techniques`.
        modality: `text` or `image`.
    """
    plain = runs[(runs["modality"] == modality) & (runs["technique"] == runs["augmentation"])]
    plain = plain[~plain["augmentation"].isin(CONTROLS)]
    if plain.empty:
        return None
    return str(plain.groupby("row", sort=False)["validation"].mean().idxmax())
