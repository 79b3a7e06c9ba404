"""The contrasts behind the claims: differences of recall between models, attacks or galleries.

Claims C4 to C7: which pairs make MAT more robust, from the studies of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from sys import float_info
from typing import Literal

import pandas as pd

from matlib.analysis.agreement import MIN_ROWS, agreement_of_rankings
from matlib.analysis.experiment import best_on_validation, fit_effects, manipulation_check
from matlib.evaluation.robustness import WORST
from matlib.evaluation.statistics import (
    Estimate,
    over_seeds,
    primary_difference,
)
from matlib.study.made.protocols import unimodal
from matlib.study.profile.rows import Run
from matlib.study.recipes import n_variants_of, train_attack_of, undefended_rows
from matlib.study.study import Study
from matlib.study.tables.endpoints import GALLERIES, architectures, chance, ranked_rows
from matlib.study.tables.recalls import Recalls, in_short, of_pairs
from matlib.study.tables.techniques import ACHIEVED, gaps, intervention_table, technique_table

LEFT_ALONE = (30, 60)
"""Percent of recall that each attack alone should leave an undefended model (C1)."""


@dataclass(frozen=True)
class Contrast:
    """One difference of two models (or attacks) with what stands behind it.

    Attributes:
        name: in words, e.g. `mat - tecoa`.
        estimate: difference of the primary endpoint, in [-1, 1], with its interval.
        n_seeds: trained weights behind it.
        unit: what the interval resamples: `query` (images with their captions), `seed`, or
            `point` (design points of the experiment).
        at_floor: both sides include chance in their intervals.
    """

    name: str
    estimate: Estimate
    n_seeds: int
    unit: str
    at_floor: bool = False


def contrast(name: str, estimate: Estimate, *, at_floor: bool = False) -> Contrast:
    """What an estimate that knows its seeds says, under a name."""
    return Contrast(name, estimate, estimate.n_seeds, estimate.unit, at_floor)


def _has(study: Study, names: Sequence[str]) -> bool:
    known = {name for name, _ in study.rows()}
    return all(name in known for name in names)


def differences(study: Study, first: str, others: Sequence[str]) -> list[Contrast]:
    """A row minus each other one under the worst attack; empty if the study lacks one of them."""
    return _differences(Recalls(study), [first], others) if _has(study, [first, *others]) else []


def _differences(
    evaluated: Recalls, firsts: Sequence[str], others: Sequence[str]
) -> list[Contrast]:
    return [
        contrast(
            f"{first} - {other}",
            evaluated.recall(first, WORST, reference=other),
            at_floor=is_at_floor(evaluated, (first, other)),
        )
        for first in firsts
        for other in others
    ]


def is_at_floor(evaluated: Recalls, rows: Sequence[str]) -> bool:
    """Whether each row's interval under the worst attack reaches down to chance, with each seed.

    An interval wholly below chance (an attack can do that) counts as reaching it.
    """
    least = chance(evaluated.study)
    found = (each for row in rows for each in evaluated.found(row, WORST))
    return all(primary_difference(each, None, evaluated.images, n_boot=500).low <= least
               for each in found)  # fmt: skip


def unimodal_margins(study: Study) -> list[Contrast]:
    """C1: points that the joint attack takes beyond each unimodal one, on undefended models.

    These are the base model alone or, in a study with enough seeds, its clean fine-tunings
    (`undefended_rows`): what holds for several models holds for more than these weights.
    """
    rows = undefended_rows(study.profile)
    name = rows[0][0]
    what = "undefended" if rows == [("base", 0)] else f"{name} fine-tuning"
    evaluated, found = Recalls(study, unimodal(study.profile.evaluation)), []
    both = evaluated.found(name, "joint")
    for side, attack in (("image", "pgd"), ("text", "bert")):
        left = left_in_words(evaluated.level(name, attack))
        margin = evaluated.estimate(evaluated.found(name, attack), both)
        found.append(contrast(f"{what}: {side} attack ({left}) - joint attack", margin))
    return found


def left_in_words(share: float) -> str:
    """How much one attack alone leaves (share of 1), and whether C1's range holds it.

    C1 is about budgets where each attack alone leaves `LEFT_ALONE`: where less is left, the
    joint attack has little more to take. The percentage that is shown decides.
    """
    shown, (low, high) = round(100 * share), LEFT_ALONE
    outside = "" if low <= shown <= high else f", outside {low}-{high} %"
    return f"{shown}% left{outside}"


def generalisation_gap(study: Study, name: str) -> list[Contrast]:
    """C3: robust recall on training minus held-out pairs, the base's difference subtracted.

    Galleries of the same size with one caption per image; the joint attack decides. Training
    and held-out pairs are different images, so their bootstraps are independent.
    """
    if not _has(study, [name]):
        return []

    def of_first() -> Estimate:
        sides, n_boot = [], study.profile.evaluation.n_boot
        for seed, gallery in enumerate(GALLERIES.values()):
            evaluated = Recalls(study, study.gap_protocol(gallery))
            model, base = (evaluated.found(row, "joint")[0] for row in (name, "base"))
            sides.append(
                primary_difference(model, base, evaluated.images, n_boot=n_boot, seed=seed)
            )
        return _independent_difference(*sides)

    label = f"({name} - base on training pairs) - (the same on held-out pairs)"
    return [contrast(label, over_seeds(gaps(study, name, study.profile.seeds), of_first))]


def _independent_difference(a: Estimate, b: Estimate) -> Estimate:
    """Difference of independent estimates; half-widths add in quadrature (MOVER)."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    error = (high - low) / (2 * 1.96)
    p = 0.5 * math.erfc(value / error / math.sqrt(2)) if error > 0 else float(value <= 0)
    return Estimate(value, low, high, min(a.n, b.n), p)


UNIMODAL = (
    "image-at", "image-at-tower", "tecoa", "fare", "pmg-aft", "advflyp", "mava",
    "image-at+random", "clean+random", "leaf", "fare+leaf",
)  # fmt: skip
"""Rivals of MAT that know no true word; text-only training is paired with its own kind."""

UNIMODAL_VALID = ("image-at+random-valid", "fare+leaf-valid")
"""Rivals that were trained on true words, as `mat-valid` was."""


def rivals_of(study: Study, name: Literal["mat", "mat-valid"]) -> list[Contrast]:
    """C2: MAT minus each defence of one modality that the study has.

    Text-only training is the rival that had the same words: `text-at` of `mat`, `text-at-valid`
    of `mat-valid`. Empty without image-only, text-only training and TeCoA.
    """
    text_only = "text-at" if name == "mat" else "text-at-valid"
    others = UNIMODAL if name == "mat" else (*UNIMODAL, *UNIMODAL_VALID)
    if not _has(study, [name, "image-at", text_only, "tecoa"]):
        return []
    here = {row for row, _ in study.rows()}
    return differences(study, name, [text_only, *(row for row in others if row in here)])


def one_to_many(study: Study) -> list[Contrast]:
    """C4: MAT+ minus the MAT that was trained on the same words."""
    best = "mat+.captions+renderings"  # the paper's MAT+: several captions, several images
    if not _has(study, [best]):
        return []
    words = words_of(study, best)
    for name in ("mat", "mat-valid"):
        if _has(study, [name]) and words_of(study, name) == words:
            return differences(study, best, [name])
    return []


def words_of(study: Study, name: str) -> tuple[str, ...]:
    """The text threats that a row is trained against."""
    return train_attack_of(study.profile, study.run(name)).threats


def transfer_of_ranking(study: Study) -> list[Contrast]:
    """C8a: mean rank correlation of the techniques' robustness between architectures.

    Empty without other architectures, and with fewer than three techniques on them.
    """
    names, rows = architectures(study), ranked_rows(study)
    if len(names) < 2 or len(rows) < MIN_ROWS:
        return []
    models = [in_short(study, name) for name in names]
    found = [[evaluated.found(row, WORST) for row in rows] for evaluated in models]
    n_boot = study.profile.evaluation.n_boot
    estimate = agreement_of_rankings(found, models[0].images, n_boot=n_boot)
    label = (
        f"rank correlation (100: the same order) of the robustness of {len(rows)} techniques "
        f"between {len(names)} architectures"
    )
    # a model on which every technique is at chance has no order that could carry over
    return [contrast(label, estimate, at_floor=any(is_at_floor(each, rows) for each in models))]


PAPER_TECHNIQUE = "captions+renderings"
"""The paper's MAT+: several captions and several images."""


def pairs_contrasts(study: Study) -> dict[str, list[Contrast]]:
    """Contrasts by claim; empty for a profile that compares no techniques."""
    if not study.profile.techniques:
        return {}
    found = {
        "C4": _one_to_many(study),
        "C4b": _equal_pairs(study),
        "C4c": _same_facts(study),
        "C5": _text_or_image(study),
        "C6": _cross_or_intra(study),
        **_dials(study),
    }
    return {claim: contrasts for claim, contrasts in found.items() if contrasts}


def _rows(study: Study, is_wanted: Callable[[Run], bool]) -> list[str]:
    return [run.row for run in study.profile.techniques if is_wanted(run)]


def _between(study: Study, firsts: Sequence[str], others: Sequence[str]) -> list[Contrast]:
    return _differences(of_pairs(study, study.profile.seeds_of_techniques), firsts, others)


def _is_plain(run: Run, augmentation: str) -> bool:
    return run.augmentation == augmentation and not run.options and not run.label


def _one_to_many(study: Study) -> list[Contrast]:
    """The paper's MAT+ against MAT, and against MAT with weight averaging and decay."""
    plain = _rows(study, lambda run: _is_plain(run, PAPER_TECHNIQUE))
    rivals = [study.profile.reference, *_rows(study, lambda run: not run.modality and (
        run.ema_decay is not None or run.weight_decay is not None))]  # fmt: skip
    return _between(study, plain, rivals)


def _equal_pairs(study: Study) -> list[Contrast]:
    """Few images with several captions and renderings against as many 1:1 pairs."""

    def has_as_many(run: Run) -> bool:
        n = (run.n_train or 0) * n_variants_of(study.profile, run)
        return run.augmentation == PAPER_TECHNIQUE and n == study.profile.dataset.n_train

    return _between(study, _rows(study, has_as_many), [study.profile.reference])


def _same_facts(study: Study) -> list[Contrast]:
    restated = _rows(study, lambda run: _is_plain(run, "restated"))
    return _between(study, restated, [study.profile.reference])


def _text_or_image(study: Study) -> list[Contrast]:
    """The best text technique minus the best image technique, both chosen on validation."""
    runs = technique_table(study)
    text, image = (best_on_validation(runs, modality) for modality in ("text", "image"))
    return _between(study, [text], [image]) if text and image else []


def _cross_or_intra(study: Study) -> list[Contrast]:
    """Captioner, filtered and not, minus rewriter, all thinned to one Vendi score."""
    cross = _rows(study, lambda run: run.augmentation == "captioned" and run.vendi is not None)
    intra = _rows(study, lambda run: run.augmentation == "rewritten" and run.vendi is not None)
    return _between(study, cross, intra)


def _dials(study: Study) -> dict[str, list[Contrast]]:
    """C7a-c: effects of the set levels on the gain, from lowest to highest level."""
    runs = intervention_table(study)
    if runs.empty:
        return {}
    effects = fit_effects(runs, n_boot=study.profile.evaluation.n_boot)
    failed, n_seeds = failed_checks(runs), effects.n_seeds
    behind = f"{effects.n_points} design points, {n_seeds} seed{'' if n_seeds == 1 else 's'}"
    found = {}
    for claim, dial in (("C7a", "alignment"), ("C7b", "diversity"), ("C7c", "shift")):
        effect, words = effects.estimates.get(dial), "high - low"
        if effect is None:
            continue
        if dial == "shift":
            effect, words = _turned(effect, effects.p_values[dial]), "none - large"
        label = f"gain of MAT+ at {dial} {words}, over {behind}{failed.get(dial, '')}"
        unit = "seed" if effect.unit == "seed" else "point"  # not queries: design points
        found[claim] = [Contrast(label, effect, n_seeds, unit)]
    return found


CAVEAT = "; dial failed its check for added "
_ADDED = {"text": "captions", "image": "images"}


def failed_checks(runs: pd.DataFrame) -> dict[str, str]:
    """What to say of dials that failed their manipulation check: dial -> e.g. "; dial failed its
    check for added images"; such a dial moved another measure too, or not its own.

    Args:
        runs: as `intervention_table` gives them.
    """
    check = manipulation_check(runs, ACHIEVED)
    failed = check[check["failed"]].groupby("dial")["modality"]
    return {
        str(dial): CAVEAT + " and ".join(_ADDED[m] for m in sorted(set(modalities), reverse=True))
        for dial, modalities in failed
    }


def caveat_of(contrast: Contrast) -> str:
    """What `failed_checks` has added to a contrast, for the scope of its verdict; "" if nothing."""
    _, caveat, added = contrast.name.partition(CAVEAT)
    return caveat + added


def _turned(estimate: Estimate, p_two_sided: float) -> Estimate:
    """The estimate of the opposite difference.

    Its p-value is taken from the fit's own two-sided one: `1 - p_below` would be 0 where no
    resample lies on the other side, and so many resamples cannot show that.
    """
    smaller = max(p_two_sided / 2, float_info.epsilon)
    return replace(
        estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low,
        p_below=smaller if estimate.p_below > 0.5 else 1 - smaller,
    )  # fmt: skip
