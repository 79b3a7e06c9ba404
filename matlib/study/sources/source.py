"""What every source of pairs offers, and how the techniques are asked for theirs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from matlib.attacks.attackable import pieces
from matlib.attacks.edits import RULES
from matlib.augmentations.dialled import Levels
from matlib.augmentations.table import TECHNIQUES, Data
from matlib.augmentations.wanted import Wanted
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.scenes.typos import HELD_OUT_RULE
from matlib.study.profile.rows import Run


class Source(ABC):
    """Pairs by split, and what can be made of them.

    Attributes:
        name: of the data set.
        data: what kind of data they are, for the techniques.
    """

    name: str
    data: Data
    stop_words: frozenset[str]
    held_out_words: frozenset[str]

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the data depend on, for the hash of everything made from them."""

    @abstractmethod
    def pairs(self, split: str) -> ImageTextPairs:
        """`train` (1:1), `val` or `test` (all captions)."""

    def human_words(self, split: str) -> list[frozenset[str]]:
        """Per image of a split, the lower-case words of all its human captions."""
        return words_by_image(self.pairs(split))

    @abstractmethod
    def base(self) -> OneToMany:
        """Pairs for pre-training."""

    @abstractmethod
    def corpus(self, n_captions: int) -> list[str]:
        """Captions that the masked language model learns from."""

    def variants(self, run: Run, n: int, seed: int) -> OneToMany:
        """The training pairs with the variants of a row's technique, `n` per pair at most.

        Only what the data themselves allow: techniques that need a generating model are made
        by `matlib.study.made.pairs`.

        Raises:
            ValueError: a technique that needs more than these data.
        """
        make = TECHNIQUES.choose(run.augmentation).maker(self.data)
        if make is None:
            raise ValueError(f"{run.augmentation} cannot be made from {self.name} alone")
        return make(self.wanted(run, n - 1, seed))

    def wanted(self, run: Run, added: int, seed: int) -> Wanted:
        """What a row asks its technique for, with what these data have."""
        return Wanted(
            self.pairs("train"), added, partial(draw, seed),
            purpose=run.augmentation if run.dials is None else str(run.dials),
            seed=seed, strength=strength_of(run),
            synonyms=self.synonyms, stop_words=self.stop_words,
            levels=None if run.dials is None else Levels(**run.dials.model_dump()),
        )  # fmt: skip

    @abstractmethod
    def synonyms(self, word: str) -> Sequence[str]:
        """Other words for the same thing, for EDA."""

    @abstractmethod
    def typos(
        self, caption: str, seed: int, n_per_word: int, held_out: bool = False
    ) -> list[tuple[int, str]]:
        """One-letter edits of content words that never form another word of the data.

        Args:
            held_out: by the rule that no defence trains on, or by all others.
        """

    @abstractmethod
    def truth(self) -> Callable[[int, str], float] | None:
        """(training image, caption) -> share of the caption's facts that hold, if knowable."""


def words_by_image(pairs: ImageTextPairs) -> list[frozenset[str]]:
    """Per image, the lower-case words of all its captions."""
    found: list[set[str]] = [set() for _ in range(len(pairs))]
    for caption, image in zip(pairs.captions, pairs.image_of.tolist(), strict=True):
        found[image].update(piece.text.lower() for piece in pieces(caption) if piece.is_word)
    return [frozenset(words) for words in found]


def draw(seed: int, purpose: str) -> torch.Generator:
    """A generator of its own for each purpose of a seed."""
    words = sum(ord(letter) * 31**i for i, letter in enumerate(purpose)) % 2**31
    return torch.Generator().manual_seed(seed * 2**31 + words)


def strength_of(run: Run) -> float:
    """The strength of a row's technique: its own, else the usual one; NaN where it has none."""
    known = TECHNIQUES[run.augmentation].strength
    usual = known.usual if known else math.nan
    return usual if run.strength is None else run.strength


def typo_rules(held_out: bool) -> tuple[str, ...]:
    """The rule that no defence trains on, or all others."""
    return tuple(rule for rule in RULES if (rule == HELD_OUT_RULE) == held_out)
