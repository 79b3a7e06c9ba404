"""The contrasts behind the claims: differences of recall between models, attacks or galleries.

Claims C4 to C7: which pairs make MAT more robust, from the studies of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from sys import float_info
from typing import Literal

import pandas as pd
from torch import Tensor

from matlib.analysis.experiment import best_on_validation, fit_effects, manipulation_check
from matlib.evaluation.retrieval import Outcomes, chance_recall
from matlib.evaluation.statistics import (
    MIN_SEEDS_FOR_INTERVAL,
    Estimate,
    primary_difference,
    primary_endpoint,
    t_interval,
)
from matlib.evaluation.suite import Key
from matlib.study.made.judgings import unimodal
from matlib.study.profile.rows import Run
from matlib.study.recipes import n_variants_of, train_attack_of, undefended_rows
from matlib.study.study import Study
from matlib.study.tables.techniques import ACHIEVED, found_by, intervention_table, technique_table

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


def _has(study: Study, names: Sequence[str]) -> bool:
    known = {name for name, _ in study.rows()}
    return all(name in known for name in names)


def _key(study: Study) -> tuple[str, str]:
    return ("worst", study.profile.evaluation.primary_threat)


def differences(study: Study, first: str, others: Sequence[str]) -> list[Contrast]:
    if not _has(study, [first, *others]):
        return []
    own, key = study.pairs("test").image_of, _key(study)

    def outcomes(name: str, seed: int) -> Outcomes:
        return study.judged(name, 0 if name == "base" else seed).outcomes[key]

    seeds = study.profile.seeds
    return [
        contrast(study, f"{first} - {other}", outcomes, first, other, own, seeds)
        for other in others
    ]


def contrast(
    study: Study,
    name: str,
    outcomes: Callable[[str, int], Outcomes],
    first: str,
    other: str,
    own: Tensor,
    seeds: Sequence[int],
) -> Contrast:
    """Per-seed paired differences; an interval over queries below three seeds.

    Args:
        outcomes: (row name, seed) -> its outcomes.
        own: int64 (M,), the image of each caption of the gallery.
    """
    pairs = [(outcomes(first, seed), outcomes(other, seed)) for seed in seeds]
    floor = all(is_near_chance(study, side, own) for pair in pairs for side in pair)
    if len(seeds) >= MIN_SEEDS_FOR_INTERVAL:
        found = t_interval([primary_endpoint(a) - primary_endpoint(b) for a, b in pairs])
        return Contrast(name, found, len(seeds), "seed", floor)
    n_boot = study.profile.evaluation.n_boot
    found = primary_difference(pairs[0][0], pairs[0][1], own, n_boot=n_boot)
    # below three seeds the interval is over queries and speaks of the first seed's weights
    return Contrast(name, found, 1, "query", floor)


def is_near_chance(study: Study, outcomes: Outcomes, own: Tensor) -> bool:
    """Whether the interval of the primary endpoint on the test gallery reaches down to chance."""
    relevant = study.pairs("test").relevance()
    chance = (chance_recall(relevant, "TR", 1) + chance_recall(relevant, "IR", 1)) / 2
    return primary_difference(outcomes, None, own, n_boot=500).low <= chance


def unimodal_margins(study: Study) -> list[Contrast]:
    """C1: points that the joint attack takes beyond each unimodal one, on undefended models.

    These are the base model alone or, in a study with enough seeds, its clean fine-tunings
    (`undefended_rows`): what holds for several models holds for more than these weights.
    """
    e, rows = study.profile.evaluation, undefended_rows(study.profile)
    found = [study.judged(*row, unimodal(e)).outcomes for row in rows]
    what = "undefended" if rows == [("base", 0)] else f"{rows[0][0]} fine-tuning"
    keys = {"image": ("pgd", ""), "text": ("bert", e.primary_threat)}
    return [_margin(study, f"{what}: {name}", key, found) for name, key in keys.items()]


def _margin(study: Study, what: str, key: Key, found: Sequence[Mapping[Key, Outcomes]]) -> Contrast:
    """Points between one attack and the joint one, per model."""
    e = study.profile.evaluation
    pairs = [(each[key], each["joint", e.primary_threat]) for each in found]
    left = sum(primary_endpoint(alone) for alone, _ in pairs) / len(pairs)
    label = f"{what} attack ({left_in_words(left)}) - joint attack"
    if len(pairs) >= MIN_SEEDS_FOR_INTERVAL:
        margins = [primary_endpoint(alone) - primary_endpoint(joint) for alone, joint in pairs]
        return Contrast(label, t_interval(margins), len(pairs), "seed")
    own = study.pairs("test").image_of
    return Contrast(label, primary_difference(*pairs[0], own, n_boot=e.n_boot), 1, "query")


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
    threat, e = study.profile.evaluation.primary_threat, study.profile.evaluation
    per_seed, single = [], None
    for seed in study.profile.seeds:
        sides: list[Estimate] = []
        for gallery in ("train-1", "test-1"):
            how = study.gap_judging(gallery)
            own = study.pairs(gallery).image_of
            model = study.judged(name, seed, how).outcomes[("joint", threat)]
            base = study.judged("base", 0, how).outcomes[("joint", threat)]
            sides.append(primary_difference(model, base, own, n_boot=e.n_boot, seed=len(sides)))
        per_seed.append(sides[0].value - sides[1].value)
        single = single or _independent_difference(sides[0], sides[1])
    assert single is not None
    label = f"({name} - base on training pairs) - (the same on held-out pairs)"
    if len(per_seed) >= MIN_SEEDS_FOR_INTERVAL:
        return [Contrast(label, t_interval(per_seed), len(per_seed), "seed")]
    return [Contrast(label, single, len(per_seed), "query")]


def _independent_difference(a: Estimate, b: Estimate) -> Estimate:
    """Difference of independent estimates; half-widths add in quadrature (MOVER)."""
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    error = (high - low) / (2 * 1.96)
    p = 0.5 * math.erfc(value / error / math.sqrt(2)) if error > 0 else float(value <= 0)
    return Estimate(value, low, high, min(a.n, b.n), p)


UNIMODAL = (
    "image-at", "image-at-tower", "tecoa", "fare", "pmg-aft", "image-at+random", "clean+random",
    "leaf", "fare+leaf",
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
    seeds = study.profile.seeds_of_techniques
    return [
        contrast(
            study, f"{first} - {other}", lambda name, seed: found_by(study, name, seed)["worst"],
            first, other, study.pairs("test").image_of, seeds,
        )
        for first in firsts
        for other in others
    ]  # fmt: skip


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
