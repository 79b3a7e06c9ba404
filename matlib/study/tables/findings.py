"""What we found, and where we differ from the paper: sentences from the ledgers' verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matlib.analysis.figures.sentences import claim_numbers
from matlib.study.profile.rows import ON_TRUE_WORDS

Ledger = Sequence[Mapping[str, Any]]

PAPER_SAYS = {
    "C0": "MAT defends",
    "C2": "MAT beats unimodal defences",
    "C3": "MAT over-fits to 1:1 pairs",
    "C4": "one-to-many augmentation helps",
    "C5": "text augmentations beat image augmentations",
    "C6": "cross-modal augmentations can beat intra-modal ones",
    "C7a": "good augmentations are well aligned",
    "C7b": "good augmentations are diverse",
    "C7c": "good augmentations are not shifted",
}
"""What the paper's abstracts say (arXiv 2405.18770), in our words; its tables were not at hand."""

NO_VIOLATION = "no violation found"
"""C9 in ledgers of before it was a claim of equivalence: no check failed, which shows no more."""

SHOWN_IN = {
    "C0": ("20_defences", "robustness.png"),
    "C1": ("10_threat", ""),
    "C2": ("20_defences", "robustness.png"),
    "C3": ("30_one_to_many", ""),
    "C4": ("30_one_to_many", "robustness.png"),
    "C5": ("30_one_to_many", ""),
    "C6": ("30_one_to_many", ""),
    "C7": ("70_what_makes_a_good_pair", "good_pairs.png"),
    "C8a": ("85_transfer", ""),
    "C8b": ("95_other_tasks", ""),
    "C9": ("80_sanity", ""),
}
"""Claim, or the family of its variations -> the notebook that shows it, and its figure among the
published ones ("" where there is none)."""

PAIRS_STUDY, OF_PAIRS = "one-to-many", ("C3", "C4", "C5", "C6", "C7")
"""The study that has these claims' controls (a regularised MAT as rival, members chosen on
validation). Among as many seeds it speaks, not one that has the same rows by the way."""


REPLICATIONS = ("replication", "replication-pairs")
"""Studies that ask again, in worlds of their own, what others left open: what they ask they answer,
the first of them first, however many trainings the others have. The frozen design of each makes a
family of its own claims alone; the claims of all other studies are one family."""


EXPLORING = ("inside-mat",)
"""Studies of worlds that were looked at before: their tables are shown, their claims nowhere."""


def shown_in(claim: str) -> tuple[str, str]:
    """Name of the notebook that shows a claim, and of its published figure; "" for none.

    >>> shown_in("C7b")
    ('70_what_makes_a_good_pair', 'good_pairs.png')
    """
    return SHOWN_IN.get(claim) or SHOWN_IN.get(claim[:2], ("", ""))


def as_worded_now(claim: Mapping[str, Any]) -> dict[str, Any]:
    """A claim of a ledger, also of one in which C9 rested on no check failing (no upper bound)."""
    verdict = str(claim["verdict"])
    is_of_before = claim["id"] == "C9" and claim["ci_high"] is None
    if is_of_before and verdict.startswith(("supported", "favourable")):
        verdict = verdict.replace("supported", NO_VIOLATION).replace("favourable", NO_VIOLATION)
    return {**claim, "verdict": verdict}


def findings(ledgers: Mapping[str, Ledger]) -> list[str]:
    """One sentence per decided claim, that of the study with the most training seeds.

    `REPLICATIONS` speak before all others; among studies with as many seeds, `PAIRS_STUDY` speaks
    of pairs; of others the first.

    Args:
        ledgers: profile name -> its claims, as in claims.json.

    Returns:
        sentences in the order of the claims; empty where nothing is decided.
    """
    return [_sentence(profile, claim) for profile, claim in decided(ledgers)]


def beside_the_paper(ledgers: Mapping[str, Ledger]) -> list[str]:
    """The same for the paper's claims alone, in fewer words."""
    return [
        f"{claim['id']}, {PAPER_SAYS[claim['id']]}{_in_part(claim)}: **{claim['verdict']}**"
        f"{_on_true_words(claim)} "
        f"({claim_numbers(claim)}; {profile}{_although_apart(claim)}); "
        f"{_beside_the_paper(claim['verdict'])}."
        for profile, claim in decided(ledgers)
        if claim["id"] in PAPER_SAYS
    ]


def decided(ledgers: Mapping[str, Ledger]) -> list[tuple[str, Mapping[str, Any]]]:
    """The study that speaks of each part of each decided claim, and its row of the ledger."""
    best: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    for profile, claims in ledgers.items():
        for claim in claims:
            if claim["estimate"] is None:
                continue
            known = best.get(_key(claim))
            if known is None or _weight(profile, claim) > _weight(*known):
                best[_key(claim)] = (profile, claim)
    order = {_key(claim): i for claims in ledgers.values() for i, claim in enumerate(claims)}
    return [best[key] for key in sorted(best, key=lambda k: (k[0][:2], order[k]))]


def _key(claim: Mapping[str, Any]) -> tuple[str, str]:
    """A claim and the row of it; ledgers of before claims had rows have one."""
    return claim["id"], claim.get("part", "")


def _in_part(claim: Mapping[str, Any]) -> str:
    return f" ({claim['part']})" if claim.get("part") else ""


def _weight(profile: str, claim: Mapping[str, Any]) -> tuple[int, int, bool]:
    """Which study speaks of a claim: a replication first, then the larger, the sooner."""
    is_of_pairs = profile == PAIRS_STUDY and claim["id"].startswith(OF_PAIRS)
    again = [*reversed(REPLICATIONS)].index(profile) + 1 if profile in REPLICATIONS else 0
    return again, claim["n_seeds"], is_of_pairs


def _sentence(profile: str, claim: Mapping[str, Any]) -> str:
    said = PAPER_SAYS.get(claim["id"])
    text = (
        f"{claim['id']}, {claim['claim']}: **{claim['verdict']}** "
        f"({claim_numbers(claim)}; {profile}{_although_apart(claim)})."
    )
    if said is None:
        return f"{text} Not one of the paper's claims."
    said = f"{said}{_on_true_words(claim)}"
    return f"{text} The paper: {said}; {_beside_the_paper(claim['verdict'])}."


def _on_true_words(claim: Mapping[str, Any]) -> str:
    """Where the MAT of a contrast is not the paper's, which trains on any word."""
    return " (here MAT on true words)" if f"mat{ON_TRUE_WORDS}" in str(claim["contrast"]) else ""


def _although_apart(claim: Mapping[str, Any]) -> str:
    """Why a claim is undecided although its interval leaves 0 out: its p-value decides, which
    is corrected for the number of claims (and counts orders by chance where it ranks few)."""
    low, high = claim["ci_low"], claim["ci_high"]
    is_apart = low > 0 or (high is not None and high < 0)
    if claim["verdict"].startswith("inconclusive") and is_apart and "floor" not in claim["verdict"]:
        return "; 0 is outside this interval, but the p-value corrected for all claims is not small"
    return ""


def _beside_the_paper(verdict: str) -> str:
    """How our verdict stands to a paper that says yes."""
    if verdict == "supported":
        return "in this world we find so too"
    if verdict == "not supported":
        return "in this world we find the opposite"
    if verdict.startswith("favourable"):
        return "these weights agree, which says nothing of the method"
    if verdict.startswith("unfavourable"):
        return "these weights disagree, which says nothing of the method"
    return "our runs cannot tell"
