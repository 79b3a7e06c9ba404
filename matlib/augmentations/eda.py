"""EDA: four easy operations on the words of a caption (Wei & Zou 2019)."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch

from matlib.attacks.marks import in_place, marks
from matlib.augmentations.text import originals_of
from matlib.data.pairs import ImageTextPairs, OneToMany

Synonyms = Callable[[str], Sequence[str]]
"""Word -> other words for the same thing; empty where there are none."""


def eda(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    *,
    synonyms: Synonyms,
    rate: float = 0.1,
    stop_words: Collection[str] = (),
) -> OneToMany:
    """Captions after one of EDA's operations each, drawn at random.

    *EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification
    Tasks* (Wei & Zou 2019): synonym replacement, random insertion of a synonym, random swap,
    random deletion. n = rate x words are replaced, inserted or swapped, at least one (source:
    paper); a word is deleted with probability `rate`, and a caption never becomes empty. Where
    no word has a synonym, the two operations that need one swap instead (source: ours), so
    that every variant costs one operation.

    Args:
        pairs: N images with one caption each.
        n_variants: captions added to each original, 0 or more.
        generator: CPU generator; same generator, same captions.
        synonyms: of a word, from any thesaurus.
        rate: EDA's alpha, a share in [0, 1]; 0 gives copies.
        stop_words: words that are neither replaced nor explained by an inserted synonym.

    Raises:
        ValueError: more than one caption per image, or a parameter outside its range.
    """
    originals = originals_of(pairs, n_variants)
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate is a share in [0, 1]; got {rate}")
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    edit = _Edit(synonyms, rate, frozenset(stop_words), rng)
    captions = tuple(
        (own, *(edit(own) for _ in range(n_variants))) for (own,) in originals.captions
    )
    return replace(originals, technique="eda", captions=captions)


class _Edit:
    """One random operation on a caption."""

    def __init__(
        self, synonyms: Synonyms, rate: float, stop_words: frozenset[str], rng: random.Random
    ) -> None:
        self._synonyms, self._rate, self._stop, self._rng = synonyms, rate, stop_words, rng

    def __call__(self, caption: str) -> str:
        words = caption.split()
        if self._rate == 0 or len(words) < 2:
            return caption
        n = max(1, int(self._rate * len(words)))
        operation = self._rng.choice((self._replace, self._insert, self._swap, self._delete))
        return " ".join(operation(words, n))

    def _listed(self, token: str) -> list[str]:
        """Synonyms of a token without the marks around it; none of a stop word."""
        before, after = marks(token)
        word = token[len(before) : len(token) - len(after)]
        return [] if word.lower() in self._stop else list(self._synonyms(word))

    def _known(self, words: list[str]) -> list[int]:
        """Positions of the words that have synonyms."""
        return [i for i, word in enumerate(words) if self._listed(word)]

    def _replace(self, words: list[str], n: int) -> list[str]:
        known = self._known(words)
        if not known:
            return self._swap(words, n)
        for i in self._rng.sample(known, min(n, len(known))):
            words[i] = in_place(words[i], self._rng.choice(self._listed(words[i])))
        return words

    def _insert(self, words: list[str], n: int) -> list[str]:
        known = self._known(words)
        if not known:
            return self._swap(words, n)
        found = [self._rng.choice(self._listed(words[self._rng.choice(known)])) for _ in range(n)]
        for word in found:
            words.insert(self._rng.randint(0, len(words)), word)
        return words

    def _swap(self, words: list[str], n: int) -> list[str]:
        for _ in range(n):
            i, j = self._rng.sample(range(len(words)), 2)
            words[i], words[j] = words[j], words[i]
        return words

    def _delete(self, words: list[str], n: int) -> list[str]:
        kept = [word for word in words if self._rng.random() >= self._rate]
        return kept or [self._rng.choice(words)]
