"""The contrasts behind the claims: differences of recall between models, attacks or galleries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from matlib.evaluation.bootstrap import Estimate
from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL, t_interval
from matlib.evaluation.retrieval import Outcomes, chance_recall
from matlib.evaluation.statistics import primary_difference, primary_endpoint
from matlib.evaluation.suite import Key
from matlib.study.judgings import unimodal
from matlib.study.recipes import undefended_rows
from matlib.study.runs import Study

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


def rivals_of(study: Study, name: Literal["mat", "mat-valid"]) -> list[Contrast]:
    """C2: MAT minus each defence of one modality that the study has.

    Text-only training is the rival that had the same words: `text-at` of `mat`, `text-at-valid`
    of `mat-valid`. Empty without image-only, text-only training and TeCoA.
    """
    text_only = "text-at" if name == "mat" else "text-at-valid"
    if not _has(study, [name, "image-at", text_only, "tecoa"]):
        return []
    here = {row for row, _ in study.rows()}
    return differences(study, name, [text_only, *(row for row in UNIMODAL if row in here)])


def one_to_many(study: Study) -> list[Contrast]:
    """C4: MAT+ minus the MAT that was trained on the same words."""
    best = "mat+.captions+renderings"  # the paper's MAT+: several captions, several images
    if not _has(study, [best]):
        return []
    words = study.specs.train_attack(study.specs.run(best)).threats
    for name in ("mat", "mat-valid"):
        if _has(study, [name]) and study.specs.train_attack(study.specs.run(name)).threats == words:
            return differences(study, best, [name])
    return []
