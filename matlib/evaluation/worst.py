"""The one definition of `worst`: what decides every claim."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from matlib.evaluation.retrieval import Outcomes, worst_of

WORST = "worst"


def worst_under(
    outcomes: Mapping[tuple[str, str], Outcomes],
    threat: str,
    attacks: Collection[str] | None = None,
) -> Outcomes:
    """Per query the worst rank over everything that is legal under a text threat.

    Legal are the query as it is (`clean`), attacks on images alone, and attacks with the
    threat's words, each in its own gallery: an attacker who may change something may also leave
    it. So `worst` never leaves more than any of its parts, `clean` among them.

    Args:
        outcomes: per (attack, threat), the threat "" where no text is attacked.
        attacks: only these and `clean`, so that rows judged by different suites are compared
            under the same attacks. All by default.

    Raises:
        ValueError: nothing is legal.
    """
    parts = [
        found
        for (attack, own), found in outcomes.items()
        if attack != WORST
        and own in ("", threat)
        and (attacks is None or attack == "clean" or attack in attacks)
    ]
    return worst_of(parts)
