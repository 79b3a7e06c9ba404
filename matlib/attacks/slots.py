"""Character edits by slot: the sentences at Levenshtein distance one, and their values.

A sentence S has 2|S| + 1 slots: slot 2i is the gap before character i, slot 2i + 1 is
character i. A symbol put into a gap is an insertion, into a character a substitution, and the
empty symbol deletes (Charmer, Abad Rocamora et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from matlib.attacks.objectives import TextObjective, squared_distance_from
from matlib.attacks.scoring import embed_texts, is_better, score_texts
from matlib.models.dual_encoder import DualEncoder

DELETE = ""
TEST = " "

PRINTABLE: tuple[str, ...] = (*(chr(code) for code in range(32, 127)), DELETE)
"""LEAF's 96 symbols: printable ASCII and the deletion."""

_CHUNKS_PER_BLOCK = 32


def n_slots(text: str) -> int:
    return 2 * len(text) + 1


def put(text: str, slot: int, symbol: str) -> str:
    """The sentence with a symbol in a slot, at Levenshtein distance at most one."""
    at, is_character = divmod(slot, 2)
    return text[:at] + symbol + text[at + is_character :]


def probed(text: str, slot: int) -> str:
    """The sentence that tells how much a slot matters: a space in it.

    Where a space is already, putting one there tests nothing; it is deleted instead (as
    Charmer's code does).
    """
    at, is_character = divmod(slot, 2)
    return put(text, slot, DELETE if is_character and text[at] == TEST else TEST)


def as_clip_reads(text: str) -> str:
    """Lower case, runs of white space as one: what CLIP's tokenizer cannot tell apart is equal."""
    return " ".join(text.lower().split())


class SlotSearch:
    """A block of captions under search: each as it is now, and its value.

    Attributes:
        rows: the captions' places in the whole list, for the objective.
        current: the captions as they are now.
        value: the objective's value of each.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        rows: Sequence[int],
        captions: Sequence[str],
        clean: Tensor,
        score: TextObjective,
        chunk: int,
        fold: Callable[[str], str],
    ) -> None:
        self.encoder, self.rows, self.current = encoder, list(rows), list(captions)
        self.score, self.chunk, self.fold = score, chunk, fold
        owner = torch.tensor(self.rows, device=clean.device)
        values = score(clean[owner], owner)
        self.dtype = values.dtype
        self.value: list[float] = values.tolist()

    def values(self, candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """Values of each caption's candidates; those that read alike are embedded once."""
        texts: list[str] = []
        owner: list[int] = []
        lengths: list[int] = []
        places: list[dict[str, int]] = []  # per caption: reading -> place among `texts`
        readings = [[self.fold(text) for text in own] for own in candidates]
        for n, (own, folded) in enumerate(zip(candidates, readings, strict=True)):
            place = {self.fold(self.current[n]): -1}
            for text, reading in zip(own, folded, strict=True):
                if reading not in place:
                    place[reading] = len(texts)
                    texts.append(text)
                    owner.append(self.rows[n])
                    lengths.append(len(self.current[n]))
            places.append(place)
        found = score_texts(self.encoder, texts, owner, lengths, self.score, self.chunk).tolist()
        return [
            [found[place[r]] if place[r] >= 0 else self.value[n] for r in folded]
            for n, (folded, place) in enumerate(zip(readings, places, strict=True))
        ]

    def move(self, n: int, text: str, value: float, *, always: bool = False) -> None:
        """Caption `n` becomes `text` if that beats it as it is (or `always`)."""
        if always or is_better(value, self.value[n], self.dtype):
            self.current[n], self.value[n] = text, value


def first_best(values: Sequence[float], dtype: torch.dtype) -> int:
    """Index of the highest value, the first of those that are equal but for rounding."""
    best = max(values)
    return next(i for i, value in enumerate(values) if not is_better(best, value, dtype))


def blocks(
    encoder: DualEncoder,
    captions: Sequence[str],
    objective: TextObjective | None,
    *,
    per_caption: int,
    chunk: int,
    fold: Callable[[str], str],
) -> Iterator[SlotSearch]:
    """The captions in blocks, short ones first; a block makes some 32 chunks of sentences.

    So memory is bounded by the chunk (embeddings) and by 32 chunks of strings, not by the
    number of captions, but for one clean embedding each.

    Args:
        objective: squared distance from the clean embedding by default.
        per_caption: sentences one step makes of a caption.
    """
    if isinstance(captions, str):
        raise ValueError("expected a list of captions; got one string")
    if not captions:
        return
    clean = embed_texts(encoder, captions, chunk)
    score = objective or squared_distance_from(clean)
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    size = max(1, _CHUNKS_PER_BLOCK * chunk // per_caption)
    for at in range(0, len(order), size):
        rows = order[at : at + size]
        yield SlotSearch(encoder, rows, [captions[i] for i in rows], clean, score, chunk, fold)
