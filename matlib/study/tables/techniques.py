"""The comparison of techniques, and sweeps of their amount and strength, as tables.

The controlled experiment: every run with its set and achieved levels and its gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from matlib.evaluation.retrieval import Outcomes
from matlib.evaluation.robustness import worst_under
from matlib.evaluation.statistics import (
    MIN_SEEDS_FOR_INTERVAL,
    Estimate,
    primary_difference,
    primary_endpoint,
    t_interval,
)
from matlib.study.made import judgings
from matlib.study.made.judgings import PAIRS_ATTACKS, Judging
from matlib.study.made.measures import coordinates
from matlib.study.profile.rows import STRENGTHS, Run
from matlib.study.recipes import n_variants_of, sweep_rows_of
from matlib.study.study import Study

RUN_COLUMNS = (
    "row", "technique", "augmentation", "modality", "seed", "n_train", "n_variants", *PAIRS_ATTACKS,
    "worst", "gain", "gain_low", "gain_high", "sga_gain", "validation", "gap", "seconds",
    "similarity", "vendi", "mmd2", "true_fraction",
)  # fmt: skip

SWEEP_COLUMNS = (
    "augmentation", "dial", "unit", "level", "attack", "value", "low", "high", "row", "n_seeds",
)  # fmt: skip

COPIES_AT_ZERO = ("eda", "characters", "drop-swap", "augmix")
"""Techniques that at strength 0 add copies of the original, which is MAT itself. Others still add
something: a likeliest caption, a new rendering, a mirror image, RandAugment's operations that
have no strength."""


def found_by(
    study: Study,
    name: str,
    seed: int,
    how: Judging | None = None,
    attacks: Sequence[str] | None = None,
) -> dict[str, Outcomes]:
    """Outcomes of one row by attack under the primary threat, and `worst` over them.

    Args:
        how: `judgings.pairs` on the test gallery by default.
        attacks: of that judging, those that count; all by default.
    """
    e = study.profile.evaluation
    how = how or judgings.pairs(e)
    found = study.outcomes(name, seed, how)
    counted = how.attacks if attacks is None else attacks
    by = {a: found[a, "" if a in ("clean", "pgd") else e.primary_threat] for a in counted}
    return {**by, "worst": worst_under(found, e.primary_threat, counted)}


def technique_table(study: Study) -> pd.DataFrame:
    """Every row of the comparison and every seed: what it trained on, and how robust it is.

    Returns:
        `RUN_COLUMNS`. Recalls are primary endpoints on the test gallery; `gain` is the
        difference in `worst` from the reference of the same seed, with an interval over
        images; `validation` is the joint attack on validation pairs; `gap` robust recall on
        training minus held-out pairs, the base's subtracted; `seconds` of training, where the
        weights are here; then the coordinates of its pairs. Empty without techniques.
    """
    rows = [
        _technique_row(study, run, seed)
        for seed in study.profile.seeds_of_techniques
        for run in study.profile.techniques
    ]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def _technique_row(study: Study, run: Run, seed: int) -> dict[str, Any]:
    profile = study.profile
    found = found_by(study, run.row, seed)
    gain = gain_of(study, run.row, seed)
    validating = judgings.validating(profile.evaluation)
    history = study.history(run.row, seed)
    return {
        **about_row(study, run),
        "seed": seed,
        **{attack: primary_endpoint(found[attack]) for attack in (*PAIRS_ATTACKS, "worst")},
        "gain": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "sga_gain": gain_of(study, run.row, seed, attack="sga").value,
        "validation": primary_endpoint(found_by(study, run.row, seed, validating)["joint"]),
        "gap": _gap(study, run.row, seed),
        "seconds": float(history["seconds"].sum()) if len(history) else math.nan,
        **study.get(coordinates(study, run)),
    }


def about_row(study: Study, run: Run) -> dict[str, Any]:
    """What a row trains on, for a table."""
    return {
        "row": run.row,
        "technique": run.technique,
        "augmentation": run.augmentation,
        "modality": run.modality,
        "n_train": run.n_train or study.profile.dataset.n_train,
        "n_variants": n_variants_of(study.profile, run) if run.modality else 1,
    }


def gain_of(
    study: Study, name: str, seed: int, how: Judging | None = None, attack: str = "worst"
) -> Estimate:
    """A row minus the reference of the same seed, under the attacks of one judging.

    Args:
        how: of the row; the reference is judged by more, of which the same attacks count.
        attack: `worst`, or one of the judging's.
    """
    profile = study.profile
    own = found_by(study, name, seed, how)
    attacks = None if how is None else how.attacks
    reference = found_by(study, profile.reference, seed, attacks=attacks)
    images, n_boot = study.pairs("test").image_of, profile.evaluation.n_boot
    return primary_difference(own[attack], reference[attack], images, n_boot=n_boot)


def _gap(study: Study, name: str, seed: int) -> float:
    """As `contrasts.generalisation_gap`, for one seed."""
    key, sides = ("joint", study.profile.evaluation.primary_threat), []
    for gallery in ("train-1", "test-1"):
        how = study.gap_judging(gallery)
        model, base = (study.outcomes(n, s, how)[key] for n, s in ((name, seed), ("base", 0)))
        sides.append(primary_endpoint(model) - primary_endpoint(base))
    return sides[0] - sides[1]


def sweep_table(study: Study) -> pd.DataFrame:
    """Robustness by amount and strength of each technique that is swept.

    Returns:
        `SWEEP_COLUMNS`, one row per point and attack (`clean`, the attacks, `worst`): the
        primary endpoint. Rows of the comparison have all technique seeds (mean and t-interval),
        the sweep's own the first one (interval over images). `dial` is `amount` (variants per
        pair, the original among them), `strength` or `pairs` (training pairs). Level 1 of
        `amount` is the reference itself, and so is level 0 of `strength` for
        `COPIES_AT_ZERO`; for others the reference has no level (not a number). Over `pairs`,
        `gain` is `worst` minus that of the 1:1 row with as many pairs. Empty without sweeps.
    """
    rows: list[dict[str, Any]] = []
    for dial in ("amount", "strength", "pairs"):
        swept = _points(study, dial)
        plain = swept.get("none", {}) if dial == "pairs" else {}
        for family, points in swept.items():
            about = {"augmentation": family, "dial": dial, "unit": _unit(family, dial)}
            for level, name in sorted(points.items()):
                rows += [{**about, "level": level, **each} for each in _levels(study, name)]
                if family != "none" and level in plain:
                    gain = _gain_over(study, name, plain[level])
                    rows.append({**about, "level": level, **gain})
            if dial == "strength" and family not in COPIES_AT_ZERO:
                beside = _levels(study, study.profile.reference)
                rows += [{**about, "level": math.nan, **each} for each in beside]
    return pd.DataFrame(rows, columns=list(SWEEP_COLUMNS))


def _points(study: Study, dial: str) -> dict[str, dict[float, str]]:
    """Technique -> level -> row, of the techniques with a sweep over this dial."""
    profile = study.profile
    swept = {name for name, _ in sweep_rows_of(profile)}
    every = {run.row: run for run in (*profile.techniques, *profile.sweeps)}
    families = {_family(every[name], dial) for name in swept if _level(study, every[name], dial)}
    found: dict[str, dict[float, str]] = {}
    for family in sorted(filter(None, families)):
        own = [run for run in every.values() if _family(run, dial) == family]
        levels = [(_level(study, run, dial, usual=True), run.row) for run in own]
        found[family] = {level: row for level, row in levels if level is not None}
        if dial == "amount":
            found[family][1.0] = profile.reference
        if dial == "strength" and family in COPIES_AT_ZERO:
            found[family][0.0] = profile.reference
    return found


def _family(run: Run, dial: str) -> str | None:
    """What is swept, if the row is a point of such a sweep: no other option may be set."""
    option = {"amount": "n_variants", "strength": "strength", "pairs": "n_train"}[dial]
    if set(run.options) - {option} or run.label or run.dials is not None:
        return None
    return run.augmentation if run.modality or dial == "pairs" else None


def _level(study: Study, run: Run, dial: str, *, usual: bool = False) -> float | None:
    """Where a row stands on a dial; without its own setting only if the usual one is asked."""
    own: float | None
    if dial == "amount":
        own, common = run.n_variants, float(study.profile.n_variants)
    elif dial == "strength":
        own, common = run.strength, STRENGTHS.get(run.augmentation, ("", math.nan, 0))[1]
    else:
        own, common = run.n_train, float(study.profile.dataset.n_train)
    if own is not None:
        return float(own)
    return common if usual and not math.isnan(common) else None


def _unit(family: str, dial: str) -> str:
    if dial == "strength":
        return STRENGTHS[family][0]
    return "variants per pair" if dial == "amount" else "training pairs"


def _levels(study: Study, name: str) -> list[dict[str, Any]]:
    """Recall of a row under each attack, in shares of 1."""
    found = [found_by(study, name, seed) for seed in _seeds_with(study, name)]
    rows = []
    for attack in found[0]:
        e = _over_seeds(study, [(each[attack], None) for each in found])
        rows.append({"attack": attack, "value": e.value, "low": max(0.0, e.low),
                     "high": min(1.0, e.high), "row": name, "n_seeds": len(found)})  # fmt: skip
    return rows


def _gain_over(study: Study, name: str, other: str) -> dict[str, Any]:
    """By how much a row keeps more than another one, paired by the seeds that both have."""
    seeds = _seeds_with(study, name, other)
    both = [[found_by(study, row, seed)["worst"] for row in (name, other)] for seed in seeds]
    e = _over_seeds(study, [(own, rival) for own, rival in both])
    return {"attack": "gain", "value": e.value, "low": e.low, "high": e.high, "row": name,
            "n_seeds": len(seeds)}  # fmt: skip


def _seeds_with(study: Study, *names: str) -> tuple[int, ...]:
    """All technique seeds for rows of the comparison, if enough for an interval; else the first."""
    compared = {run.row for run in study.profile.techniques}
    seeds = study.profile.seeds_of_techniques
    return seeds if compared >= set(names) and len(seeds) >= MIN_SEEDS_FOR_INTERVAL else seeds[:1]


def _over_seeds(study: Study, pairs: Sequence[tuple[Outcomes, Outcomes | None]]) -> Estimate:
    """Primary endpoint, or difference from another row: over seeds; of one seed over images."""
    if len(pairs) == 1:
        images, n_boot = study.pairs("test").image_of, study.profile.evaluation.n_boot
        return primary_difference(*pairs[0], images, n_boot=n_boot)
    return t_interval([
        primary_endpoint(own) - (0.0 if other is None else primary_endpoint(other))
        for own, other in pairs
    ])  # fmt: skip


INTERVENTION_COLUMNS = (
    "alignment", "diversity", "shift", "modality", "seed", "gain", "sga_gain", "worst", "clean",
    "similarity", "vendi", "mmd2", "true_fraction",
)  # fmt: skip

ACHIEVED = {"alignment": "true_fraction", "diversity": "vendi", "shift": "mmd2"}
"""What each dial is to move, for the manipulation check: the truth, since scenes knows it."""

COORDINATES = {"alignment": "similarity", "diversity": "vendi", "shift": "mmd2"}
"""The same as a study of real data could measure it: what techniques are placed by."""


def intervention_table(study: Study) -> pd.DataFrame:
    """One row per design point and seed.

    Returns:
        `COLUMNS`: levels as set, the gain in worst-of recall (PGD, one word, SGA, joint) over
        MAT of the same seed, the same under SGA, recalls, and the achieved measures, which
        are those of the pairs and so the same for all seeds. Empty without an experiment.
    """
    experiment = study.profile.intervention
    rows, how = [], judgings.inside(study.profile.evaluation)
    for seed in experiment.seeds if experiment else ():
        for run in experiment.runs() if experiment else ():
            assert run.dials is not None
            found = found_by(study, run.row, seed, how)
            achieved = study.get(coordinates(study, run))
            rows.append(
                {
                    **run.dials.levels,
                    "modality": run.modality,
                    "seed": seed,
                    "gain": gain_of(study, run.row, seed, how).value,
                    "sga_gain": gain_of(study, run.row, seed, how, "sga").value,
                    "worst": primary_endpoint(found["worst"]),
                    "clean": primary_endpoint(found["clean"]),
                    **achieved,
                    "true_fraction": achieved.get("true_fraction", math.nan),
                }
            )
    return pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS))
