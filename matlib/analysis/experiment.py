"""What makes a good pair: the model of the intervention, fitted to a table of runs.

Each run is one training at one point of a factorial design: `alignment`, `diversity` and
`shift` were *set* (levels in [0, 1]) for added pairs of one `modality`, and `gain` is what the
run won over the same seed without added pairs. Effects are those of the set levels.

A training seed in one world is one training of everything: below, a *seed* is such a pair, where
a table has the column `world`.

Intervals follow the project's rule of seeds: from three seeds on, the model is fitted to each
seed by itself and a t-interval is taken of the coefficients (the seed is the unit). With
fewer, design points are resampled with all their seeds: such an interval also counts what the
model misses, but holds for these seeds only.

Did the dials do what they were set to? Achieved measures against set levels.

A dial that does not move its own measure has set nothing. One that also moves another measure
by more than a tenth of that measure's range has failed: its effect cannot be told from the
other's.

Gain by the set level of each dial: what the fitted model summarises, level by level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from matlib.evaluation.statistics import (
    MIN_SEEDS_FOR_INTERVAL,
    Estimate,
    bootstrap_mean,
    holm,
    over_seeds,
    percentile_estimate,
    t_interval,
)

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
            {"term": term, **e.columns(), "p": self.p_values[term], "n": e.n, "unit": e.unit}
            for term, e in self.estimates.items()
        ]
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
            dial with three levels or more, and the products of two factors (in a Latin square,
            which cannot tell them, without those of two dials).

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
        columns = _columns(factors, terms)
        if np.linalg.matrix_rank(columns) < len(terms):
            terms = tuple(t for t in terms if ":" not in t or t.endswith(":modality"))
    return _columns(factors, terms), tuple(terms)


def _columns(factors: Mapping[str, np.ndarray], terms: Sequence[str]) -> np.ndarray:
    """(P, T): each term at each design point."""
    columns, n = [], len(next(iter(factors.values())))
    for term in terms:
        column = np.ones(n)
        for name in () if term == "mean" else term.split(":"):
            column = column * (_bend(factors[name[:-2]]) if name.endswith(BEND) else factors[name])
        columns.append(column)
    return np.stack(columns, 1)


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
    runs = checked_runs(runs)
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
            term: percentile_estimate(float(centre[k]), samples[:, k], n_points)
            for k, term in enumerate(terms)
        }
        p = {term: _two_sided(samples[:, k]) for k, term in enumerate(terms)}
    free = max(1, len(gain) - len(terms))
    residual = float(np.sqrt(((gain - design @ centre) ** 2).sum() / free))
    return Effects(estimates, p, residual, n_points, len(set(seeds)))


def by_training(runs: pd.DataFrame) -> pd.DataFrame:
    """The table with one `seed` for each pair of world and training seed."""
    if "world" not in runs:
        return runs
    return runs.assign(seed=runs.groupby(["world", "seed"], sort=True).ngroup())


def n_trainings(runs: pd.DataFrame) -> int:
    """How often everything was trained: pairs of a world and a training seed."""
    return int(by_training(runs)["seed"].nunique())


def checked_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The table `by_training`.

    Raises:
        ValueError: the model cannot be fitted to it.
    """
    missing = {*DIALS, "modality", "seed", "gain"} - set(runs.columns)
    if missing or runs.empty:
        raise ValueError(f"a table of runs with columns {sorted(missing)} is expected")
    levels = runs[list(DIALS)].to_numpy(dtype=float)
    if not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError("levels are set in [0, 1]; measured values are not levels")
    if not np.isfinite(runs["gain"].to_numpy(dtype=float)).all():
        raise ValueError("some runs have no gain: leave failed runs out of the table")
    runs = by_training(runs)
    if runs.duplicated([*DIALS, "modality", "seed"]).any():
        raise ValueError("a design point has two runs of one seed; one row per run is expected")
    return runs


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
                         **found.columns("moved"), "share": share, "is_own": dial == measure,
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


def steps_of_dials(
    runs: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0
) -> dict[tuple[str, str], list[tuple[float, float, Estimate]]]:
    """What every step of every dial adds to the gain, by modality.

    A step is the mean gain at one level minus that at the level below, over the settings of the
    other dials (in a Latin square, over the levels of one of them). With three seeds or more, a
    t-interval over seeds; with fewer, over these settings. So a dial that helps and then harms is
    seen as that.

    Args:
        runs: as for `fit_effects`.
        n_boot: resamples, where there are fewer than three seeds.
        seed: of the bootstrap.

    Returns:
        (dial, modality) -> (lower level, higher level, step), in the order of the levels.
    """
    runs, found = checked_runs(runs), {}
    for dial in DIALS:
        for modality, part in runs.groupby("modality"):
            by, others = _blocks(part, dial, "gain", ["seed"])
            levels = by.columns.to_numpy(dtype=float).tolist()
            steps = by.diff(axis=1).iloc[:, 1:]
            per_seed = steps.groupby("seed").mean()
            per_setting = steps.groupby(others).mean()
            found[dial, str(modality)] = [
                (low, high, over_seeds(
                    per_seed[high].tolist(),
                    partial(bootstrap_mean, torch.tensor(per_setting[high].to_numpy(copy=True)),
                            n_boot=n_boot, seed=seed),
                ))
                for low, high in pairwise(levels)
            ]  # fmt: skip
    return found


def _blocks(
    part: pd.DataFrame, dial: str, value: str, also: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Means at every level of a dial, for each setting of the others that has all levels.

    In a Latin square no setting of both others has more than one: there, for each level of the
    first of them, which meets every level of the dial once.

    Args:
        also: further columns that a block has one value of.

    Returns:
        (blocks x levels), and the names of the other dials that settle a block.
    """
    others = [name for name in DIALS if name != dial]
    for settling in (others, others[:1]):
        index = [*also, *settling]
        blocks = part.pivot_table(index=index, columns=dial, values=value, aggfunc="mean").dropna()
        if len(blocks):
            return blocks, settling
    raise ValueError(f"no setting of {' and '.join(others)} was run at every level of {dial}")


def _moved(part: pd.DataFrame, dial: str, column: str, n_boot: int, seed: int) -> Estimate:
    blocks, _ = _blocks(part, dial, column)
    differences = blocks.to_numpy()[:, 1:] - blocks.to_numpy()[:, :1]
    farthest = int(np.abs(differences.mean(0)).argmax())
    own = differences[:, farthest]
    rng = np.random.default_rng((seed, 0))
    samples = own[rng.integers(len(own), size=(n_boot, len(own)))].mean(1)
    return percentile_estimate(float(own.mean()), torch.from_numpy(samples), len(own))


def _verdict(is_own: bool, found: Estimate, share: float) -> str:
    if is_own:
        return "moves its measure" if found.low > 0 else "failed: does not move its measure up"
    if share > CROSS_TALK:
        return f"failed: moves another measure by {100 * share:.0f} % of its range"
    return "leaves it alone"


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
    runs, rows = checked_runs(runs), []
    for dial in DIALS:
        for modality, part in runs.groupby("modality"):
            for level, found in _level_means(part, dial, n_boot, seed).items():
                rows.append({"dial": dial, "modality": modality, "level": level,
                             **found.columns(), "n": found.n, "unit": found.unit})  # fmt: skip
    return pd.DataFrame(rows)


def _level_means(part: pd.DataFrame, dial: str, n_boot: int, seed: int) -> dict[float, Estimate]:
    per_seed = part.pivot_table(index="seed", columns=dial, values="gain", aggfunc="mean")
    if len(per_seed) >= MIN_SEEDS_FOR_INTERVAL and not per_seed.isna().any(axis=None):
        levels = per_seed.columns.to_numpy(dtype=float).tolist()
        return dict(zip(levels, map(t_interval, per_seed.to_numpy().T.tolist()), strict=True))
    blocks, _ = _blocks(part, dial, "gain")
    n_levels = blocks.shape[1]
    if n_levels < 2:
        raise ValueError(f"{dial} has one level only")
    centred = blocks.sub(blocks.mean(axis=1), axis=0)
    # taking out the block's mean shrinks the variance of L levels by (L - 1) / L
    widened = (centred - centred.mean()) * math.sqrt(n_levels / (n_levels - 1)) + blocks.mean()
    columns = torch.tensor(widened.to_numpy(copy=True)).T
    found = [bootstrap_mean(column, n_boot=n_boot, seed=seed) for column in columns]
    return dict(zip(widened.columns.to_numpy(dtype=float).tolist(), found, strict=True))
