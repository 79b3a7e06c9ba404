"""The ledger of claims: each contrast, its interval and its verdict, from per-query outcomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matlib.evaluation.statistics import holm, verdict
from matlib.study.contrasts import (
    Contrast,
    differences,
    generalisation_gap,
    one_to_many,
    rivals_of,
    unimodal_margins,
)
from matlib.study.pairs_claims import pairs_contrasts
from matlib.study.ranking import transfer_of_ranking
from matlib.study.runs import Study
from matlib.study.sanity import battery, masked_gradients_entry

CLAIMS = {
    "C0": "MAT makes a model more robust than no defence",
    "C0-valid": "MAT on true words makes a model more robust than no defence",
    "C1": "an undefended model loses more under multimodal than under either unimodal attack",
    "C2": "MAT beats unimodal defences under multimodal attack",
    "C2-valid": "MAT on true words beats unimodal defences under multimodal attack",
    "C3": "MAT over-fits to 1:1 pairs",
    "C3-valid": "MAT on true words over-fits to 1:1 pairs",
    "C4": "one-to-many augmentation helps MAT",
    "C4b": "at an equal number of pairs, one-to-many augmentation beats further 1:1 pairs",
    "C4c": "captions that only restate the facts of the original help MAT",
    "C5": "text augmentation helps more than image augmentation",
    "C6": "cross-modal augmentation beats intra-modal at equal diversity",
    "C7a": "alignment of augmented pairs helps",
    "C7b": "diversity of augmented pairs helps",
    "C7c": "distribution shift of augmented pairs hurts",
    "C8a": "the ranking of techniques carries over to other models",
    "C8b": "the ranking of techniques carries over to other tasks",
    "C9": "the robustness is not masked gradients",
}


BESIDE = ("-valid", "C4b", "C4c")
"""Claims beside a claim, which not every study can test: they stand only where it does."""


def ledger(study: Study) -> list[dict[str, Any]]:
    """All claims: decided ones with their numbers, the rest as *not yet tested*.

    The primary endpoint is the mean of TR@1 and IR@1 under the worst-of suite with the
    primary text threat. A claim with several contrasts is reported by its weakest one. MAT is
    judged as in the paper (`mat`: any word that the masked language model proposes) and, in a
    world that knows the truth, on words that keep captions true (`-valid`).
    """
    contrasts = {
        "C0": differences(study, "mat", ["base"]),
        "C0-valid": differences(study, "mat-valid", ["base"]),
        "C1": unimodal_margins(study),
        "C2": rivals_of(study, "mat"),
        "C2-valid": rivals_of(study, "mat-valid"),
        "C3": generalisation_gap(study, "mat"),
        "C3-valid": generalisation_gap(study, "mat-valid"),
        "C4": one_to_many(study),
        "C5": differences(study, "mat+.captions", ["mat+.renderings"]),
        "C8a": transfer_of_ranking(study),
        **pairs_contrasts(study),
    }
    words = {claim: text for claim, text in CLAIMS.items()
             if contrasts.get(claim) or not claim.endswith(BESIDE)}  # fmt: skip
    weakest = {claim: _weakest(found) for claim, found in contrasts.items() if found}
    adjusted = dict(
        zip(weakest, holm([_holm_within(contrasts[claim]) for claim in weakest]), strict=True)
    )
    entries = {
        claim: _entry(study, claim, text, weakest.get(claim), adjusted.get(claim, math.nan))
        for claim, text in words.items()
    }
    examined = battery(study)
    if examined:
        n_seeds = len(study.profile.seeds)
        entries["C9"] = masked_gradients_entry(examined, n_seeds, _scope(study, "C9"))
    return list(entries.values())


def _weakest(found: Sequence[Contrast]) -> Contrast:
    return min(found, key=lambda contrast: contrast.estimate.low)


def _holm_within(found: Sequence[Contrast]) -> float:
    """p-value of "every contrast holds": the largest, each adjusted within its claim."""
    return max(holm([contrast.estimate.p_below for contrast in found]))


def _scope(study: Study, claim: str) -> str:
    """Data, gallery, budget and threat that a verdict is about."""
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
    return scope


def _entry(
    study: Study, claim: str, text: str, found: Contrast | None, p_adjusted: float
) -> dict[str, Any]:
    scope = _scope(study, claim)
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
