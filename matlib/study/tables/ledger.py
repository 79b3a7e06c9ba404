"""The ledger of claims: each contrast, its interval and its verdict, from per-query outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from matlib.evaluation.crossed import SCORES
from matlib.evaluation.statistics import holm, verdict
from matlib.study.made.sanity import battery_by_row, masked_gradients_entry
from matlib.study.study import Study
from matlib.study.tables.contrasts import (
    Contrast,
    joint_beyond_both,
    p_above,
    rivals_of_mat,
    robustness_of_mat,
    transfer_of_ranking,
)
from matlib.study.tables.contrasts_of_pairs import contrasts_of_pairs
from matlib.study.tables.findings import REPLICATIONS, shown_in
from matlib.study.tables.other_tasks import transfer_to_tasks

CLAIMS = {
    "C0": "MAT makes a model more robust than no defence",
    "C1": "together, attacks on image and text take more than each by itself foretells",
    "C2": "MAT beats the other defences under multimodal attack",
    "C3": "MAT over-fits to 1:1 pairs",
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

BESIDE = ("C4b", "C4c")
"""Claims beside a claim, which not every study can test: they stand only where it does."""

ONE_SIDED = ("C8a", "C8b")
"""Claims whose p-value is of a test of one side only (permutations): the other is not known, so
they can stay open but never be refuted."""

CLAIM_ALPHA = 0.025
"""One-sided, as `verdict` has it: it fits the two-sided 95 % interval."""

NO_VERDICT = "no verdict"
"""Of a row whose contrasts show something else than it says, with the reason."""

CONTRAST_COLUMNS = (
    "claim", "part", "contrast", "endpoint", "decides", "estimate", "ci_low", "ci_high", "p_below",
    "n", "unit", "n_seeds",
)  # fmt: skip

Contrasts = Mapping[str, Sequence[Contrast]]
"""Claim -> the contrasts behind it; none where a study cannot test it."""

ClaimEntry = dict[str, Any]
"""A row of the ledger, as in claims.json."""


def contrasts_of(study: Study) -> dict[str, list[Contrast]]:
    """Every contrast behind every claim but C9, whose checks are the battery's."""
    return {
        "C0": robustness_of_mat(study),
        "C1": joint_beyond_both(study),
        "C2": rivals_of_mat(study),
        **contrasts_of_pairs(study),
        "C8a": transfer_of_ranking(study),
        "C8b": transfer_to_tasks(study),
    }


def contrast_table(contrasts: Contrasts) -> pd.DataFrame:
    """All contrasts, not only the weakest of each claim, by both endpoints.

    Returns:
        `CONTRAST_COLUMNS`, in the order of the claims: differences in shares of 1 with their
        intervals, and the one-sided p-value of "at most 0", corrected for nothing.
    """
    rows = []
    for claim in CLAIMS:
        for found in contrasts.get(claim, ()):
            [other] = [name for name in SCORES if name != found.endpoint]
            for endpoint, e in ((found.endpoint, found.estimate), (other, found.beside)):
                if e is not None:
                    rows.append((claim, found.part, found.name, endpoint, e is found.estimate,
                                 e.value, e.low, e.high, e.p_below, e.n, found.unit,
                                 found.n_seeds))  # fmt: skip
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS))


def ledger(study: Study, contrasts: Contrasts | None = None) -> list[ClaimEntry]:
    """All claims: decided ones with their numbers, the rest as *not yet tested*.

    Endpoints are the mean of TR@1 and IR@1 under the worst-of suite, and for C5 and C6 the mean
    reciprocal rank, as the design has it. A claim has a row for each of its parts (threats,
    numbers of pairs, modalities); of several contrasts the weakest stands for the row. Verdicts
    are those of this study by itself; `by_family` corrects over all studies of a family.

    Args:
        contrasts: from `contrasts_of`, where they are there already.
    """
    contrasts = contrasts_of(study) if contrasts is None else contrasts
    entries: list[ClaimEntry] = []
    for claim in CLAIMS:
        found = contrasts.get(claim, ())
        parts = groupby(found, key=lambda each: each.part)
        entries += [_entry(study, claim, part, list(each)) for part, each in parts]
        if not found and claim not in BESIDE and claim != "C9":
            entries.append(_untested(study, claim))
    examined = battery_by_row(study)
    c9 = (
        masked_gradients_entry(examined, _scope(study, "C9"))
        if examined
        else _untested(study, "C9")
    )
    return one_family({"": [*entries, {**c9, **_figure("C9")}]})[""]


def by_family(ledgers: Mapping[str, Sequence[ClaimEntry]]) -> dict[str, list[ClaimEntry]]:
    """The ledgers of several studies with verdicts by Holm over all claims of each family.

    Args:
        ledgers: as of `one_family`.
    """
    apart = [{name: claims} for name, claims in ledgers.items() if name in REPLICATIONS]
    rest = {name: claims for name, claims in ledgers.items() if name not in REPLICATIONS}
    found = {name: each for part in (rest, *apart) for name, each in one_family(part).items()}
    return {name: found[name] for name in ledgers}


def one_family(ledgers: Mapping[str, Sequence[ClaimEntry]]) -> dict[str, list[ClaimEntry]]:
    """The ledgers of several studies with verdicts by Holm over all of their claims.

    C9 is no part of the family: it asks that every single bound holds, and a correction would
    help the defender.

    Args:
        ledgers: study -> rows of claims.json; rows without p-values (of before they were
            recorded, or not tested) keep their verdicts.
    """
    tested = [each for claims in ledgers.values() for each in claims
              if each.get("p_below") is not None and not each["void"]]  # fmt: skip
    below, above = (holm([each[side] for each in tested]) for side in ("p_below", "p_above"))
    corrected = {
        id(each): verdict(
            each["ci_low"],
            each["ci_high"] if other <= CLAIM_ALPHA else max(each["ci_high"], 0.0),
            n_seeds=each["n_seeds"],
            # an interval over design points is, like one over queries, about these weights only
            unit="seed" if each["unit"] == "seed" else "query",
            p_adjusted=p,
            alpha=CLAIM_ALPHA,
            at_floor=each["at_floor"],
        )
        for each, p, other in zip(tested, below, above, strict=True)
    }
    return {
        name: [{**each, "verdict": corrected.get(id(each), each["verdict"])} for each in claims]
        for name, claims in ledgers.items()
    }


def _scope(study: Study, claim: str) -> str:
    """Data, gallery, budget and threat that a verdict is about."""
    profile, e = study.profile, study.profile.evaluation
    eps = e.unimodal_eps_255 if claim == "C1" else e.eps_255
    scope = (
        f"{profile.dataset.name} (profile {profile.name}), gallery {profile.dataset.n_test}, "
        f"eps {eps:g}/255, {e.n_words} word, {e.primary_threat}"
    )
    if claim == "C9" and profile.battery_rows:
        scope += f", examined: {', '.join(profile.battery_rows)}"
    if profile.worlds:
        scope += f", {len(study.worlds())} worlds"
    if profile.limit:
        scope += f", partial: at most {profile.limit} test images"
    return scope


def _figure(claim: str) -> dict[str, str]:
    """Where a claim is shown: its notebook, and its picture among the published ones."""
    notebook, picture = shown_in(claim)
    return {"figure": f"notebooks/{notebook}.ipynb" if notebook else "", "picture": picture}


def _untested(study: Study, claim: str) -> ClaimEntry:
    empty = {"estimate": None, "ci_low": None, "ci_high": None, "n": 0, "unit": "query"}
    return {
        "id": claim, "part": "", "claim": CLAIMS[claim], "contrast": "",
        "scope": _scope(study, claim), **empty,
        "n_seeds": 0, "verdict": "not yet tested", **_figure(claim),
    }  # fmt: skip


def _entry(study: Study, claim: str, part: str, found: Sequence[Contrast]) -> ClaimEntry:
    """A row of the ledger: the contrast whose interval begins lowest, and what it needs."""
    n_boot = study.profile.evaluation.n_boot
    weakest = min(found, key=lambda each: each.estimate.low)
    at, estimate = found.index(weakest), weakest.estimate
    # all contrasts must be above 0: the largest p-value (Berger 1982). That the weakest of many
    # is below 0 has to be corrected for their number
    p_below = max(each.estimate.p_below for each in found)
    against = holm([1.0 if claim in ONE_SIDED else p_above(e.estimate, n_boot) for e in found])[at]
    beside = weakest.beside
    void = next((each.void for each in found if each.void), "")
    return {
        "id": claim,
        "part": part,
        "claim": f"{CLAIMS[claim]} ({part})" if part else CLAIMS[claim],
        "contrast": weakest.name,
        "scope": _scope(study, claim),
        "endpoint": weakest.endpoint,
        **_rounded(estimate.columns("estimate", "ci_")),
        "beside": None if beside is None else _rounded(beside.columns("estimate", "ci_")),
        "p_below": float(f"{p_below:.3g}"),
        "p_above": float(f"{against:.3g}"),
        "n": estimate.n,
        "unit": weakest.unit,
        "n_seeds": weakest.n_seeds,
        "at_floor": weakest.at_floor,
        "void": void,
        "verdict": f"{NO_VERDICT} ({void})" if void else "not yet tested",
        **_figure(claim),
    }


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in numbers.items()}
