"""The best single edit of every caption, found where the embeddings lie: the host waits once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.attacks.objectives import TextObjective
from matlib.attacks.scoring import ROUNDING_UNITS, best_rows, first_above

MOST_EDITS = 2**14
"""Edits that are embedded at once on an accelerator, whichever word is tried first: more rows,
but no round of the host for each word. Source: ours; larger tables are searched word by word."""

CHUNKS_AT_ONCE = 8
"""Chunks of a text attack that are one forward on an accelerator: each costs one copy."""


@dataclass(frozen=True)
class OneWord:
    """All edits of all captions, embedded.

    Attributes:
        features: (E + M, D) unit embeddings: of the captions with one edit each, then unedited.
        owner: int64 (E + M,), the caption of each row.
        word: int64 (E,), the attackable word that each changes; words of a caption are numbered
            in a row, in their order.
        word_owner: int64 (W,), the caption of each word.
        tokens: int64 (E + M, T), of texts that need not be read to be embedded; else (0, 0).
    """

    features: Tensor
    owner: Tensor
    word: Tensor
    word_owner: Tensor
    tokens: Tensor

    @property
    def edited(self) -> Tensor:
        """(E, D) unit embeddings of the captions with one edit each."""
        return self.features[: len(self.word)]

    @property
    def clean(self) -> Tensor:
        """(M, D) unit embeddings of the captions."""
        return self.features[len(self.word) :]

    @classmethod
    def of(
        cls,
        embedded: Sequence[tuple[Tensor, Tensor]],
        owner: Tensor,
        word: Tensor,
        word_owner: Sequence[int],
        tokens: Tensor,
    ) -> OneWord:
        """From parts (numbers, embeddings): E edits by their numbers, then the captions.

        Args:
            owner: int64 (E,), like the other numbers on the CPU: they all travel in one copy.
        """
        order = torch.cat([numbers for numbers, _ in embedded]).argsort()  # (E + M,)
        owners = torch.cat([owner, torch.arange(len(order) - len(owner))])
        words = torch.tensor(word_owner, dtype=torch.long)
        parts = order, owners, word, words, tokens.flatten()
        features = torch.cat([features for _, features in embedded])  # (E + M, D)
        sent = torch.cat(parts).to(features.device).split([len(part) for part in parts])
        found, every, word, words, flat = sent
        return cls(features[found], every, word, words, flat.view(tokens.shape))

    def best(self, score: TextObjective, importance: Tensor | None = None) -> Tensor:
        """int64 (M,): the row that each caption becomes; its own where no edit beats it.

        Args:
            score: to ascend.
            importance: (W,): of the words with an edit that is better than none, the most
                important one is changed. By default the best edit of all words is taken.
        """
        n_edits, n_rows = len(self.word), len(self.features)
        sizes = [n_edits, n_rows - n_edits]
        rows, own = torch.arange(n_rows, device=self.word.device).split(sizes)  # (E,), (M,)
        scores = score(self.features, self.owner)  # (E + M,)
        values, before = scores.double().split(sizes)
        # as `scoring.is_better`; in double the sum of float32's numbers is exact
        margin = ROUNDING_UNITS * torch.finfo(scores.dtype).eps
        bar = before.add(before.abs().clamp_min(1), alpha=margin)  # (M,)
        if importance is None:
            return first_above(values, rows, self.owner[:n_edits], bar, own)
        none = torch.full_like(self.word_owner, n_rows)  # (W,)
        first = first_above(values, rows, self.word, bar[self.word_owner], none)
        weight = importance.masked_fill(first == n_rows, -torch.inf)  # (W,)
        taken = best_rows(weight, self.word_owner, len(own))  # (M,), numbers of words
        has_one = (taken >= 0) & (weight[taken] > -torch.inf)  # row -1 is never used
        return torch.where(has_one, first[taken], own)
