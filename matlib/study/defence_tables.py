"""The defences side by side: every attack in one table, and what each training cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from matlib.evaluation.suite import Key
from matlib.study.runs import Study

PRIMARY_THREAT = "primary"
"""Stands for the threat that decides, in `ATTACKS`."""

DEFENCE_TABLE_ATTACKS: dict[str, Key] = {
    "no attack": ("clean", ""),
    "image (PGD)": ("pgd", ""),
    "text: true word": ("bert", "bert_true"),
    "text: typo": ("bert", "typo"),
    "text: any word": ("bert", "bert_free"),
    "Sep": ("sep", PRIMARY_THREAT),
    "Co-Attack": ("co-attack", PRIMARY_THREAT),
    "SGA": ("sga", PRIMARY_THREAT),
    "text, whole gallery": ("words", PRIMARY_THREAT),
    "both, whole gallery": ("gallery", PRIMARY_THREAT),
    "worst (primary threat)": ("worst", PRIMARY_THREAT),
}
"""Column -> attack and text threat."""

COSTS = ("pairs seen", "seconds", "attacks, % of them", "text attack, % of them")


def defence_table(endpoints: pd.DataFrame, primary: str) -> pd.DataFrame:
    """Every defence under no attack, each side alone, both sides, and the worst of all attacks.

    Args:
        endpoints: columns row, attack, text_threat, value, low, high (shares of 1), as
            `endpoint_table` gives them or `endpoints.csv` holds them.
        primary: the text threat of the attacks on both sides.

    Returns:
        a row per defence in their order, columns those of `ATTACKS` that some defence was
        judged by; cells such as `48.4 [45.0, 51.9]`, in percent, empty where nothing was
        measured.
    """
    table = endpoints.fillna({"text_threat": ""})
    cells = {
        (row.row, row.attack, row.text_threat): in_percent(row.value, row.low, row.high)
        for row in table.itertuples()
    }
    rows = list(dict.fromkeys(table["row"]))
    columns: dict[str, list[str]] = {}
    for heading, (attack, threat) in DEFENCE_TABLE_ATTACKS.items():
        key = (attack, primary if threat == PRIMARY_THREAT else threat)
        column = [cells.get((row, *key), "") for row in rows]
        if any(column):
            columns[heading] = column
    return pd.DataFrame(columns, index=pd.Index(rows, name="defence"))


def in_percent(value: Any, low: Any, high: Any) -> str:
    """Shares of 1 as `48.4 [45.0, 51.9]`."""
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def cost_table(study: Study, names: Sequence[str], seed: int) -> pd.DataFrame:
    """What training each row took, from the log of its steps.

    Seconds are those of the optimiser steps with their attacks; finding the candidate words and
    measuring on validation pairs are not in them. They depend on the machine and on what runs
    beside; pairs do not.

    Args:
        names: rows of the study; those whose weights are not here are left out.
        seed: of the training.

    Returns:
        index: the rows; columns `COSTS`, shares in percent of the seconds.
    """
    finetune, found = study.profile.finetune, {}
    for name in names:
        history = study.history(name, seed)
        if finetune is None or name == "base" or history.empty:
            continue
        seconds = history["seconds"].sum()
        found[name] = (
            len(history) * finetune.batch_size,
            round(seconds, 1),
            round(100 * history["attack_seconds"].sum() / seconds, 1),
            round(100 * history["text_attack_seconds"].sum() / seconds, 1),
        )
    table = pd.DataFrame.from_dict(found, orient="index", columns=list(COSTS))
    return table.rename_axis("defence")


def warnings_of(study: Study, names: Sequence[str], seed: int) -> list[str]:
    """What looked wrong while the rows were trained, a line each; `no warnings` for none.

    Args:
        names: rows of the study; those whose weights are not here are left out, and where no
            weights are here that is said.
        seed: of the training.
    """
    specs = {name: study.specs.defended(study.specs.run(name), seed)
             for name in names if name != "base"}  # fmt: skip
    weights = {name: study.store.find(spec) for name, spec in specs.items()}
    here = {name: artefact.notes for name, artefact in weights.items() if artefact is not None}
    if not here:
        return ["nothing was trained here"]
    found = [f"{name}: {text}" for name, notes in here.items() for text in notes["warnings"]]
    return found or ["no warnings"]
