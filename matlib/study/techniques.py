"""The comparison of techniques, and sweeps of their amount and strength, as tables."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from matlib.config import STRENGTHS, Run
from matlib.evaluation.bootstrap import Estimate
from matlib.evaluation.retrieval import Outcomes, worst_of
from matlib.evaluation.statistics import primary_difference, primary_endpoint
from matlib.study import judgings
from matlib.study.coordinates import coordinates
from matlib.study.judgings import INSIDE_ATTACKS, PAIRS_ATTACKS, Judging
from matlib.study.recipes import n_variants_of, sweep_rows_of
from matlib.study.runs import Study

RUN_COLUMNS = (
    "row", "technique", "augmentation", "modality", "seed", "n_train", "n_variants", *PAIRS_ATTACKS,
    "worst", "gain", "gain_low", "gain_high", "sga_gain", "validation", "gap", "seconds",
    "similarity", "vendi", "mmd2", "true_fraction",
)  # fmt: skip

SWEEP_COLUMNS = ("augmentation", "dial", "unit", "level", "attack", "value", "low", "high", "row")

ATTACKED = tuple(attack for attack in PAIRS_ATTACKS if attack != "clean")


def found_by(study: Study, name: str, seed: int, how: Judging | None = None) -> dict[str, Outcomes]:
    """Outcomes of one row by attack under the primary threat, `worst` over those that attack.

    Args:
        how: `judgings.pairs` on the test gallery by default.
    """
    e = study.profile.evaluation
    how = how or judgings.pairs(e)
    found = study.outcomes(name, seed, how)
    by = {a: found[a, "" if a in ("clean", "pgd") else e.primary_threat] for a in how.attacks}
    return {**by, "worst": worst_of([by[a] for a in how.attacks if a != "clean"])}


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
        **coordinates(study, run),
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
    reference = found_by(study, profile.reference, seed)
    if how is not None:
        attacks = [a for a in how.attacks if a != "clean"]
        reference = {**reference, "worst": worst_of([reference[a] for a in attacks])}
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
    """Robustness of the first seed by amount and strength of each technique that is swept.

    Returns:
        `SWEEP_COLUMNS`, one row per point and attack (`clean`, the attacks, `worst`): the
        primary endpoint with an interval over images. `dial` is `amount` (variants per pair,
        the original among them), `strength` or `pairs` (training pairs); level 1 of `amount`,
        and level 0 of `strength`, is the reference itself. Empty without sweeps.
    """
    profile, rows = study.profile, []
    swept = {name for name, _ in sweep_rows_of(profile)}
    every = {run.row: run for run in (*profile.techniques, *profile.sweeps)}
    for dial in ("amount", "strength", "pairs"):
        families = {
            _family(every[name], dial) for name in swept if _level(study, every[name], dial)
        }
        for family in sorted(filter(None, families)):
            points = {
                _level(study, run, dial, usual=True): run.row
                for run in every.values()
                if _family(run, dial) == family
            }
            if dial != "pairs":
                points[{"amount": 1.0, "strength": 0.0}[dial]] = profile.reference
            for level, name in sorted((k, v) for k, v in points.items() if k is not None):
                about = {"augmentation": family, "dial": dial, "unit": _unit(family, dial)}
                rows += [{**about, "level": level, **each} for each in _levels(study, name)]
    return pd.DataFrame(rows, columns=list(SWEEP_COLUMNS))


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
    seed = study.profile.seeds_of_techniques[0]
    images, n_boot = study.pairs("test").image_of, study.profile.evaluation.n_boot
    rows = []
    for attack, outcomes in found_by(study, name, seed).items():
        e = primary_difference(outcomes, None, images, n_boot=n_boot)
        rows.append({"attack": attack, "value": e.value, "low": max(0.0, e.low),
                     "high": min(1.0, e.high), "row": name})  # fmt: skip
    return rows


def in_short(outcomes: dict[str, Outcomes]) -> Outcomes:
    """Worst of the attacks that every study of pairs has."""
    return worst_of([outcomes[a] for a in INSIDE_ATTACKS if a != "clean"])
