"""What a text attack may do to a caption: tables of allowed edits, and how they are applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Edit(NamedTuple):
    """Word `position` of `caption.split(" ")` replaced by `replacement`."""

    position: int
    replacement: str


CandidateTable = Sequence[Sequence[Edit]]
"""The allowed edits of each caption, in the order of preference."""

MASK = "[UNK]"
"""What a word is replaced by to measure its importance: `[UNK]`, not `[MASK]`, as in
BERT-Attack's code; CLIP's tokenizer reads it as the literal string."""


def apply_edit(caption: str, edit: Edit) -> str:
    """The caption with one word replaced."""
    words = caption.split(" ")
    words[edit.position] = edit.replacement
    return " ".join(words)


def n_changed_words(before: str, after: str) -> int:
    """Number of word positions that differ; captions of different length differ in all."""
    a, b = before.split(" "), after.split(" ")
    if len(a) != len(b):
        return max(len(a), len(b))
    return sum(x != y for x, y in zip(a, b, strict=True))


def by_position(caption: str, row: Sequence[Edit]) -> dict[int, list[str]]:
    """Replacements per position, positions ascending, the row's order kept within each.

    Repeated edits and edits that change nothing are left out: the unchanged caption competes
    in every search anyway, and of equal rows the first would win.
    """
    words = caption.split(" ")
    grouped: dict[int, dict[str, None]] = {}
    for position, replacement in row:
        if replacement != words[position]:
            grouped.setdefault(position, {})[replacement] = None
    return {position: list(grouped[position]) for position in sorted(grouped)}


def check_table(captions: Sequence[str], candidates: CandidateTable) -> None:
    """Refuse a table that does not fit its captions.

    Raises:
        ValueError: not one list of edits per caption, or an edit outside its caption.
    """
    if isinstance(captions, str):
        raise ValueError("expected a list of captions; got one string")
    if len(captions) != len(candidates):
        raise ValueError(
            f"expected one list of edits per caption; got {len(candidates)} lists "
            f"for {len(captions)} captions"
        )
    for i, (caption, row) in enumerate(zip(captions, candidates, strict=True)):
        n = caption.count(" ") + 1
        outside = [edit for edit in row if not 0 <= edit[0] < n]
        if outside:
            raise ValueError(f"caption {i} has {n} words; {outside[0]} lies outside it")
