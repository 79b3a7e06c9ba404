"""Parts of the smoke profile that a test can leave out."""

from __future__ import annotations

from typing import Any

NO_PAIRS: dict[str, Any] = {
    "inside": (), "techniques": (), "sweeps": (), "intervention": None, "other_tasks": None,
}  # fmt: skip
"""Without variations of a defence, the studies of pairs, captioning and grounding."""
