"""What was fixed before the report, and what was looked at before that: as the files say it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from matlib.data.strict import read_yaml

DESIGN, HISTORY = "design.yaml", "history.yaml"


def design_of(published: Path) -> dict[str, Any]:
    """The design of the report.

    Args:
        published: folder with `design.yaml`.
    """
    found: dict[str, Any] = read_yaml(published / DESIGN)
    return found


def design_markdown(published: Path) -> str:
    """The design with the hash of its file: the same hash, nothing changed since.

    Args:
        published: folder with `design.yaml`.
    """
    path = published / DESIGN
    design, sha256 = design_of(published), hashlib.sha256(path.read_bytes()).hexdigest()
    status = {
        "draft": "a draft: nothing is frozen, and nothing of the report has been looked at",
        "frozen": "frozen before any of the report's worlds was looked at",
    }[design.pop("status")]
    lines = [f"`published/{DESIGN}`, sha256 `{sha256}`, {status}.", ""]
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
