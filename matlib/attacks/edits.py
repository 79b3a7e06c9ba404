"""What a text attack may do to a caption: tables of allowed edits, and how they are applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matlib.attacks.marks import marks


class Edit(NamedTuple):
    """Token `position` of `caption.split(" ")` replaced by `replacement`, marks included."""

    position: int
    replacement: str


CandidateTable = Sequence[Sequence[Edit]]
"""The allowed edits of each caption, in the order of preference."""

MASK = "[UNK]"
"""What a word is replaced by to measure its importance: `[UNK]`, not `[MASK]`, as in
BERT-Attack's code; CLIP's tokenizer reads it as the literal string."""

_NON_JOINER, _JOINER = "\u200c", "\u200d"  # cannot be seen, but belong to words of some scripts


def apply_edit(caption: str, edit: Edit) -> str:
    """The caption with one token replaced."""
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


def n_attackable_words(caption: str, row: Sequence[Edit]) -> int:
    """Positions of a caption that some edit changes."""
    return len(by_position(caption, row))


def masked_token(token: str, replacements: Sequence[str]) -> str:
    """A token with its words masked; marks that all its replacements keep stay where they are."""
    before, after = marks(token)
    if all(new.startswith(before) and new.endswith(after) for new in replacements):
        return before + MASK + after
    return MASK


def check_replacement(word: Any, where: str, token: str = "") -> None:
    """Refuse what is not one word: positions would shift, or files could not hold it.

    Args:
        where: what it is, for the message.
        token: the caption's own token in its place; characters that it holds may stay.

    Raises:
        ValueError: not a string, empty, or with white space or characters that cannot be seen.
    """
    if not isinstance(word, str):
        raise ValueError(f"{where}: expected a word as a string; got {word!r:.60}")
    if word.isprintable() and word and " " not in word:
        return
    kept = {*token, _NON_JOINER, _JOINER}
    seen = "".join(c for c in word if c.isprintable() or c not in kept)
    if not seen or " " in seen or not seen.isprintable():
        raise ValueError(
            f"{where}: a replacement must be one word, so that positions stay: not empty, no "
            f"spaces, tabs, line breaks or other characters that cannot be seen; got {word!r:.60}"
        )


def check_table(captions: Sequence[str], candidates: CandidateTable) -> None:
    """Refuse a table that does not fit its captions.

    Raises:
        ValueError: not one list of edits per caption, an edit outside its caption, or a
            replacement that is not one word.
    """
    if isinstance(captions, str):
        raise ValueError("expected a list of captions; got one string")
    if len(captions) != len(candidates):
        raise ValueError(
            f"expected one list of edits per caption; got {len(candidates)} lists "
            f"for {len(captions)} captions"
        )
    for i, (caption, row) in enumerate(zip(captions, candidates, strict=True)):
        tokens = caption.split(" ")
        n = len(tokens)
        for position, replacement in row:
            if isinstance(position, bool) or not isinstance(position, int):
                raise ValueError(f"caption {i}: expected a position, a number; got {position!r}")
            if not 0 <= position < n:
                raise ValueError(
                    f"caption {i} has {n} words; {Edit(position, replacement)} lies outside it"
                )
            check_replacement(replacement, f"caption {i}, position {position}", tokens[position])
