"""The README's claims table: generated from the published ledger, never typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matlib.study.durable import write_durably
from matlib.study.report import claim_rows

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"


def claims_markdown(claims: Sequence[Mapping[str, Any]]) -> str:
    """Decided claims as a table, the others in one line below it."""
    rows = claim_rows(claims)
    decided = [row for row in rows if row["verdict"] != "not yet tested"]
    pending = [row["id"] for row in rows if row["verdict"] == "not yet tested"]
    lines = ["| id | claim | contrast | points (95 %) | verdict |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['id']} | {row['claim']} | {row['contrast']} | {row['estimate']} "
        f"| {row['verdict']} |"
        for row in decided
    ]
    if pending:
        lines += ["", f"Not yet tested: {', '.join(pending)}."]
    return "\n".join(lines)


def with_claims(readme: str, claims: Sequence[Mapping[str, Any]]) -> str:
    """The README's text with its table replaced.

    Raises:
        ValueError: the markers are missing.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README needs one {BEGIN} and one {END}")
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n{claims_markdown(claims)}\n{END}{rest.partition(END)[2]}"


def update_readme(path: Path, claims: Sequence[Mapping[str, Any]]) -> None:
    """Rewrite the table in the README file."""
    write_durably(path, with_claims(path.read_text(encoding="utf-8"), claims))
