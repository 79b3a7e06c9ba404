"""The ledger of claims: each contrast, its interval and its verdict, from per-query outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from matlib.evaluation.statistics import Estimate, holm, verdict
from matlib.study.made.sanity import battery_by_row, masked_gradients_entry
from matlib.study.study import Study
from matlib.study.tables.contrasts import (
    Contrast,
    caveat_of,
    differences,
    generalisation_gap,
    one_to_many,
    pairs_contrasts,
    rivals_of,
    transfer_of_ranking,
    unimodal_margins,
)
from matlib.study.tables.findings import shown_in

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

ONE_SIDED = ("C8a",)
"""Claims whose p-value is of a test of one side only (permutations): the other is not known, so
they can stay open but never be refuted."""

CLAIM_ALPHA = 0.025
"""One-sided, as `verdict` has it: it fits the two-sided 95 % interval."""

CONTRAST_COLUMNS = (
    "claim", "contrast", "estimate", "ci_low", "ci_high", "p_adjusted_within", "n", "unit",
    "n_seeds",
)  # fmt: skip

Contrasts = Mapping[str, Sequence[Contrast]]
"""Claim -> the contrasts behind it; none where a study cannot test it."""


def contrasts_of(study: Study) -> dict[str, list[Contrast]]:
    """Every contrast behind every claim but C9, whose checks are the battery's."""
    fixed = [  # a study of techniques chooses both members on validation instead
        replace(each, name=f"{each.name} (members fixed beforehand)")
        for each in differences(study, "mat+.captions", ["mat+.renderings"])
    ]
    return {
        "C0": differences(study, "mat", ["base"]),
        "C0-valid": differences(study, "mat-valid", ["base"]),
        "C1": unimodal_margins(study),
        "C2": rivals_of(study, "mat"),
        "C2-valid": rivals_of(study, "mat-valid"),
        "C3": generalisation_gap(study, "mat"),
        "C3-valid": generalisation_gap(study, "mat-valid"),
        "C4": one_to_many(study),
        "C5": fixed,
        "C8a": transfer_of_ranking(study),
        **pairs_contrasts(study),
    }


def contrast_table(contrasts: Contrasts) -> pd.DataFrame:
    """All contrasts, not only the weakest of each claim.

    Returns:
        `CONTRAST_COLUMNS`, in the order of the claims: differences in shares of 1 with their
        intervals, and the one-sided p-value of "at most 0", Holm's within the claim.
    """
    rows = []
    for claim in CLAIMS:
        found = contrasts.get(claim, ())
        adjusted = holm([each.estimate.p_below for each in found])
        for each, p in zip(found, adjusted, strict=True):
            e = each.estimate
            rows.append((claim, each.name, e.value, e.low, e.high, p, e.n, each.unit, each.n_seeds))
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS))


def ledger(study: Study, contrasts: Contrasts | None = None) -> list[dict[str, Any]]:
    """All claims: decided ones with their numbers, the rest as *not yet tested*.

    The primary endpoint is the mean of TR@1 and IR@1 under the worst-of suite with the
    primary text threat. A claim with several contrasts is reported by its weakest one. MAT is
    judged as in the paper (`mat`: any word that the masked language model proposes) and, in a
    world that knows the truth, on words that keep captions true (`-valid`).

    Args:
        contrasts: from `contrasts_of`, where they are there already.
    """
    contrasts = contrasts_of(study) if contrasts is None else contrasts
    words = {claim: text for claim, text in CLAIMS.items()
             if contrasts.get(claim) or not claim.endswith(BESIDE)}  # fmt: skip
    decided = decided_contrasts(contrasts, study.profile.evaluation.n_boot)
    entries = {
        claim: _entry(study, claim, text, decided.get(claim)) for claim, text in words.items()
    }
    examined = battery_by_row(study)
    if examined:
        found = masked_gradients_entry(examined, _scope(study, "C9"))
        entries["C9"] = {**found, **_figure("C9")}
    return list(entries.values())


@dataclass(frozen=True)
class DecidedContrast:
    """The contrast that a claim is reported by.

    Attributes:
        contrast: the weakest, whose interval begins lowest.
        p_below: one-sided p-value of "some contrast of the claim is at most 0", after Holm
            within the claim and over all claims.
        p_above: of "this contrast is at least 0", corrected in the same way: a claim with many
            contrasts has a weakest one by chance.
    """

    contrast: Contrast
    p_below: float
    p_above: float


def decided_contrasts(contrasts: Contrasts, n_boot: int) -> dict[str, DecidedContrast]:
    """The weakest contrast of every claim that has one, with corrected p-values.

    Args:
        n_boot: samples of the bootstraps behind intervals that are not over seeds.
    """
    found = {claim: each for claim, each in contrasts.items() if each}
    weakest = {claim: _weakest(each) for claim, each in found.items()}
    below = holm([max(holm([c.estimate.p_below for c in each])) for each in found.values()])
    above = holm([
        holm([1.0 if claim in ONE_SIDED else _p_above(c.estimate, n_boot) for c in each])[
            weakest[claim]
        ]
        for claim, each in found.items()
    ])  # fmt: skip
    return {
        claim: DecidedContrast(found[claim][weakest[claim]], p, other)
        for claim, p, other in zip(found, below, above, strict=True)
    }


def _weakest(found: Sequence[Contrast]) -> int:
    """Which contrast has the lowest lower limit."""
    return min(range(len(found)), key=lambda i: found[i].estimate.low)


def _p_above(estimate: Estimate, n_boot: int) -> float:
    """One-sided p-value of "the true value is at least 0", from that of "at most 0"."""
    if estimate.low == estimate.high:  # the same in every seed: no spread to measure it by
        return float(estimate.value >= 0)
    # of a bootstrap it is never 0, since n_boot samples cannot show more than 1 / (n_boot + 1)
    least = 0.0 if estimate.unit == "seed" else 1 / (n_boot + 1)
    return min(1.0, 1 - estimate.p_below + least)


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


def _figure(claim: str) -> dict[str, str]:
    """Where a claim is shown: its notebook, and its picture among the published ones."""
    notebook, picture = shown_in(claim)
    return {"figure": f"notebooks/{notebook}.ipynb" if notebook else "", "picture": picture}


def _entry(study: Study, claim: str, text: str, found: DecidedContrast | None) -> dict[str, Any]:
    scope = _scope(study, claim)
    empty = {"estimate": None, "ci_low": None, "ci_high": None, "n": 0, "unit": "query"}
    if found is None:
        rest = {**empty, "n_seeds": 0, "verdict": "not yet tested", **_figure(claim)}
        return {"id": claim, "claim": text, "contrast": "", "scope": scope, **rest}
    contrast, estimate = found.contrast, found.contrast.estimate
    return {
        "id": claim,
        "claim": text,
        "contrast": contrast.name,
        "scope": scope + caveat_of(contrast),
        "estimate": round(estimate.value, 4),
        "ci_low": round(estimate.low, 4),
        "ci_high": round(estimate.high, 4),
        "n": estimate.n,
        "unit": contrast.unit,
        "n_seeds": contrast.n_seeds,
        "verdict": _verdict(found),
        **_figure(claim),
    }


def _verdict(found: DecidedContrast) -> str:
    """The verdict on the weakest contrast; against a claim it takes a corrected p-value too."""
    estimate = found.contrast.estimate
    is_refuted = found.p_above <= CLAIM_ALPHA
    # an interval over design points is, like one over queries, about these weights only
    unit: Literal["query", "seed"] = "seed" if found.contrast.unit == "seed" else "query"
    return verdict(
        estimate.low,
        estimate.high if is_refuted else max(estimate.high, 0.0),
        n_seeds=found.contrast.n_seeds,
        unit=unit,
        p_adjusted=found.p_below,
        alpha=CLAIM_ALPHA,
        at_floor=found.contrast.at_floor,
    )
