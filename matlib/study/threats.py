"""Candidate tables: what each text threat may replace, made once and shared by all attacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from matlib.attacks.candidates import Table, free_edits
from matlib.attacks.text import Edit, apply_edit
from matlib.models.masked_lm import MaskedLM


def true_edits(
    captions: Sequence[str],
    words: list[list[list[str]]],
    stop_words: frozenset[str],
    is_valid: Callable[[int, str], bool],
    k: int,
) -> Table:
    """Threat `bert_true`: of the masked LM's first `k` words, those that keep the truth."""
    free = free_edits(captions, words, stop_words, k)
    return [
        [edit for edit in row if is_valid(i, apply_edit(captions[i], edit))]
        for i, row in enumerate(free)
    ]


def typo_table(
    captions: Sequence[str],
    per_word: int,
    seed: int,
    typos: Callable[[str, int, int], list[tuple[int, str]]],
) -> Table:
    """Threat `typo`: one-letter edits of content words that never form another word.

    Args:
        typos: (caption, seed, edits per word) -> edits, from `Source.typos`.
    """
    return [
        [Edit(*edit) for edit in typos(caption, seed * 1_000_003 + i, per_word)]
        for i, caption in enumerate(captions)
    ]


class Sizes(Protocol):
    """How large the tables are (`matlib.config.Candidates`)."""

    @property
    def k_free(self) -> int: ...
    @property
    def k_true(self) -> int: ...
    @property
    def typos_per_word(self) -> int: ...


def make_tables(
    captions: Sequence[str],
    threats: Sequence[str],
    masked_lm: MaskedLM,
    sizes: Sizes,
    *,
    stop_words: frozenset[str],
    typos: Callable[[str, int, int], list[tuple[int, str]]],
    seed: int,
    is_valid: Callable[[int, str], bool] | None,
    conventions: Literal["matlib", "released"] = "matlib",
) -> dict[str, Table]:
    """One table per threat.

    Args:
        typos: (caption, seed, edits per word) -> edits, from `Source.typos`.
        is_valid: (caption index, edited caption) -> the edit keeps the truth.
        conventions: `released`: candidates as in the field's code, one token beside the word.

    Raises:
        ValueError: `bert_true` without a truth check.
    """
    tables: dict[str, Table] = {}
    k = max(sizes.k_true if "bert_true" in threats else 1, sizes.k_free)
    words: list[list[list[str]]] = []
    if any(threat != "typo" for threat in threats) and conventions == "released":
        words = masked_lm.candidates(
            captions, k, alignment="as_released", multi_token="as_released", k_counts="predicted"
        )
    elif any(threat != "typo" for threat in threats):
        words = masked_lm.candidates(captions, k)
    for threat in threats:
        if threat == "typo":
            tables[threat] = typo_table(captions, sizes.typos_per_word, seed, typos)
        elif threat == "bert_free":
            tables[threat] = free_edits(captions, words, stop_words, sizes.k_free)
        elif is_valid is None:
            raise ValueError("threat bert_true needs the truth, which only scenes has")
        else:
            tables[threat] = true_edits(captions, words, stop_words, is_valid, sizes.k_true)
    return tables


def save_tables(tables: dict[str, Table], path: Path) -> None:
    """JSON: threat -> caption -> [position, replacement]."""
    path.write_text(json.dumps(tables, ensure_ascii=False))


def load_tables(path: Path) -> dict[str, Table]:
    """What `save_tables` wrote."""
    raw = json.loads(path.read_text())
    return {
        threat: [[Edit(position, word) for position, word in row] for row in table]
        for threat, table in raw.items()
    }
