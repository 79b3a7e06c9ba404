"""The ledger of claims: each contrast, its interval and its verdict, from per-query outcomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from matlib.evaluation.retrieval import Outcomes, chance_recall
from matlib.evaluation.statistics import (
    MIN_SEEDS_FOR_INTERVAL,
    Estimate,
    holm,
    primary_difference,
    primary_endpoint,
    t_interval,
    verdict,
)
from matlib.study.runs import Study
from matlib.study.specs import Judging

PENDING = {
    "C2": "MAT beats unimodal defences under multimodal attack",
    "C3": "MAT over-fits to 1:1 pairs",
    "C4": "one-to-many augmentation helps MAT",
    "C5": "text augmentation helps more than image augmentation",
    "C6": "cross-modal augmentation beats intra-modal at equal diversity",
    "C7a": "alignment of augmented pairs helps",
    "C7b": "diversity of augmented pairs helps",
    "C7c": "distribution shift of augmented pairs hurts",
    "C8a": "the ranking of techniques carries over to other models",
    "C8b": "the ranking of techniques carries over to other tasks",
    "C9": "the robustness is not masked gradients",
}


@dataclass(frozen=True)
class Contrast:
    """One difference of two models (or attacks) with what stands behind it.

    Attributes:
        name: in words, e.g. `mat - tecoa`.
        estimate: difference of the primary endpoint, in [-1, 1], with its interval.
        n_seeds: trained weights behind it.
        unit: what the interval resamples: `query` (images with their captions) or `seed`.
        at_floor: both sides include chance in their intervals.
    """

    name: str
    estimate: Estimate
    n_seeds: int
    unit: str
    at_floor: bool = False


def ledger(study: Study) -> list[dict[str, Any]]:
    """All claims: decided ones with their numbers, the rest as *not yet tested*.

    The primary endpoint is the mean of TR@1 and IR@1 under the worst-of suite with the
    primary text threat. A claim with several contrasts is reported by its weakest one.
    """
    contrasts = {
        "C0": _differences(study, "mat", ["base"]),
        "C1": _unimodal_margins(study),
        "C2": _differences(study, "mat", ["image-at", "text-at", "tecoa"]),
        "C3": _generalisation_gap(study, "mat"),
        "C4": _one_to_many(study),
        "C5": _differences(study, "mat+.captions", ["mat+.renderings"]),
    }
    words = {
        "C0": "MAT makes a model more robust than no defence",
        "C1": "an undefended model loses more under multimodal than under either unimodal attack",
        **PENDING,
    }
    weakest = {claim: _weakest(found) for claim, found in contrasts.items() if found}
    adjusted = dict(
        zip(weakest, holm([_holm_within(contrasts[claim]) for claim in weakest]), strict=True)
    )
    return [
        _entry(study, claim, text, weakest.get(claim), adjusted.get(claim, math.nan))
        for claim, text in words.items()
    ]


def contrasts_of(study: Study, first: str, others: Sequence[str]) -> list[Contrast]:
    """Differences of the primary endpoint between rows, for tables in notebooks."""
    return _differences(study, first, others)


def _weakest(found: Sequence[Contrast]) -> Contrast:
    return min(found, key=lambda contrast: contrast.estimate.low)


def _holm_within(found: Sequence[Contrast]) -> float:
    """p-value of "every contrast holds": the largest, each adjusted within its claim."""
    return max(holm([contrast.estimate.p_below for contrast in found]))


def _has(study: Study, names: Sequence[str]) -> bool:
    known = {name for name, _ in study.rows()}
    return all(name in known for name in names)


def _key(study: Study) -> tuple[str, str]:
    return ("worst", study.profile.evaluation.primary_threat)


def _differences(study: Study, first: str, others: Sequence[str]) -> list[Contrast]:
    if not _has(study, [first, *others]):
        return []
    own, key = study.pairs("test").image_of, _key(study)

    def outcomes(name: str, seed: int) -> Outcomes:
        return study.judged(name, 0 if name == "base" else seed).outcomes[key]

    return [_contrast(study, f"{first} - {other}", outcomes, first, other, own) for other in others]


def _contrast(
    study: Study,
    name: str,
    outcomes: Callable[[str, int], Outcomes],
    first: str,
    other: str,
    own: Tensor,
) -> Contrast:
    """Per-seed paired differences; an interval over queries below three seeds."""
    seeds = study.profile.seeds
    pairs = [(outcomes(first, seed), outcomes(other, seed)) for seed in seeds]
    floor = all(_at_floor(study, side, own) for pair in pairs for side in pair)
    if len(seeds) >= MIN_SEEDS_FOR_INTERVAL:
        found = t_interval([primary_endpoint(a) - primary_endpoint(b) for a, b in pairs])
        return Contrast(name, found, len(seeds), "seed", floor)
    n_boot = study.profile.evaluation.n_boot
    found = primary_difference(pairs[0][0], pairs[0][1], own, n_boot=n_boot)
    # below three seeds the interval is over queries and speaks of the first seed's weights
    return Contrast(name, found, 1, "query", floor)


def _at_floor(study: Study, outcomes: Outcomes, own: Tensor) -> bool:
    relevant = study.pairs("test").relevance()
    chance = (chance_recall(relevant, "TR", 1) + chance_recall(relevant, "IR", 1)) / 2
    return primary_difference(outcomes, None, own, n_boot=500).low <= chance


def _unimodal_margins(study: Study) -> list[Contrast]:
    """C1: points that the joint attack takes beyond each unimodal one, undefended model."""
    e = study.profile.evaluation
    how = Judging("test", (e.primary_threat,), e.unimodal_eps_255, ("pgd", "bert", "joint"))
    found = study.judged("base", 0, how).outcomes
    own, joint = study.pairs("test").image_of, found[("joint", e.primary_threat)]
    alone = {"image": found[("pgd", "")], "text": found[("bert", e.primary_threat)]}
    return [
        Contrast(
            f"undefended: {name} attack ({primary_endpoint(outcomes):.0%} left) - joint attack",
            primary_difference(outcomes, joint, own, n_boot=e.n_boot),
            1,
            "query",
        )
        for name, outcomes in alone.items()
    ]


def _generalisation_gap(study: Study, name: str) -> list[Contrast]:
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
            how = Judging(gallery, (threat,), e.eps_255, ("clean", "joint"))
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


def _one_to_many(study: Study) -> list[Contrast]:
    names = [name for name, _ in study.rows() if name.startswith("mat+.")]
    best = "mat+.captions+renderings"  # the paper's MAT+: several captions, several images
    if best not in names or not _has(study, ["mat"]):
        return []
    return _differences(study, best, ["mat"])


def _entry(
    study: Study, claim: str, text: str, found: Contrast | None, p_adjusted: float
) -> dict[str, Any]:
    e = study.profile.evaluation
    scope = (
        f"{study.profile.dataset.name} (profile {study.profile.name}), "
        f"gallery {study.profile.dataset.n_test}, eps {e.eps_255:g}/255, {e.n_words} word, "
        f"{e.primary_threat}"
    )
    if study.profile.limit:
        scope += f", partial: at most {study.profile.limit} test images"
    if claim == "C1":
        scope = scope.replace(f"eps {e.eps_255:g}", f"eps {e.unimodal_eps_255:g}")
    empty = {"estimate": None, "ci_low": None, "ci_high": None, "n": 0, "unit": "query"}
    if found is None:
        rest = {**empty, "n_seeds": 0, "verdict": "not yet tested"}
        return {"id": claim, "claim": text, "contrast": "", "scope": scope, **rest}
    estimate = found.estimate
    return {
        "id": claim,
        "claim": text,
        "contrast": found.name,
        "scope": scope,
        "estimate": round(estimate.value, 4),
        "ci_low": round(estimate.low, 4),
        "ci_high": round(estimate.high, 4),
        "n": estimate.n,
        "unit": found.unit,
        "n_seeds": found.n_seeds,
        "verdict": verdict(
            estimate.low,
            estimate.high,
            n_seeds=found.n_seeds,
            unit=found.unit,  # type: ignore[arg-type]
            p_adjusted=p_adjusted,
            at_floor=found.at_floor,
        ),
    }
