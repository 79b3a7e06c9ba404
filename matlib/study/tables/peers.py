"""Published numbers of other projects beside ours, each within its stated tolerance or not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from matlib.evaluation.retrieval import Direction, conditional_attack_success
from matlib.evaluation.robustness import key_of
from matlib.study.store.provenance import PACKAGE_ROOT
from matlib.study.study import Study

PEERS = PACKAGE_ROOT / "published" / "peers.csv"
"""Published numbers in [0, 1], with a tolerance and a source.

Tolerances: 1 point on clean recall (decoding and resizing differ between library versions;
0.2 points between two published preprocessings); 1 point on SGA, which is saturated; 3 points on
BERT-Attack (deterministic, but the released candidates depend on the language model's revision);
5 points where PGD without SGA's views takes part: two publications of the same attack differ by
up to 15 points (93.25 at eps 2/255 against 78.53 at eps 8/255 for Co-Attack), because the baselines
depend on their implementation.
"""


def published(profile: str, path: Path = PEERS) -> pd.DataFrame:
    """The published numbers that a profile can be compared with; may be empty."""
    table = pd.read_csv(path)
    return table[table["profile"] == profile].reset_index(drop=True)


def compare_with_peers(study: Study, path: Path = PEERS) -> pd.DataFrame:
    """Published against measured: attack, measure, direction, k, published, measured, agrees.

    Attack success is the conditional definition (share of the clean-correct queries that
    break), as in the tables of SGA and its successors.
    """
    rows = []
    outcomes = study.evaluated("base").outcomes
    threat = study.profile.evaluation.primary_threat
    for row in published(study.profile.name, path).to_dict("records"):
        attack, k, value = str(row["attack"]), int(row["k"]), float(row["value"])
        direction: Direction = "TR" if row["direction"] == "TR" else "IR"
        key = key_of(attack, threat)
        if key not in outcomes:
            continue
        if row["measure"] == "recall":
            measured = outcomes[key].recall(direction, k)
        else:
            clean = outcomes[("clean", "")]
            hits = [o.hits(direction, k) for o in (clean, outcomes[key])]
            measured = conditional_attack_success(*hits)
        rows.append(
            {
                "attack": attack,
                "measure": row["measure"],
                "direction": direction,
                "k": k,
                "published": value,
                "measured": measured,
                "tolerance": float(row["tolerance"]),
                "agrees": abs(measured - value) <= float(row["tolerance"]),
                "source": row["source"],
            }
        )
    return pd.DataFrame(rows)
