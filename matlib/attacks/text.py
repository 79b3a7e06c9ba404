"""Word substitution (after BERT-Attack, Li et al. 2020), batched over captions.

A *threat* is a table of allowed edits per caption. What may replace what is decided
before the attack (masked language model, typos, truth check); the attack only searches.
So the same search serves every threat, and tables are made once and shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from matlib.attacks.objectives import TextObjective, kl_from
from matlib.models.dual_encoder import DualEncoder, frozen


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


def embed_texts(encoder: DualEncoder, texts: Sequence[str], chunk: int = 512) -> Tensor:
    """(len(texts), D) unit embeddings without gradients, `chunk` rows at a time."""
    with torch.no_grad(), frozen(encoder):
        parts = [
            encoder.encode_text(list(texts[i : i + chunk])) for i in range(0, len(texts), chunk)
        ]
    return torch.cat(parts)


@dataclass(frozen=True)
class WordSubstitution:
    """Greedy substitution of at most `n_words` words.

    Words are tried in descending importance (KL between the embeddings of the caption and
    of the caption with the word masked); at each word the edit with the highest objective
    is taken, the unchanged caption competing as well; the search goes on to the next word
    until `n_words` are changed. Words without candidates (stop words) are never masked:
    they could not be changed anyway, and they are 43-46 % of the words of real captions.

    Attributes:
        n_words: words that may change.
        search: `importance` as in BERT-Attack, or `exhaustive`: every allowed edit of every
            word is scored and the best taken (stronger, costs one row per edit).
        chunk: rows per text-encoder forward; bounds memory.
    """

    n_words: int = 1
    search: Literal["importance", "exhaustive"] = "importance"
    chunk: int = 512

    def __call__(
        self,
        encoder: DualEncoder,
        captions: Sequence[str],
        candidates: CandidateTable,
        objective: TextObjective | None = None,
    ) -> list[str]:
        """Adversarial captions; a caption without candidates comes back unchanged.

        Args:
            encoder: the attacked model, untouched afterwards.
            captions: M captions.
            candidates: M lists of allowed edits.
            objective: score to ascend; KL from the clean captions by default.

        Raises:
            ValueError: not one list of edits per caption, or an edit outside its caption.
        """
        _check_table(captions, candidates)
        if self.n_words == 0 or not any(candidates):
            return list(captions)
        score = objective or kl_from(embed_texts(encoder, captions, self.chunk))
        if self.search == "exhaustive":
            queues = [[[p for p, _ in _by_position(row)]] if row else [] for row in candidates]
        else:
            queues = self._by_importance(encoder, captions, candidates)
        return self._climb(encoder, list(captions), candidates, queues, score)

    def _by_importance(
        self, encoder: DualEncoder, captions: Sequence[str], candidates: CandidateTable
    ) -> list[list[list[int]]]:
        """Per caption the attackable positions, most important first."""
        owner, masked, where = [], [], []
        for i, row in enumerate(candidates):
            for position, _ in _by_position(row):
                owner.append(i)
                where.append(position)
                masked.append(apply_edit(captions[i], Edit(position, MASK)))
        clean = embed_texts(encoder, captions, self.chunk)
        importance = kl_from(clean)(
            embed_texts(encoder, masked, self.chunk), torch.tensor(owner, device=clean.device)
        ).tolist()
        found: list[list[tuple[float, int]]] = [[] for _ in captions]
        for i, position, value in zip(owner, where, importance, strict=True):
            found[i].append((-value, position))
        return [[[position] for _, position in sorted(row)] for row in found]

    def _climb(
        self,
        encoder: DualEncoder,
        current: list[str],
        candidates: CandidateTable,
        queues: list[list[list[int]]],
        score: TextObjective,
    ) -> list[str]:
        """Rounds over all unfinished captions at once; one round = one group of positions."""
        tables = [dict(_by_position(row)) for row in candidates]
        changed = [0] * len(current)
        edited: list[set[int]] = [set() for _ in current]
        active = [i for i, queue in enumerate(queues) if queue]
        if self.search == "exhaustive":  # the same group again for every further word
            queues = [queue * self.n_words for queue in queues]
        while active:
            owner, texts, at = [], [], []
            for i in active:
                group = [p for p in queues[i].pop(0) if p not in edited[i]]
                options = [Edit(p, word) for p in group for word in tables[i][p]]
                texts += [current[i], *(apply_edit(current[i], edit) for edit in options)]
                at += [-1, *(edit.position for edit in options)]
                owner += [i] * (1 + len(options))
            features = embed_texts(encoder, texts, self.chunk)
            values = score(features, torch.tensor(owner, device=features.device)).tolist()
            for i, row in _best_rows(owner, values).items():
                if at[row] >= 0:
                    current[i] = texts[row]
                    edited[i].add(at[row])
                    changed[i] += 1
            active = [i for i in active if queues[i] and changed[i] < self.n_words]
        return current


def _by_position(row: Sequence[Edit]) -> list[tuple[int, list[str]]]:
    grouped: dict[int, list[str]] = {}
    for position, replacement in row:
        grouped.setdefault(position, []).append(replacement)
    return sorted(grouped.items())


def _best_rows(owner: list[int], values: list[float]) -> dict[int, int]:
    """Row of the highest value per owner; the first row (unchanged caption) wins ties."""
    best: dict[int, int] = {}
    for row, (i, value) in enumerate(zip(owner, values, strict=True)):
        if i not in best or value > values[best[i]]:
            best[i] = row
    return best


def _check_table(captions: Sequence[str], candidates: CandidateTable) -> None:
    if len(captions) != len(candidates):
        raise ValueError(
            f"expected one list of edits per caption; got {len(candidates)} lists "
            f"for {len(captions)} captions"
        )
    for i, (caption, row) in enumerate(zip(captions, candidates, strict=True)):
        n = len(caption.split(" "))
        outside = [edit for edit in row if not 0 <= edit.position < n]
        if outside:
            raise ValueError(f"caption {i} has {n} words; {outside[0]} lies outside it")
