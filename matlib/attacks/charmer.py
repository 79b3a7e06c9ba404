"""Charmer's character search (Abad Rocamora et al. 2024, arXiv 2405.04346), batched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from matlib.attacks.budgets import check_count
from matlib.attacks.characters import check_symbols
from matlib.attacks.objectives import TextObjective
from matlib.attacks.slots import (
    PRINTABLE,
    SlotSearch,
    as_clip_reads,
    blocks,
    first_best,
    n_slots,
    probed,
    put,
)
from matlib.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class Charmer:
    """At most `n_edits` Levenshtein edits, each the best of all symbols at the best slots.

    Every slot is probed with a space (with the deletion where a space is), the `n_slots` slots
    with the highest objective are kept, and all symbols are tried there: stronger than
    `CharacterEdits` and some 20 times as many sentences. Every candidate is scored; the code
    released with LEAF stops its loop over chunks one candidate short and never sees the last.

    Attributes:
        n_edits: edits, one after the other (Charmer's k). The released code stops at success;
            here success is not known before retrieval, and all edits are used.
        n_slots: slots kept (Charmer's n; LEAF evaluates with 20).
        symbols: what may be put into a slot.
        fold: sentences equal after it are embedded once; see `CharacterEdits`.
        chunk: rows per text-encoder forward; bounds memory.
    """

    n_edits: int = 1
    n_slots: int = 20
    symbols: tuple[str, ...] = PRINTABLE
    fold: Callable[[str], str] = as_clip_reads
    chunk: int = 512

    def __post_init__(self) -> None:
        check_count("n_edits", self.n_edits)
        check_count("n_slots", self.n_slots, 1)
        check_count("chunk", self.chunk, 1)
        check_symbols(self.symbols)

    def __call__(
        self,
        encoder: DualEncoder,
        captions: Sequence[str],
        objective: TextObjective | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> list[str]:
        """Captions at Levenshtein distance at most `n_edits`.

        Args:
            encoder: the attacked model, untouched afterwards.
            captions: M captions.
            objective: score to ascend; squared distance from the clean embedding by default.
            generator: not drawn from, the search is exhaustive; here so that the character
                attacks are called alike.
        """
        attacked = list(captions)
        if self.n_edits == 0:
            return attacked
        per_caption = self.n_slots * len(self.symbols)
        for search in blocks(
            encoder, captions, objective, per_caption=per_caption, chunk=self.chunk, fold=self.fold
        ):
            for _ in range(self.n_edits):
                self._edit(search)
            for i, text in zip(search.rows, search.current, strict=True):
                attacked[i] = text
        return attacked

    def _edit(self, search: SlotSearch) -> None:
        """One edit of every caption of a block."""
        tests = [[probed(text, slot) for slot in range(n_slots(text))] for text in search.current]
        options = []
        for text, values in zip(search.current, search.values(tests), strict=True):
            # sorted() is stable: of equal slots the first ones are kept
            slots = sorted(range(len(values)), key=lambda s, v=values: -v[s])[: self.n_slots]  # type: ignore[misc]
            options.append([put(text, slot, symbol) for slot in slots for symbol in self.symbols])
        for n, values in enumerate(search.values(options)):
            at = first_best(values, search.dtype)
            search.move(n, options[n][at], values[at])
