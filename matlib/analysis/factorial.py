"""What makes a good pair: the model of the intervention, fitted to a table of runs.

Each run is one training at one point of a factorial design: `alignment`, `diversity` and
`shift` were *set* (levels in [0, 1]) for added pairs of one `modality`, and `gain` is what the
run won over the same seed without added pairs. Effects are those of the set levels.

Intervals follow the project's rule of seeds: from three seeds on, the model is fitted to each
seed by itself and a t-interval is taken of the coefficients (the seed is the unit). With
fewer, design points are resampled with all their seeds: such an interval also counts what the
model misses, but holds for these seeds only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from matlib.evaluation.bootstrap import Estimate, percentile_estimate
from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL, holm, t_interval

DIALS = ("alignment", "diversity", "shift")
MODALITIES = ("image", "text")
CENTRE = 0.5
"""Levels are counted from the middle of the range, so that a main effect is the average over
the design: gain at level 1 minus gain at level 0, the other dials at their middle."""

BEND = "^2"


@dataclass(frozen=True)
class Effects:
    """Main effects, bends and two-way interactions on the gain.

    Attributes:
        estimates: term -> estimate, in units of the gain: `mean` (the middle of the design);
            a dial (from level 0 to 1); `modality` (text minus image); `a:b` (how much the
            effect of a grows from the low to the high end of b); `a^2` (both ends of a dial
            minus its middle: below 0 where half of it is better than the ends foretell).
        p_values: term -> two-sided p-value of "no effect".
        residual_sd: standard deviation of the runs about the fit.
        n_points, n_seeds: design points and seeds behind it.
    """

    estimates: dict[str, Estimate]
    p_values: dict[str, float]
    residual_sd: float
    n_points: int
    n_seeds: int

    def predict(self, levels: pd.DataFrame) -> np.ndarray:
        """(P,) gain at the given levels (columns alignment, diversity, shift, modality)."""
        design, terms = design_matrix(levels, terms=tuple(self.estimates))
        return design @ np.array([self.estimates[term].value for term in terms])

    def table(self) -> pd.DataFrame:
        """One row per term: term, value, low, high, p (two-sided), p_holm, n, unit.

        Holm's correction runs over all terms but the mean.
        """
        rows = [
            {"term": term, "value": e.value, "low": e.low, "high": e.high,
             "p": self.p_values[term], "n": e.n, "unit": e.unit}
            for term, e in self.estimates.items()
        ]  # fmt: skip
        found = pd.DataFrame(rows)
        tested = found["term"] != "mean"
        found["p_holm"] = math.nan
        found.loc[tested, "p_holm"] = holm(found.loc[tested, "p"].tolist())
        return found


def design_matrix(
    levels: pd.DataFrame, terms: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(P, T) columns of the model and their names.

    Args:
        levels: columns alignment, diversity, shift in [0, 1] and modality.
        terms: columns wanted; by default the mean, every factor that varies, a bend for each
            dial with three levels or more, and the products of two factors.

    Raises:
        ValueError: a column is missing, or a modality is neither image nor text.
    """
    missing = {*DIALS, "modality"} - set(levels.columns)
    unknown = set(levels.get("modality", [])) - set(MODALITIES)
    if missing or unknown:
        raise ValueError(
            f"a design needs the columns {', '.join(DIALS)} and modality (image or text); "
            f"missing {sorted(missing)}, unknown modalities {sorted(unknown)}"
        )
    factors = {dial: levels[dial].to_numpy(dtype=float) - CENTRE for dial in DIALS}
    factors["modality"] = np.where(levels["modality"] == "text", 0.5, -0.5)
    if terms is None:
        varied = [name for name, column in factors.items() if np.ptp(column) > 0]
        bends = [d + BEND for d in varied if d in DIALS and len(np.unique(factors[d])) > 2]
        products = [":".join(pair) for pair in combinations(varied, 2)]
        terms = ("mean", *varied, *bends, *products)
    columns = []
    for term in terms:
        column = np.ones(len(levels))
        for name in () if term == "mean" else term.split(":"):
            column = column * (_bend(factors[name[:-2]]) if name.endswith(BEND) else factors[name])
        columns.append(column)
    return np.stack(columns, 1), tuple(terms)


def _bend(centred: np.ndarray) -> np.ndarray:
    """1 at both ends of a dial, 0 in its middle."""
    return (centred / CENTRE) ** 2


def fit_effects(runs: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0) -> Effects:
    """Least squares of the gain on main effects, bends and two-way interactions.

    Args:
        runs: columns alignment, diversity, shift (set levels), modality, seed, gain.
        n_boot: resamples of the design points, where there are fewer than three seeds.
        seed: of the bootstrap.

    Raises:
        ValueError: columns missing, a level outside [0, 1], a gain that is not finite, or a
            design that cannot tell the terms apart.
    """
    check_runs(runs)
    design, terms = design_matrix(runs)
    gain = runs["gain"].to_numpy(dtype=float)
    if np.linalg.matrix_rank(design) < len(terms):
        raise ValueError(
            f"the design cannot tell its {len(terms)} terms apart: vary every dial together "
            "with every other one, or leave a dial at one level"
        )
    centre = np.linalg.lstsq(design, gain, rcond=None)[0]
    points = point_of(runs)
    seeds = runs["seed"].to_numpy()
    per_seed = _fits_per_seed(design, gain, seeds)
    n_points = int(points.max()) + 1
    if per_seed is not None:
        estimates = {t: t_interval(per_seed[:, k].tolist()) for k, t in enumerate(terms)}
        p = {t: 2 * min(e.p_below, 1 - e.p_below) for t, e in estimates.items()}
    else:
        samples = torch.from_numpy(_resampled_fits(design, gain, points, n_boot, seed))
        estimates = {
            term: percentile_estimate(float(centre[k]), samples[:, k], n_points, 0.95, 0.0)
            for k, term in enumerate(terms)
        }
        p = {term: _two_sided(samples[:, k]) for k, term in enumerate(terms)}
    free = max(1, len(gain) - len(terms))
    residual = float(np.sqrt(((gain - design @ centre) ** 2).sum() / free))
    return Effects(estimates, p, residual, n_points, len(set(seeds)))


def check_runs(runs: pd.DataFrame) -> None:
    """Raise ValueError unless `runs` is a table that the model can be fitted to."""
    missing = {*DIALS, "modality", "seed", "gain"} - set(runs.columns)
    if missing or runs.empty:
        raise ValueError(f"a table of runs with columns {sorted(missing)} is expected")
    levels = runs[list(DIALS)].to_numpy(dtype=float)
    if not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError("levels are set in [0, 1]; measured values are not levels")
    if not np.isfinite(runs["gain"].to_numpy(dtype=float)).all():
        raise ValueError("some runs have no gain: leave failed runs out of the table")
    if runs.duplicated([*DIALS, "modality", "seed"]).any():
        raise ValueError("a design point has two runs of one seed; one row per run is expected")


def point_of(runs: pd.DataFrame, columns: Sequence[str] = (*DIALS, "modality")) -> np.ndarray:
    """int64 (P,): which design point each run belongs to."""
    return runs.groupby(list(columns), sort=True).ngroup().to_numpy()


def _fits_per_seed(design: np.ndarray, gain: np.ndarray, seeds: np.ndarray) -> np.ndarray | None:
    """(S, T) coefficients, or None where seeds are too few or lack part of the design."""
    names = np.unique(seeds)
    parts = [(design[seeds == s], gain[seeds == s]) for s in names]
    if len(names) < MIN_SEEDS_FOR_INTERVAL or any(
        np.linalg.matrix_rank(part) < design.shape[1] for part, _ in parts
    ):
        return None
    return np.stack([np.linalg.lstsq(part, own, rcond=None)[0] for part, own in parts])


def _resampled_fits(
    design: np.ndarray, gain: np.ndarray, points: np.ndarray, n_boot: int, seed: int
) -> np.ndarray:
    """(B, T) coefficients of resampled design points; those that cannot be fitted are left out."""
    n = int(points.max()) + 1
    rng = np.random.default_rng((seed, 0))
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_boot)[:, points].astype(float)
    left = np.einsum("bp,pi,pj->bij", weights, design, design, optimize=True)
    right = weights @ (design * gain[:, None])
    usable = np.linalg.cond(left) < 1e10
    return np.linalg.solve(left[usable], right[usable][..., None])[..., 0]


def _two_sided(samples: Tensor) -> float:
    """Twice the smaller share of bootstrap samples on one side of 0; never 0 itself."""
    fewer = min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    return min(1.0, 2 * (fewer + 1) / (len(samples) + 1))
