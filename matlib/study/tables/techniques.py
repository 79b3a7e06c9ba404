"""The comparison of techniques, and sweeps of their amount and strength, as tables.

The controlled experiment: every run with its set and achieved levels and its gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from matlib.augmentations.table import TECHNIQUES
from matlib.evaluation.robustness import WORST
from matlib.evaluation.statistics import primary_endpoint
from matlib.study.made import protocols
from matlib.study.made.measures import coordinates
from matlib.study.made.protocols import INSIDE_ATTACKS, PAIRS_ATTACKS
from matlib.study.profile.rows import Run
from matlib.study.recipes import n_variants_of, sweep_rows_of
from matlib.study.study import Study
from matlib.study.tables.recalls import Recalls, of_pairs, shown

RUN_COLUMNS = (
    "row", "technique", "augmentation", "modality", "world", "seed", "n_train", "n_variants",
    *PAIRS_ATTACKS, "worst", "gain", "gain_low", "gain_high", "sga_gain", "validation", "gap",
    "seconds", "similarity", "vendi", "mmd2", "true_fraction",
)  # fmt: skip

SWEEP_COLUMNS = (
    "augmentation", "dial", "unit", "level", "attack", "value", "low", "high", "row", "n_seeds",
)  # fmt: skip

COPIES_AT_ZERO = tuple(
    name for name, each in TECHNIQUES.items() if each.strength and each.strength.copies_at_zero
)
"""Techniques that at strength 0 add copies of the original, which is MAT itself. Others still add
something: a likeliest caption, a new rendering, a mirror image, RandAugment's operations that
have no strength."""


def technique_table(study: Study) -> pd.DataFrame:
    """Every row of the comparison, world and seed: what it trained on, and how robust it is.

    Returns:
        `RUN_COLUMNS`. Recalls are primary endpoints on the test gallery; `gain` is the
        difference in `worst` from the reference of the same seed, with an interval over
        images; `validation` is the joint attack on validation pairs; `gap` robust recall on
        training minus held-out pairs, the base's subtracted; `seconds` of training, where the
        weights are here; then the coordinates of its pairs. Empty without techniques.
    """
    rows = [
        _technique_row(here, run, seed)
        for here in study.worlds()
        for seed in study.profile.seeds_of_techniques
        for run in study.profile.techniques
    ]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def _technique_row(study: Study, run: Run, seed: int) -> dict[str, Any]:
    evaluated, reference = of_pairs(study, (seed,)), study.profile.reference
    validated = Recalls(study, protocols.validating(study.profile.evaluation), (seed,))
    history = study.history(run.row, seed)
    return {
        **about_row(study, run),
        "world": study.profile.dataset.world_seed,
        "seed": seed,
        **{attack: evaluated.level(run.row, attack) for attack in (*PAIRS_ATTACKS, WORST)},
        **evaluated.recall(run.row, WORST, reference=reference).columns("gain", "gain_"),
        "sga_gain": evaluated.recall(run.row, "sga", reference=reference).value,
        "validation": validated.level(run.row, "joint"),
        "gap": gaps(study, run.row, (seed,))[0],
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


def gaps(study: Study, name: str, seeds: Sequence[int]) -> list[float]:
    """With each seed, robust recall on training minus held-out pairs, the base's subtracted.

    The galleries are of the same size with one caption per image; the joint attack decides.
    """
    kept = []
    for gallery in ("train-1", "test-1"):
        evaluated = Recalls(study, study.gap_protocol(gallery), seeds)
        base = evaluated.level("base", "joint")
        kept.append([primary_endpoint(each) - base for each in evaluated.found(name, "joint")])
    return [train - test for train, test in zip(*kept, strict=True)]


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
    for dial in OPTION_OF_DIAL:
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


OPTION_OF_DIAL = {"amount": "n_variants", "strength": "strength", "pairs": "n_train"}
"""Dial of a sweep -> the option of a row that it turns."""


def _family(run: Run, dial: str) -> str | None:
    """What is swept, if the row is a point of such a sweep: no other option may be set."""
    if set(run.options) - {OPTION_OF_DIAL[dial]} or run.label or run.dials is not None:
        return None
    return run.augmentation if run.modality or dial == "pairs" else None


def _level(study: Study, run: Run, dial: str, *, usual: bool = False) -> float | None:
    """Where a row stands on a dial; without its own setting only if the usual one is asked."""
    own, known = getattr(run, OPTION_OF_DIAL[dial]), TECHNIQUES[run.augmentation].strength
    if own is None and usual:
        own = {
            "amount": study.profile.n_variants,
            "strength": known.usual if known else None,
            "pairs": study.profile.dataset.n_train,
        }[dial]
    return None if own is None else float(own)


def _unit(family: str, dial: str) -> str:
    if dial == "strength" and (known := TECHNIQUES[family].strength):
        return known.unit
    return "variants per pair" if dial == "amount" else "training pairs"


def _levels(study: Study, name: str) -> list[dict[str, Any]]:
    """Recall of a row under each attack, in shares of 1."""
    evaluated = _of_seeds_with(study, name)
    return [
        {"attack": attack, "row": name, **shown(evaluated.recall(name, attack))}
        for attack in (*PAIRS_ATTACKS, WORST)
    ]


def _gain_over(study: Study, name: str, other: str) -> dict[str, Any]:
    """By how much a row keeps more than another one, with the seeds that both have."""
    e = _of_seeds_with(study, name, other).recall(name, WORST, reference=other)
    return {"attack": "gain", "row": name, **e.columns(), "n_seeds": e.n_seeds}


def _of_seeds_with(study: Study, *names: str) -> Recalls:
    """With all technique seeds for rows of the comparison; else with the first."""
    compared = {run.row for run in study.profile.techniques}
    seeds = study.profile.seeds_of_techniques
    return of_pairs(study, seeds if compared >= set(names) else seeds[:1])


INTERVENTION_COLUMNS = (
    "alignment", "diversity", "shift", "modality", "world", "seed", "gain", "sga_gain", "worst",
    "clean", "similarity", "vendi", "mmd2", "true_fraction",
)  # fmt: skip

ACHIEVED = {"alignment": "true_fraction", "diversity": "vendi", "shift": "mmd2"}
"""What each dial is to move, for the manipulation check: the truth, since scenes knows it."""

COORDINATES = {"alignment": "similarity", "diversity": "vendi", "shift": "mmd2"}
"""The same as a study of real data could measure it: what techniques are placed by."""


def intervention_table(study: Study) -> pd.DataFrame:
    """One row per design point, world and seed.

    Returns:
        `INTERVENTION_COLUMNS`: levels as set, the gain in worst-of recall (`INSIDE_ATTACKS`)
        over MAT of the same seed, the same under SGA, recalls, and the achieved measures, which
        are those of the pairs and so the same for all seeds. Empty without an experiment.
    """
    experiment = study.profile.intervention
    rows = [
        _dialled_row(here, run, seed)
        for here in study.worlds()
        for seed in experiment.seeds
        for run in experiment.trained()
    ] if experiment else []  # fmt: skip
    return pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS))


def _dialled_row(study: Study, run: Run, seed: int) -> dict[str, Any]:
    assert run.dials is not None
    reference, e = study.profile.reference, study.profile.evaluation
    evaluated = Recalls(study, protocols.inside(e), (seed,), INSIDE_ATTACKS,
                        {reference: protocols.pairs(e)})  # fmt: skip
    return {
        **run.dials.levels,
        "modality": run.modality,
        "world": study.profile.dataset.world_seed,
        "seed": seed,
        "gain": evaluated.recall(run.row, WORST, reference=reference).value,
        "sga_gain": evaluated.recall(run.row, "sga", reference=reference).value,
        "worst": evaluated.level(run.row, WORST),
        "clean": evaluated.level(run.row, "clean"),
        **study.get(coordinates(study, run)),
    }
