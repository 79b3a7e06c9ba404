"""Edits of kinds that no training has: what is left under them, beside those of known kinds."""

from __future__ import annotations

from typing import Any

import pandas as pd

from matlib.evaluation.inference import MIN_SEEDS_FOR_INTERVAL, t_interval
from matlib.evaluation.statistics import primary_difference, primary_endpoint
from matlib.evaluation.worst import WORST, worst_under
from matlib.study.endpoints import row_names
from matlib.study.judgings import HELD_OUT_ATTACKS
from matlib.study.runs import Study

KNOWN = {"true_held_out": "bert_true", "typo_held_out": "typo"}
"""What each held-out kind is to be compared with; the first is part of its threat."""

HELD_OUT_COLUMNS = (
    "row",
    "attack",
    "text_threat",
    "is_held_out",
    "recall",
    "low",
    "high",
    "n_seeds",
)


def held_out_table(study: Study) -> pd.DataFrame:
    """Text alone (`bert`), and the worst of text alone and both sides (`worst`), per threat.

    Returns:
        `COLUMNS`, one row per model, attack and threat, held out or known: the primary
        endpoint with its interval (t-interval over seeds from three on; below, over images).
        Empty where the profile holds nothing out.
    """
    rows: list[dict[str, Any]] = []
    held_out, e = study.profile.evaluation.held_out, study.profile.evaluation
    threats = [name for kind in held_out for name in (kind, KNOWN[kind])]
    own = study.pairs("test").image_of
    for name in row_names(study):
        seeds = [seed for row, seed in study.rows() if row == name]
        for threat in threats:
            is_held_out = threat in KNOWN
            if not is_held_out and threat not in e.threats:
                continue
            how = study.held_out_judging() if is_held_out else study.main_judging("test")
            found = [study.judged(name, seed, how).outcomes for seed in seeds]
            for attack in ("bert", WORST):
                outcomes = [
                    worst_under(each, threat, HELD_OUT_ATTACKS)
                    if attack == WORST
                    else each[attack, threat]
                    for each in found
                ]
                if len(outcomes) >= MIN_SEEDS_FOR_INTERVAL:
                    estimate = t_interval([primary_endpoint(each) for each in outcomes])
                else:
                    estimate = primary_difference(outcomes[0], None, own, n_boot=e.n_boot)
                rows.append(
                    {
                        "row": name, "attack": attack, "text_threat": threat,
                        "is_held_out": is_held_out, "recall": estimate.value,
                        "low": max(0.0, estimate.low), "high": min(1.0, estimate.high),
                        "n_seeds": len(outcomes),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows, columns=list(HELD_OUT_COLUMNS))
