"""Character noise: captions with misspelt words, a control that adds no fact and no word order."""

from __future__ import annotations

import random
from dataclasses import replace
from string import ascii_lowercase

import torch

from matlib.augmentations.text import originals_of
from matlib.data.pairs import ImageTextPairs, OneToMany


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
