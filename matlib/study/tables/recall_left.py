"""Recall that is left, in percent and not as differences: one table for all who show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.evaluation.statistics import MIN_SEEDS_FOR_INTERVAL, in_percent
from matlib.evaluation.suite import Key
from matlib.study.store.shared_json import read_shared

_PRIMARY = "primary"
"""Stands for the text threat that decides, in `RECALL_COLUMNS`."""

RECALL_COLUMNS: dict[str, Key] = {
    "no attack": ("clean", ""),
    "PGD": ("pgd", ""),
    "words": ("words", _PRIMARY),
    "Sep": ("sep", _PRIMARY),
    "Co-Attack": ("co-attack", _PRIMARY),
    "SGA": ("sga", _PRIMARY),
    "gallery": ("gallery", _PRIMARY),
    "worst": ("worst", _PRIMARY),
}
"""Column -> attack and text threat: the one table of absolute numbers."""

ABSENT = "–"
"""Cell of what was not measured."""

_UNDEFENDED = "base"


def recall_table(endpoints: pd.DataFrame, threat: str) -> pd.DataFrame:
    """What every attack leaves of every defence: no attack, each side, both, the worst of all.

    Args:
        endpoints: columns row, attack, text_threat, value, low, high (shares of 1), as
            `endpoint_table` gives them or `endpoints.csv` holds them.
        threat: text threat of all attacks that change words.

    Returns:
        a row per defence in their order, columns `RECALL_COLUMNS`; cells such as
        `48.4 [45.0, 51.9]`, in percent, `ABSENT` where nothing was measured.
    """
    cells = cells_of(endpoints.fillna({"text_threat": ""}))
    rows = list(dict.fromkeys(endpoints["row"]))
    columns = {
        heading: [cells.get((row, attack, own and threat), ABSENT) for row in rows]
        for heading, (attack, own) in RECALL_COLUMNS.items()
    }
    return pd.DataFrame(columns, index=pd.Index(rows, name="defence"))


def recall_markdown(folder: Path) -> str:
    """The same of a published study, and what has to be known to read it.

    Args:
        folder: of a published study, with `endpoints.csv` and `provenance.json`.
    """
    if not (folder / "endpoints.csv").is_file():
        return f"`python -m matlib study --profile {folder.name} --publish`, not published yet."
    endpoints = _read(folder / "endpoints.csv")
    profile = read_shared(folder / "provenance.json")["profile"]
    e = profile["evaluation"]
    threat = e["primary_threat"]
    table = recall_table(endpoints, threat)
    lines = [f"| row | {' | '.join(table.columns)} |", f"|{'---|' * (len(table.columns) + 1)}"]
    lines += [f"| `{row}` | {' | '.join(cells)} |"
              for row, *cells in table.itertuples(name=None)]  # fmt: skip
    absent = [str(name) for name in table if (table[name] == ABSENT).all()]
    over = intervals_over(profile, int(endpoints["n_seeds"].max()))
    told = [
        f"Mean of TR@1 and IR@1 in %, eps {e['eps_255']:g}/255 and {e['n_words']} word "
        f"(`{threat}`); intervals (95 %) over {over}. `worst` is per query the worst of "
        "all attacks of the suite."
    ]
    if absent:
        told.append(f"{ABSENT}: these records were made before the suite had {_and(absent)}.")
    return "\n".join([*lines, "", " ".join([*told, *_any_word(endpoints)])])


def intervals_over(profile: Mapping[str, Any], n_seeds: int) -> str:
    """What the intervals of a published study are over, in words.

    Args:
        profile: of its provenance; those of before the crossed model know no `worlds`, and have
            Student's t over seeds alone.
        n_seeds: trained weights behind a row.
    """
    if n_seeds < MIN_SEEDS_FOR_INTERVAL:
        return "images"
    if "worlds" in profile:
        return (
            f"{n_seeds} trainings, images and worlds of a crossed model (`{_UNDEFENDED}`: one in "
            "each world)"
        )
    return f"{n_seeds} training seeds (`{_UNDEFENDED}`, which is one, over images)"


def _any_word(endpoints: pd.DataFrame) -> list[str]:
    """What is left where any word may stand, if that was judged."""
    free = endpoints[(endpoints["attack"] == "worst") & (endpoints["text_threat"] == "bert_free")]
    if free.empty:
        return []
    left = free.set_index("row")["value"].astype(float)
    return [
        "Where any word may replace a word (`bert_free`; notebook 10 counts the false captions "
        f"that this makes), the worst attack leaves no row more than {100 * left.max():.1f} %."
    ]


def _and(names: Sequence[str]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def outside_markdown(published: Path) -> str:
    """How far an attack from outside the project goes below the study's worst attack.

    Args:
        published: folder with `outside_attack.csv` and the study `demo`.
    """
    outside = _read(published / "outside_attack.csv").assign(text_threat="bert_true")
    ours = cells_of(_read(published / "demo" / "endpoints.csv"))
    lines = [f"| row | the study's worst attack | outside attack, {outside['attack'].iloc[0]} |",
             "|---|---|---|"]  # fmt: skip
    for (row, _, threat), left in cells_of(outside, "recall").items():
        lines.append(f"| `{row}` | {ours[row, 'worst', threat]} | {left} |")
    return "\n".join(lines)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values={
        name: ["", "nan", "NaN"] for name in ("value", "recall", "low", "high")})  # fmt: skip


def cells_of(table: pd.DataFrame, column: str = "value") -> dict[tuple[str, str, str], str]:
    """(row, attack, text threat) -> a share of 1 in percent, with its interval if it has one:
    `48.4 [45.0, 51.9]`."""
    found = {}
    for row in table.to_dict("records"):
        cell = in_percent(*(float(row[name]) for name in (column, "low", "high")))
        found[str(row["row"]), str(row["attack"]), str(row["text_threat"])] = cell
    return found
