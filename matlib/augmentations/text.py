"""Text augmentations by rules: from each 1:1 pair, further captions for the same image.

EDA's four operations (Wei & Zou 2019), words dropped and swapped, and as controls misspelt
words, which add no fact and no word order, and captions of other images.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from string import ascii_lowercase

import torch

from matlib.attacks.attackable import in_place, marks
from matlib.data.pairs import ImageTextPairs, OneToMany


def drop_and_swap(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    *,
    drop_rate: float = 0.1,
    swap_rate: float = 0.1,
) -> OneToMany:
    """Captions with words swapped and words dropped at random.

    Two of the four operations of EDA (Wei & Zou 2019, *EDA: Easy Data Augmentation Techniques
    for Boosting Performance on Text Classification Tasks*): its random swap, then its random
    deletion. EDA applies one operation to each variant (source: paper); here both apply to
    each variant (source: ours), so that one rate is one strength. Its rates of 0.1 are kept.

    A caption never becomes empty: if every word would be dropped, one at random stays.
    Captions of fewer than two words come back as they are. Runs of spaces become one.

    Args:
        pairs: N images with one caption each.
        n_variants: captions added to each original, 0 or more.
        generator: CPU generator; same generator, same captions.
        drop_rate: probability in [0, 1] that a word is dropped.
        swap_rate: swaps of two random words, as a share in [0, 1] of the caption's words;
            rounded down, but any positive rate swaps at least once (as EDA does).

    Raises:
        ValueError: more than one caption per image, or a parameter outside its range.
    """
    originals = originals_of(pairs, n_variants)
    for name, rate in (("drop_rate", drop_rate), ("swap_rate", swap_rate)):
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"{name} is a share in [0, 1]; got {rate}")
    captions = tuple(
        (own, *(_vary(own, drop_rate, swap_rate, generator) for _ in range(n_variants)))
        for (own,) in originals.captions
    )
    return replace(originals, technique="drop-swap", captions=captions)


def mismatched(pairs: ImageTextPairs, n_variants: int, generator: torch.Generator) -> OneToMany:
    """Captions of other images: diverse, in distribution, and wrong. The bad example.

    Each variant is one random derangement of the captions, so no image gets its own and each
    caption is used `n_variants` times. A caption of another image can still be true by chance
    (or be the same sentence); the true aligned fraction shows how often.

    Args:
        pairs: N >= 2 images with one caption each.
        n_variants: captions added to each original, 0 or more.
        generator: CPU generator; same generator, same captions.

    Raises:
        ValueError: fewer than two images, or more than one caption per image.
    """
    originals = originals_of(pairs, n_variants)
    columns = [derangement(len(originals), generator).tolist() for _ in range(n_variants)]
    captions = tuple(
        (own, *(originals.captions[column[i]][0] for column in columns))
        for i, (own,) in enumerate(originals.captions)
    )
    return replace(originals, technique="mismatched", captions=captions)


def derangement(n: int, generator: torch.Generator) -> torch.Tensor:
    """int64 (n,): a permutation without fixed point, uniform over all of them.

    Raises:
        ValueError: n < 2, for which there is none.
    """
    if n < 2:
        raise ValueError(f"a derangement needs at least two items; got {n}")
    home = torch.arange(n)
    while True:  # one permutation in e (2.7) has no fixed point, whatever n
        order = torch.randperm(n, generator=generator)
        if not bool((order == home).any()):
            return order


def _vary(caption: str, drop_rate: float, swap_rate: float, generator: torch.Generator) -> str:
    words = caption.split()
    if len(words) < 2:
        return caption
    n_swaps = max(1, int(swap_rate * len(words))) if swap_rate > 0 else 0
    for _ in range(n_swaps):
        i, j = torch.randperm(len(words), generator=generator)[:2].tolist()
        words[i], words[j] = words[j], words[i]
    keep = torch.rand(len(words), generator=generator) >= drop_rate
    if not bool(keep.any()):
        keep[int(torch.randint(len(words), (1,), generator=generator))] = True
    return " ".join(word for word, is_kept in zip(words, keep.tolist(), strict=True) if is_kept)


def originals_of(pairs: ImageTextPairs, n_variants: int) -> OneToMany:
    """The 1:1 pairs that captions are added to, checked.

    Raises:
        ValueError: a negative number of variants, or more than one caption per image.
    """
    if n_variants < 0:
        raise ValueError(f"n_variants must be 0 or more; got {n_variants}")
    if pairs.n_captions != len(pairs):
        raise ValueError(
            f"expected one caption per image, got {pairs.n_captions} for {len(pairs)}; "
            "call pairs.one_to_one(generator) first"
        )
    return OneToMany.from_pairs(pairs)


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


def character_noise(
    pairs: ImageTextPairs, n_variants: int, generator: torch.Generator, *, rate: float = 0.1
) -> OneToMany:
    """Captions in which some words have one edited letter.

    One of four edits of a random letter: substituted, deleted, doubled by an inserted letter,
    or exchanged with the next. Any positive rate edits at least one word (source: ours).

    Args:
        pairs: N images with one caption each.
        n_variants: captions added to each original, 0 or more.
        generator: CPU generator; same generator, same captions.
        rate: share in [0, 1] of the words that are edited.

    Raises:
        ValueError: more than one caption per image, or a parameter outside its range.
    """
    originals = originals_of(pairs, n_variants)
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate is a share in [0, 1]; got {rate}")
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    captions = tuple(
        (own, *(_misspelt(own, rate, rng) for _ in range(n_variants)))
        for (own,) in originals.captions
    )
    return replace(originals, technique="characters", captions=captions)


def _misspelt(caption: str, rate: float, rng: random.Random) -> str:
    words = caption.split()
    long = [i for i, word in enumerate(words) if len(word) > 1]
    if rate == 0 or not long:
        return caption
    for i in rng.sample(long, min(len(long), max(1, round(rate * len(words))))):
        words[i] = _edited(words[i], rng)
    return " ".join(words)


def _edited(word: str, rng: random.Random) -> str:
    """The word with one edit that changes it."""
    at, kind = rng.randrange(len(word)), rng.randrange(4)
    if kind == 0:
        other = rng.choice([c for c in ascii_lowercase if c != word[at].lower()])
        return word[:at] + other + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    neighbours = [i for i in range(len(word) - 1) if word[i] != word[i + 1]]
    if kind == 2 or not neighbours:
        return word[:at] + rng.choice(ascii_lowercase) + word[at:]
    i = rng.choice(neighbours)
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
