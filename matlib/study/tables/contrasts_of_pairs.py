"""The contrasts behind claims C3 to C7: which pairs make MAT more robust.

C3 and C4 have a row for each number of training pairs: few pairs are where MAT can over-fit, and
where more captions and images of the same scenes can matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from matlib.analysis.experiment import (
    manipulation_check,
    n_trainings,
    steps_of_dials,
)
from matlib.analysis.gains import best_on_validation
from matlib.evaluation.crossed import (
    EndpointName,
    between_galleries,
    contributions,
    crossed_parts,
)
from matlib.evaluation.robustness import WORST
from matlib.evaluation.statistics import MIN_SEEDS_FOR_INTERVAL, Estimate
from matlib.study.profile.rows import Run
from matlib.study.recipes import n_variants_of, train_attack_of
from matlib.study.study import Study
from matlib.study.tables.contrasts import (
    THREAT_PARTS,
    Contrast,
    ThreatPart,
    compared,
    contrast,
    has_rows,
    mat_of,
    turned,
)
from matlib.study.tables.endpoints import GALLERIES
from matlib.study.tables.recalls import Recalls, of_pairs, shown
from matlib.study.tables.techniques import ACHIEVED, intervention_table, technique_table

PAPER_TECHNIQUE = "captions+renderings"
"""The paper's MAT+: several captions and several images."""

PAIR_CURVE_COLUMNS = (
    "row", "defence", "n_train", "weights", "gap", "gap_low", "gap_high", "worst", "low", "high",
    "gain", "gain_low", "gain_high", "n_seeds",
)  # fmt: skip


def contrasts_of_pairs(study: Study) -> dict[str, list[Contrast]]:
    """Contrasts by claim; a claim that the study cannot test has none."""
    found = {"C3": over_fitting(study), "C4": one_to_many(study)}
    if study.profile.techniques:
        found |= {
            "C4b": _equal_pairs(study),
            "C4c": _same_facts(study),
            "C5": _text_or_image(study),
            "C6": _cross_or_intra(study),
        }
    return {claim: each for claim, each in {**found, **_dials(study)}.items() if each}


def over_fitting(study: Study) -> list[Contrast]:
    """C3: robust recall of MAT on training minus held-out pairs, the base's difference subtracted.

    Galleries of the same size with one caption per image; the joint attack decides. By the last
    weights where there are such rows, for those that are best on held-out pairs hide what is
    asked.
    """
    found = []
    for n, runs in by_size(study).items():
        plain = [run for run in runs if not run.modality and not is_regularised(run)]
        last = [run for run in plain if run.weights == "last"]
        for run in last or plain:
            label = f"({run.row} - base on training pairs) - (the same on held-out pairs)"
            found.append(contrast(label, gap_of(study, run.row), part=f"{n} pairs"))
    if study.profile.techniques:
        return found
    mat = mat_of(study, _primary_part(study))
    if mat is None:
        return []
    label = f"({mat} - base on training pairs) - (the same on held-out pairs)"
    return [contrast(label, gap_of(study, mat), part=f"{study.profile.dataset.n_train} pairs")]


def _primary_part(study: Study) -> ThreatPart:
    primary = study.profile.evaluation.primary_threat
    return next(part for part in THREAT_PARTS if primary in part.threats)


def gap_of(study: Study, row: str) -> Estimate:
    """A row's robust recall on training minus held-out pairs, the base's difference subtracted."""
    seeds = study.profile.seeds_of_techniques if study.profile.techniques else study.profile.seeds
    n = len(seeds) * len(study.worlds())
    worlds, few = study.worlds(), n < MIN_SEEDS_FOR_INTERVAL
    parts = []
    for here in worlds[:1] if few else worlds:
        sides = []
        for gallery in GALLERIES.values():
            evaluated = Recalls(here, here.gap_protocol(gallery), seeds[:1] if few else seeds)
            own, [base] = (
                [contributions(each, evaluated.images) for each in evaluated.found(name, "joint")]
                for name in (row, "base")
            )
            sides.append(np.stack(own) - base)  # (S, N)
        parts.append(between_galleries(*sides))
    return crossed_parts(parts, n, len(study.pairs("test-1")))


def by_size(study: Study) -> dict[int, list[Run]]:
    """Number of training pairs -> the rows of the comparison that learn from so many and have no
    other option of their pairs."""
    found: dict[int, list[Run]] = {}
    for run in study.profile.techniques:
        if not set(run.options) - {"n_train"}:
            found.setdefault(run.n_train or study.profile.dataset.n_train, []).append(run)
    return dict(sorted(found.items()))


def is_regularised(run: Run) -> bool:
    """Whether weights are averaged or decay."""
    return run.ema_decay is not None or run.weight_decay is not None


def one_to_many(study: Study) -> list[Contrast]:
    """C4: MAT+ minus MAT on as many original pairs, and minus MAT with averaging and decay."""
    if not study.profile.techniques:
        return _one_to_many_of_defences(study)
    evaluated, found = of_pairs(study, study.profile.seeds_of_techniques), []
    for n, runs in by_size(study).items():
        kept = [run for run in runs if run.weights is None]
        firsts = [run for run in kept if run.augmentation == PAPER_TECHNIQUE and not run.label]
        rivals = [run for run in kept if not run.modality]
        found += [
            compared(evaluated, first.row, other.row, part=f"{n} pairs")
            for first in firsts
            for other in rivals
        ]
    return found


def _one_to_many_of_defences(study: Study) -> list[Contrast]:
    """Of a study without techniques: against the MAT that was trained on the same words."""
    best, part = f"mat+.{PAPER_TECHNIQUE}", f"{study.profile.dataset.n_train} pairs"
    if not has_rows(study, best):
        return []
    words = words_of(study, best)
    for name in ("mat", "mat-valid"):
        if has_rows(study, name) and words_of(study, name) == words:
            return [compared(Recalls(study), best, name, part=part)]
    return []


def words_of(study: Study, name: str) -> tuple[str, ...]:
    """The text threats that a row is trained against."""
    return train_attack_of(study.profile, study.run(name)).threats


def curve_of_pairs(study: Study) -> pd.DataFrame:
    """C3 and C4 as curves: gap and gain of MAT, regularised MAT and MAT+ by training pairs.

    Returns:
        `PAIR_CURVE_COLUMNS`, one row per row of the comparison without other options of its pairs:
        `gap` as in C3, `worst` what the worst attack leaves, `gain` that minus MAT's on as many
        pairs with the same choice of weights (`best` on validation pairs, or `last`). Empty
        without a row that says how many pairs it learns from.
    """
    rows: list[dict[str, Any]] = []
    evaluated = of_pairs(study, study.profile.seeds_of_techniques)
    sizes = by_size(study)
    is_of_sizes = any(run.n_train for runs in sizes.values() for run in runs)
    for n, runs in sizes.items() if is_of_sizes else ():
        plain = {run.weights: run.row for run in runs
                 if not run.modality and not is_regularised(run)}  # fmt: skip
        for run in runs:
            left, reference = evaluated.recall(run.row, WORST), plain.get(run.weights)
            row = {
                "row": run.row, "defence": _kind(run), "n_train": n,
                "weights": run.weights or "best",
                **gap_of(study, run.row).columns("gap", "gap_"), **shown(left, "worst"),
            }  # fmt: skip
            if reference is not None and reference != run.row:
                gain = evaluated.recall(run.row, WORST, reference=reference)
                row |= gain.columns("gain", "gain_")
            rows.append(row)
    return pd.DataFrame(rows, columns=list(PAIR_CURVE_COLUMNS))


def _kind(run: Run) -> str:
    """A row without its number of pairs and its choice of weights."""
    label = "" if run.weights is not None else run.label
    plain = run.model_copy(update={"n_train": None, "weights": None, "label": label})
    return plain.row


def _rows(study: Study, is_wanted: Callable[[Run], bool]) -> list[str]:
    return [run.row for run in study.profile.techniques if is_wanted(run)]


def _between(
    study: Study, firsts: Sequence[str], others: Sequence[str], *, by_rank: bool = False
) -> list[Contrast]:
    evaluated = of_pairs(study, study.profile.seeds_of_techniques)
    endpoint: EndpointName = "MRR" if by_rank else "R@1"
    return [
        compared(evaluated, first, other, endpoint=endpoint) for first in firsts for other in others
    ]


def _equal_pairs(study: Study) -> list[Contrast]:
    """Few images with several captions and renderings against as many 1:1 pairs.

    Empty where the reference learns from fewer pairs than there are.
    """
    reference = study.run(study.profile.reference)
    if (reference.n_train or study.profile.dataset.n_train) < study.profile.dataset.n_train:
        return []

    def has_as_many(run: Run) -> bool:
        n = (run.n_train or 0) * n_variants_of(study.profile, run)
        return run.augmentation == PAPER_TECHNIQUE and n == study.profile.dataset.n_train

    return _between(study, _rows(study, has_as_many), [reference.row])


def _same_facts(study: Study) -> list[Contrast]:
    restated = _rows(
        study, lambda run: run.augmentation == "restated" and not run.options and not run.label
    )
    return _between(study, restated, [study.profile.reference])


def _text_or_image(study: Study) -> list[Contrast]:
    """The best text technique minus the best image technique, both chosen on validation."""
    runs = technique_table(study)
    text, image = (best_on_validation(runs, modality) for modality in ("text", "image"))
    return _between(study, [text], [image], by_rank=True) if text and image else []


def _cross_or_intra(study: Study) -> list[Contrast]:
    """Captioner, filtered and not, minus rewriter, all thinned to one Vendi score."""
    cross = _rows(study, lambda run: run.augmentation == "captioned" and run.vendi is not None)
    intra = _rows(study, lambda run: run.augmentation == "rewritten" and run.vendi is not None)
    return _between(study, cross, intra, by_rank=True)


DIAL_OF = {"C7a": "alignment", "C7b": "diversity", "C7c": "shift"}
_ADDED = {"text": "captions", "image": "images"}


def _dials(study: Study) -> dict[str, list[Contrast]]:
    """C7a-c: what each step of each dial adds to the gain, captions and images apart.

    Shift is claimed to harm: its steps are turned. A dial that failed its check voids its steps.
    """
    runs = intervention_table(study)
    if runs.empty:
        return {}
    steps = steps_of_dials(runs, n_boot=study.profile.evaluation.n_boot)
    failed, n_seeds = failed_checks(runs), n_trainings(runs)
    found: dict[str, list[Contrast]] = {claim: [] for claim in DIAL_OF}
    for claim, dial in DIAL_OF.items():
        for modality, added in _ADDED.items():
            void = failed.get((dial, modality), "")
            for low, high, step in steps.get((dial, modality), []):
                ends, effect = (high, low), step
                if dial == "shift":
                    ends, effect = (low, high), turned(step, study.profile.evaluation.n_boot)
                label = f"gain of MAT+ at {dial} {ends[0]:g} - at {ends[1]:g}, added {added}"
                unit = "seed" if effect.unit == "seed" else "point"  # not queries: settings
                found[claim].append(
                    Contrast(label, effect, n_seeds, unit, part=f"added {added}", void=void)
                )
    return found


def failed_checks(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(dial, modality) of dials that failed their manipulation check -> that, in words.

    Such a dial moved another measure too, or not its own: its steps tell of no one cause.

    Args:
        runs: as `intervention_table` gives them.
    """
    check = manipulation_check(runs, ACHIEVED)
    failed = check[check["failed"]]
    return {
        (str(dial), str(modality)): "the dial failed its check"
        for dial, modality in zip(failed["dial"], failed["modality"], strict=True)
    }
