"""Recall that is left, in percent and not as differences: what the README says of it.

Everything is read from published tables. `worst` is the study's worst attack on both sides.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

COLUMNS = {
    ("clean", ""): "no attack",
    ("pgd", ""): "image",
    ("bert", "bert_true"): "a true word",
    ("sga", "bert_true"): "both, SGA",
    ("worst", "bert_true"): "**worst, a true word**",
    ("worst", "typo"): "worst, a typo",
}
"""Attack and text threat -> heading of a column."""

UNDEFENDED, TRAINED, TRUE_WORDS, TEXT_ONLY = "base", "mat", "mat-valid", "text-at-valid"


def recall_markdown(folder: Path) -> str:
    """Every row's recall without attack and under attack, with its interval.

    Args:
        folder: of a published study, with `endpoints.csv`.
    """
    if not (folder / "endpoints.csv").is_file():
        return f"`python -m matlib study --profile {folder.name} --publish`, not published yet."
    table = _read(folder / "endpoints.csv")
    rows = list(dict.fromkeys(table["row"]))
    cells = {(r.row, r.attack, r.text_threat): _cell(r.value, r.low, r.high)
             for r in table.itertuples()}  # fmt: skip
    lines = [f"| row | {' | '.join(COLUMNS.values())} |", f"|{'---|' * (len(COLUMNS) + 1)}"]
    for row in rows:
        shown = [cells.get((row, *key), "–") for key in COLUMNS]
        lines.append(f"| `{row}` | {' | '.join(shown)} |")
    free = table[(table["attack"] == "worst") & (table["text_threat"] == "bert_free")]
    highest = free.loc[free["value"].idxmax()]
    several = int(table["n_seeds"].max())
    return "\n".join([
        *lines,
        "",
        f"Mean of TR@1 and IR@1 in %, intervals (95 %) over {several} training seeds, of the one "
        f"`{UNDEFENDED}` over images. Where any word may replace a word (`bert_free`; notebook "
        f"10 counts the false captions that this makes), the worst attack leaves every row "
        f"{_cell(free['value'].min())} to {_cell(highest['value'])} % (`{highest['row']}`): no "
        f"defence holds.",
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
    table = _read(folder / "held_out.csv")
    told = table[table["text_threat"] == "true_held_out"].set_index(["row", "attack"])

    def left(row: str, attack: str) -> str:
        found = told.loc[(row, attack)]
        return f"{row} {_cell(found['recall'], found['low'], found['high'])}"

    alone = ", ".join(left(row, "bert") for row in (UNDEFENDED, TRUE_WORDS))
    worst = ", ".join(left(row, "worst") for row in (TRAINED, TRUE_WORDS, TEXT_ONLY))
    return {
        "C0-valid": f"on held-out words, text alone leaves {alone}",
        "C2-valid": f"on held-out words, the worst attack leaves {worst}",
    }


def outside_markdown(published: Path) -> str:
    """How far an attack from outside the project goes below the study's worst attack.

    Args:
        published: folder with `outside_attack.csv` and the study `demo`.
    """
    outside = _read(published / "outside_attack.csv")
    ours = _read(published / "demo" / "endpoints.csv")
    ours = ours[(ours["attack"] == "worst") & (ours["text_threat"] == "bert_true")]
    own = {r.row: _cell(r.value, r.low, r.high) for r in ours.itertuples()}
    lines = ["| row | the study's worst attack | outside attack, one adversarial gallery |",
             "|---|---|---|"]  # fmt: skip
    for found in outside[outside["attack"] == "one gallery"].itertuples():
        left = _cell(found.recall, found.low, found.high)
        lines.append(f"| `{found.row}` | {own[found.row]} | {left} |")
    return "\n".join(lines)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values={
        name: ["", "nan", "NaN"] for name in ("value", "recall", "low", "high")})  # fmt: skip


def _cell(value: float, low: float = float("nan"), high: float = float("nan")) -> str:
    """Shares of 1 in percent; without limits where there are none."""
    text = f"{100 * value:.1f}"
    return text if pd.isna(low) else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"
