"""The sentences that every caption of a gallery may become, embedded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from matlib.attacks.prepared import PreparedSubstitution
from matlib.attacks.scoring import embed_in_order


class WordChoices:
    """Per caption a list of sentences: the caption itself, then what its edits make of it.

    At first one word is changed; `grow` adds sentences with one word more. A sentence that is
    once among them stays.

    Memory: one embedding per sentence.

    Attributes:
        features: float (R, D), the unit embeddings of all sentences, captions ascending.
        start: M + 1 row numbers; the sentences of caption m are rows start[m] to start[m + 1],
            and row start[m] is the caption unchanged.
    """

    def __init__(self, text: PreparedSubstitution) -> None:
        self._text = text
        edits, features = text.every_edit() if text.attack.n_words else ([], text.clean[:0])
        rows: list[list[int]] = [[] for _ in text.captions]
        for number, owner in enumerate(edits):
            rows[owner].append(number)
        m = len(text.captions)
        order = [row for i, own in enumerate(rows) for row in (i, *(m + n for n in own))]
        every = torch.cat([text.clean, features])
        self.features = every[torch.tensor(order, device=every.device)]
        # per sentence, the numbers of the edits that made it
        self._made: list[tuple[int, ...]] = [() if row < m else (row - m,) for row in order]
        self.start = _starts([1 + len(own) for own in rows])

    def __len__(self) -> int:
        return len(self._made)

    @property
    def n_words(self) -> int:
        """Words that the longest chain of edits changes."""
        return max(map(len, self._made), default=0)

    def sentences(self, choice: Tensor) -> list[str]:
        """The chosen sentence of every caption, from int64 (M,) rows."""
        return [self._sentence(i, self._made[row]) for i, row in enumerate(choice.tolist())]

    def rows_of(self, captions: Sequence[str]) -> Tensor:
        """int64 (M,): the row of each of M given sentences; -1 for one that is not there."""
        found = []
        for i, wanted in enumerate(captions):
            rows = range(self.start[i], self.start[i + 1])
            found.append(next((r for r in rows if self._sentence(i, self._made[r]) == wanted), -1))
        return torch.tensor(found)

    def grow(self, choice: Tensor) -> Tensor:
        """Add every sentence with one word more than the chosen ones.

        Args:
            choice: int64 (M,), the rows chosen now.

        Returns:
            int64 (M,): the same sentences by their new rows.
        """
        text, made = self._text, self._made
        new: list[list[tuple[int, ...]]] = []
        for i, row in enumerate(choice.tolist()):
            taken = {text.position(edit) for edit in made[row]}
            free = [p for p in text.positions(i) if p not in taken]
            added = [(*made[row], edit) for edit in text.edits_at(i, free)]
            known = {frozenset(each) for each in made[self.start[i] : self.start[i + 1]]}
            new.append([each for each in added if frozenset(each) not in known])
        features = self._embed([(i, each) for i, own in enumerate(new) for each in own])
        parts, chosen, done, old_start = [], [], 0, self.start
        self._made, first = [], 0
        for i, own in enumerate(new):
            a, b = old_start[i], old_start[i + 1]
            parts += [self.features[a:b], features[done : done + len(own)]]
            chosen.append(first + int(choice[i]) - a)
            self._made += [*made[a:b], *own]
            done, first = done + len(own), len(self._made)
        self.features = torch.cat(parts)
        self.start = _starts([old_start[i + 1] - old_start[i] + len(n) for i, n in enumerate(new)])
        return torch.tensor(chosen)

    def _sentence(self, caption: int, edits: tuple[int, ...]) -> str:
        sentence = self._text.captions[caption]
        for edit in edits:
            sentence = self._text.edited(edit, sentence)
        return sentence

    def _embed(self, wanted: list[tuple[int, tuple[int, ...]]]) -> Tensor:
        """(len(wanted), D) embeddings of captions with some edits."""
        text = self._text
        found = self.features.new_empty(len(wanted), self.features.shape[1])
        parts = embed_in_order(
            text.encoder,
            lambda row: self._sentence(*wanted[row]),
            [len(text.captions[i]) for i, _ in wanted],
            text.attack.chunk,
        )
        for rows, features in parts:
            found[rows.to(found.device)] = features
        text.n_embedded += len(wanted)
        return found


def _starts(counts: Sequence[int]) -> list[int]:
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts
