"""Recall that is left, in percent and not as differences: what the README says of it.

Everything is read from published tables. `worst` is the study's worst attack on both sides.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from matlib.evaluation.statistics import in_percent

_COLUMNS = {
    ("clean", ""): "no attack",
    ("pgd", ""): "image",
    ("bert", "bert_true"): "a true word",
    ("sga", "bert_true"): "both, SGA",
    ("worst", "bert_true"): "**worst, a true word**",
    ("worst", "typo"): "worst, a typo",
}
"""Attack and text threat -> heading of a column."""

_UNDEFENDED, _TRAINED, _TRUE_WORDS, _TEXT_ONLY = "base", "mat", "mat-valid", "text-at-valid"


def recall_markdown(folder: Path) -> str:
    """Every row's recall without attack and under attack, with its interval.

    Args:
        folder: of a published study, with `endpoints.csv`.
    """
    if not (folder / "endpoints.csv").is_file():
        return f"`python -m matlib study --profile {folder.name} --publish`, not published yet."
    table = _read(folder / "endpoints.csv")
    rows = list(dict.fromkeys(table["row"]))
    cells = cells_of(table)
    lines = [f"| row | {' | '.join(_COLUMNS.values())} |", f"|{'---|' * (len(_COLUMNS) + 1)}"]
    for row in rows:
        shown = [cells.get((row, *attack), "–") for attack in _COLUMNS]
        lines.append(f"| `{row}` | {' | '.join(shown)} |")
    free = table[(table["attack"] == "worst") & (table["text_threat"] == "bert_free")]
    left = free.set_index("row")["value"].astype(float)
    several = int(table["n_seeds"].max())
    return "\n".join([
        *lines,
        "",
        f"Mean of TR@1 and IR@1 in %, intervals (95 %) over {several} training seeds, of the one "
        f"`{_UNDEFENDED}` over images. Where any word may replace a word (`bert_free`; notebook "
        f"10 counts the false captions that this makes), the worst attack leaves every row "
        f"{100 * left.min():.1f} to {100 * left.max():.1f} % (`{left.idxmax()}`): no defence "
        "holds.",
    ])  # fmt: skip


def held_out_notes(folder: Path) -> dict[str, str]:
    """What words of a family that no training had say beside a claim on trained words.

    Args:
        folder: of a published study; without `held_out.csv` there is nothing to say.

    Returns:
        claim -> the words to be read with its contrast.
    """
    if not (folder / "held_out.csv").is_file():
        return {}
    cells = cells_of(_read(folder / "held_out.csv"), "recall")

    def left(row: str, attack: str) -> str:
        return f"{row} {cells[row, attack, 'true_held_out']}"

    alone = ", ".join(left(row, "bert") for row in (_UNDEFENDED, _TRUE_WORDS))
    worst = ", ".join(left(row, "worst") for row in (_TRAINED, _TRUE_WORDS, _TEXT_ONLY))
    return {
        "C0-valid": f"on held-out words, text alone leaves {alone}",
        "C2-valid": f"on held-out words, the worst attack leaves {worst}",
    }


def outside_markdown(published: Path) -> str:
    """How far an attack from outside the project goes below the study's worst attack.

    Args:
        published: folder with `outside_attack.csv` and the study `demo`.
    """
    outside = _read(published / "outside_attack.csv").assign(text_threat="bert_true")
    ours = cells_of(_read(published / "demo" / "endpoints.csv"))
    lines = ["| row | the study's worst attack | outside attack, one adversarial gallery |",
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
