"""How many allowed word changes make a caption false, by the eyes of a reader.

Of real photographs nobody knows what is true, so a sample of the changes that each text threat
allows is drawn, and a person labels each of them once: `true` (the changed caption can still be
said of the image that the original was said of), `false`, or `unclear`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from scipy import stats

from matlib.attacks.edits import Table, apply_edit
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.statistics import Estimate
from matlib.study.context import Context
from matlib.study.made.candidates import tables
from matlib.study.made.protocols import full
from matlib.study.sources.source import draw
from matlib.study.store.provenance import PACKAGE_ROOT

SUBSTITUTIONS_FILE = "substitutions.csv"
"""Below `published/<profile>`."""
LABELS = ("true", "false", "unclear")
SUBSTITUTION_COLUMNS = ("threat", "caption", "changed", "word", "replacement", "label")
PER_THREAT = 60


def drawn_substitutions(study: Context, n: int = PER_THREAT) -> pd.DataFrame:
    """Of every text threat, `n` captions of the test gallery with one allowed change each.

    Captions that a threat may change are equally likely, and so are the changes of a caption: it
    is no attack that has chosen them. The same study gives the same sample.

    Returns:
        `SUBSTITUTION_COLUMNS`, label empty.
    """
    how = full(study.profile.evaluation, "test")
    allowed, pairs = study.get(tables(study, "test", how.threats)), study.pairs("test")
    parts = [sampled(pairs, allowed[threat], threat, n) for threat in how.threats]
    return pd.concat(parts, ignore_index=True)


def sampled(pairs: ImageTextPairs, table: Table, threat: str, n: int) -> pd.DataFrame:
    """The sample of one threat, from its allowed edits of every caption."""
    generator = draw(0, f"substitutions {threat}")
    rows: list[tuple[str, ...]] = []
    for i in torch.randperm(len(table), generator=generator).tolist():
        if table[i] and len(rows) < n:
            edit = table[i][int(torch.randint(len(table[i]), (1,), generator=generator))]
            caption = pairs.captions[i]
            word = caption.split(" ")[edit.position]
            changed = apply_edit(caption, edit)
            rows.append((threat, caption, changed, word, edit.replacement, ""))
    return pd.DataFrame(rows, columns=list(SUBSTITUTION_COLUMNS))


def read_substitutions(path: Path) -> pd.DataFrame:
    """A labelled sample.

    Raises:
        FileNotFoundError: no such file.
        ValueError: other columns, or a label that is none of `LABELS`.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(table.columns) != SUBSTITUTION_COLUMNS:
        raise ValueError(f"{path}: expected the columns {', '.join(SUBSTITUTION_COLUMNS)}")
    other = sorted(set(table["label"]) - set(LABELS))
    if other:
        raise ValueError(f"{path}: a label is one of {', '.join(LABELS)}; got {other[0]!r:.40}")
    return table


def false_shares(table: pd.DataFrame) -> pd.DataFrame:
    """The share of changes that make a caption false, of those that could be told.

    Returns:
        one row per threat: threat, n (labelled true or false), n_false, n_unclear, share, low,
        high (Wilson's 95 % interval).
    """
    rows = []
    for threat, part in table.groupby("threat", sort=False):
        count = part["label"].value_counts()
        n_false, n = int(count.get("false", 0)), int(count.get("false", 0) + count.get("true", 0))
        about = {"threat": threat, "n": n, "n_false": n_false}
        share = {"share": float("nan"), "low": 0.0, "high": 1.0}
        if n:
            limits = stats.binomtest(n_false, n).proportion_ci(method="wilson")
            share = {"share": n_false / n, "low": float(limits.low), "high": float(limits.high)}
        rows.append({**about, "n_unclear": int(count.get("unclear", 0)), **share})
    return pd.DataFrame(rows)


def labelled_shares(profile: str) -> pd.DataFrame:
    """`false_shares` of what was labelled for a profile; empty where nothing was."""
    path = PACKAGE_ROOT / "published" / profile / SUBSTITUTIONS_FILE
    return false_shares(read_substitutions(path)) if path.is_file() else pd.DataFrame()


def labelled_share(profile: str, threat: str) -> Estimate | None:
    """The same of one threat; None where nothing was labelled."""
    found = labelled_shares(profile)
    for row in found.to_dict("records"):
        if row["threat"] == threat and row["n"]:
            return Estimate(row["share"], row["low"], row["high"], row["n"])
    return None
