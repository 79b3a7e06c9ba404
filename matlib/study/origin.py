"""What made published numbers, in words: at which commit, and whether its code has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matlib.study.provenance import stale_kinds

KINDS = {
    "masked-lm": "the attacker's language model",
    "candidates": "the candidate words",
    "model": "the models",
    "judged": "the evaluations",
    "sanity": "the sanity checks",
    "captioner": "the captioner",
    "pairs": "generated pairs",
    "filtered": "the shares that filters keep",
    "coordinates": "measures of pairs",
    "transfer": "the attacks sent from model to model",
}
"""Kinds of artefacts, as a reader would call them."""


def origin_markdown(provenance: Mapping[str, Any]) -> str:
    """Which commit made the published numbers, and whether their code has changed since."""
    artefacts = provenance["artefacts"]
    commits = sorted({str(a["commit"])[:7] + ("+" if a["dirty"] else "") for a in artefacts})
    seconds = sum(a["wall_seconds"] for a in artefacts if a["kind"] in ("model", "judged"))
    n_runs = sum(a["kind"] == "judged" for a in artefacts)
    text = (
        f"Made at commit {', '.join(commits)}: training and attacking took "
        f"{seconds / 60:.0f} minutes for {n_runs} evaluations."
    )
    stale = [KINDS.get(kind, kind) for kind in stale_kinds(artefacts)]
    if stale:
        text += (
            f" The code of {', '.join(stale)} has changed since: a rerun may give other numbers."
        )
    return text
