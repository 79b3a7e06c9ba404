"""What every source of pairs offers, and the techniques that any pairs allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from matlib.attacks.typos import RULES
from matlib.augmentations.basic import augmix, crop_flip_jitter
from matlib.augmentations.characters import character_noise
from matlib.augmentations.eda import Synonyms, eda
from matlib.augmentations.image import randaugment
from matlib.augmentations.similar import similar_images
from matlib.augmentations.text import drop_and_swap, mismatched
from matlib.config import STRENGTHS, Run
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.data.scenes.typos import HELD_OUT_RULE


class Source(Protocol):
    """Pairs by split, and what can be made of them."""

    name: str
    stop_words: frozenset[str]
    held_out_words: frozenset[str]

    def identity(self) -> dict[str, Any]:
        """What the data depend on, for the hash of everything made from them."""
        ...

    def pairs(self, split: str) -> ImageTextPairs:
        """`train` (1:1), `val` or `test` (all captions)."""
        ...

    def base(self) -> OneToMany:
        """Pairs for pre-training."""
        ...

    def corpus(self, n_captions: int) -> list[str]:
        """Captions that the masked language model learns from."""
        ...

    def variants(self, run: Run, n: int, seed: int) -> OneToMany:
        """The training pairs with the variants of a row's technique, `n` per pair at most.

        Only what the data themselves allow: techniques that need a generating model are made
        by `matlib.study.generators`.
        """
        ...

    def synonyms(self, word: str) -> Sequence[str]:
        """Other words for the same thing, for EDA."""
        ...

    def typos(
        self, caption: str, seed: int, n_per_word: int, held_out: bool = False
    ) -> list[tuple[int, str]]:
        """One-letter edits of content words that never form another word of the data.

        Args:
            held_out: by the rule that no defence trains on, or by all others.
        """
        ...

    def truth(self) -> Callable[[int, str], float] | None:
        """(training image, caption) -> share of the caption's facts that hold, if knowable."""
        ...


def draw(seed: int, purpose: str) -> torch.Generator:
    """A generator of its own for each purpose of a seed."""
    words = sum(ord(letter) * 31**i for i, letter in enumerate(purpose)) % 2**31
    return torch.Generator().manual_seed(seed * 2**31 + words)


def strength_of(run: Run) -> float:
    """The strength of a row's technique: its own, else the usual one."""
    return STRENGTHS[run.augmentation][1] if run.strength is None else run.strength


def typo_rules(held_out: bool) -> tuple[str, ...]:
    """The rule that no defence trains on, or all others."""
    return tuple(rule for rule in RULES if (rule == HELD_OUT_RULE) == held_out)


def variants_of_any_data(
    pairs: ImageTextPairs,
    run: Run,
    n: int,
    seed: int,
    synonyms: Synonyms,
    stop_words: frozenset[str],
) -> OneToMany:
    """The techniques that need nothing but pairs.

    Raises:
        ValueError: a technique that needs more.
    """
    generator, name, added = draw(seed, run.augmentation), run.augmentation, n - 1
    if name == "none":
        return OneToMany.from_pairs(pairs)
    if name == "mismatched":
        return mismatched(pairs, added, generator)
    if name == "similar-images":
        return similar_images(pairs, added)
    strength = strength_of(run) if name in STRENGTHS else 0.0
    if name == "randaugment":
        return randaugment(pairs, added, generator, magnitude=round(strength))
    if name == "crop-flip-jitter":
        return crop_flip_jitter(pairs, added, generator, strength=strength)
    if name == "augmix":
        return augmix(pairs, added, generator, severity=round(strength))
    if name == "drop-swap":
        return drop_and_swap(pairs, added, generator, drop_rate=strength, swap_rate=strength)
    if name == "characters":
        return character_noise(pairs, added, generator, rate=strength)
    if name == "eda":
        return eda(pairs, added, generator, synonyms=synonyms, rate=strength,
                   stop_words=stop_words)  # fmt: skip
    raise ValueError(f"{name} cannot be made from pairs alone")
