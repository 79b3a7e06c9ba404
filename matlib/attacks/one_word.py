"""The best single edit of every caption, found where the embeddings lie: the host waits once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.attacks.objectives import TextObjective
from matlib.attacks.scoring import ROUNDING_UNITS, best_rows

MOST_EDITS = 2**14
"""Edits that are embedded at once on an accelerator, whichever word is tried first: more rows,
but no round of the host for each word. Source: ours; larger tables are searched word by word."""

CHUNKS_AT_ONCE = 8
"""Chunks of a text attack that are one forward on an accelerator: each costs one copy."""


@dataclass(frozen=True)
class OneWord:
    """All edits of all captions, embedded.

    Attributes:
        clean: (M, D) unit embeddings of the captions.
        edited: (E, D), of the captions with one edit each.
        owner: int64 (E,), the caption of each edit.
        word: int64 (E,), the attackable word that each changes; words of a caption are numbered
            in a row, in their order.
        word_owner: int64 (W,), the caption of each word.
    """

    clean: Tensor
    edited: Tensor
    owner: Tensor
    word: Tensor
    word_owner: Tensor

    @classmethod
    def of(
        cls,
        embedded: Sequence[tuple[Tensor, Tensor]],
        owner: Tensor,
        word: Tensor,
        word_owner: Sequence[int],
    ) -> OneWord:
        """From parts (numbers, embeddings): E edits by their numbers, then the captions.

        Args:
            owner, word, word_owner: on the CPU; all numbers travel in one copy.
        """
        order = torch.cat([numbers for numbers, _ in embedded]).argsort()
        parts = order, owner, word, torch.tensor(word_owner, dtype=torch.long)
        features = torch.cat([features for _, features in embedded])  # (E + M, D)
        sent = torch.cat(parts).to(features.device).split([len(part) for part in parts])
        found = features[sent[0]]
        return cls(found[len(owner) :], found[: len(owner)], *sent[1:])

    def best(self, score: TextObjective, importance: Tensor | None = None) -> Tensor:
        """int64 (M,): the edit that is taken for each caption; -1 where none beats its clean self.

        Args:
            score: to ascend.
            importance: (W,): of the words with an edit that is better than none, the most
                important one is changed. By default the best edit of all words is taken.
        """
        device, n_captions = self.clean.device, len(self.clean)
        every = torch.arange(n_captions, device=device)
        before = score(self.clean, every)  # (M,)
        values = score(self.edited, self.owner)  # (E,)
        if importance is None:
            first = best_rows(values, self.owner, n_captions)  # (M,)
            better = _beats(values, first, before)
            return first.masked_fill(~better, -1)
        first = best_rows(values, self.word, len(self.word_owner))  # (W,)
        better = _beats(values, first, before[self.word_owner])
        weight = importance.masked_fill(~better, -torch.inf)  # (W,)
        taken = best_rows(weight, self.word_owner, n_captions)  # (M,), numbers of words
        has_one = (taken >= 0) & (weight[taken] > -torch.inf)  # row -1 is never used
        return first[taken].masked_fill(~has_one, -1)

    def taken(self, chosen: Tensor) -> Tensor:
        """(M, D) embeddings of the captions after the edits that `best` chose."""
        return torch.where(chosen[:, None] < 0, self.clean, self.edited[chosen])


def _beats(values: Tensor, rows: Tensor, before: Tensor) -> Tensor:
    """bool: `scoring.is_better` for the values in some rows; False for row -1."""
    margin = ROUNDING_UNITS * torch.finfo(values.dtype).eps
    old = before.double()
    return (rows >= 0) & (values[rows].double() - old > margin * old.abs().clamp_min(1))
