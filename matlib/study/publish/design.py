"""What was fixed before the report, and what was looked at before that: as the files say it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from matlib.data.strict import read_yaml

DESIGN, HISTORY = "design.yaml", "history.yaml"
DESIGNS = (DESIGN, "replication.yaml", "replication-pairs.yaml")
"""Of the report, and of what asks again; each was frozen before its worlds were looked at."""


def design_of(published: Path, name: str = DESIGN) -> dict[str, Any]:
    """The design of the report, or of a replication.

    Args:
        published: folder with `DESIGNS`.
        name: which of them.
    """
    found: dict[str, Any] = read_yaml(published / name)
    return found


def design_markdown(published: Path, name: str = DESIGN) -> str:
    """A design with the hash of its file: the same hash, nothing changed since.

    Args:
        published, name: as of `design_of`.
    """
    path = published / name
    design, sha256 = design_of(published, name), hashlib.sha256(path.read_bytes()).hexdigest()
    status = {
        "draft": "a draft: nothing is frozen, and none of its worlds has been looked at",
        "frozen": "frozen before any of its worlds was looked at",
    }[design.pop("status")]
    lines = [f"`published/{name}`, sha256 `{sha256}`, {status}.", ""]
    return "\n".join([*lines, *_bullets(design)])


def _bullets(part: dict[str, Any], depth: int = 0) -> list[str]:
    lines = []
    for name, value in part.items():
        label = f"{'  ' * depth}- {str(name).replace('_', ' ')}:"
        if isinstance(value, dict):
            lines += [label, *_bullets(value, depth + 1)]
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{label} {text}")
    return lines


def history_markdown(published: Path) -> str:
    """Which worlds were looked at when, and what was changed after it, as a table.

    Args:
        published: folder with `history.yaml`.
    """
    lines = ["| world seeds | looked at | what | changed after it |", "|---|---|---|---|"]
    for each in read_yaml(published / HISTORY):
        worlds = ", ".join(map(str, each["worlds"]))
        lines.append(f"| {worlds} | {each['when']} | {each['what']} | {each['changed_after']} |")
    return "\n".join(lines)
