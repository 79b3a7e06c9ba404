"""What every source of pairs offers, and the techniques that any pairs allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from matlib.attacks.edits import RULES
from matlib.augmentations.images import augmix, crop_flip_jitter, randaugment, similar_images
from matlib.augmentations.words import Synonyms, character_noise, drop_and_swap, eda, mismatched
from matlib.choices import Choices
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.scenes.typos import HELD_OUT_RULE
from matlib.study.profile.rows import STRENGTHS, Run


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
        by `matlib.study.made.pairs`.
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


@dataclass(frozen=True)
class Wanted:
    """What a technique is asked for.

    Attributes:
        pairs: that it adds to.
        run: the row, with its options.
        added: variants per pair beside the original.
        seed: of its draws.
        synonyms, stop_words: of the data's language.
    """

    pairs: ImageTextPairs
    run: Run
    added: int
    seed: int
    synonyms: Synonyms
    stop_words: frozenset[str]

    def drawn(self) -> torch.Generator:
        """The technique's own generator."""
        return draw(self.seed, self.run.augmentation)

    def strength(self) -> float:
        """Of the technique."""
        return strength_of(self.run)


def _none(w: Wanted) -> OneToMany:
    return OneToMany.from_pairs(w.pairs)


def _mismatched(w: Wanted) -> OneToMany:
    return mismatched(w.pairs, w.added, w.drawn())


def _similar_images(w: Wanted) -> OneToMany:
    return similar_images(w.pairs, w.added)


def _randaugment(w: Wanted) -> OneToMany:
    return randaugment(w.pairs, w.added, w.drawn(), magnitude=round(w.strength()))


def _crop_flip_jitter(w: Wanted) -> OneToMany:
    return crop_flip_jitter(w.pairs, w.added, w.drawn(), strength=w.strength())


def _augmix(w: Wanted) -> OneToMany:
    return augmix(w.pairs, w.added, w.drawn(), severity=round(w.strength()))


def _drop_swap(w: Wanted) -> OneToMany:
    rate = w.strength()
    return drop_and_swap(w.pairs, w.added, w.drawn(), drop_rate=rate, swap_rate=rate)


def _characters(w: Wanted) -> OneToMany:
    return character_noise(w.pairs, w.added, w.drawn(), rate=w.strength())


def _eda(w: Wanted) -> OneToMany:
    return eda(w.pairs, w.added, w.drawn(), synonyms=w.synonyms, rate=w.strength(),
               stop_words=w.stop_words)  # fmt: skip


ANY_DATA: Choices[Callable[[Wanted], OneToMany]] = Choices({
    "none": _none, "mismatched": _mismatched, "similar-images": _similar_images,
    "randaugment": _randaugment, "crop-flip-jitter": _crop_flip_jitter, "augmix": _augmix,
    "drop-swap": _drop_swap, "characters": _characters, "eda": _eda,
})  # fmt: skip
"""The techniques that need nothing but pairs."""


def variants_of_any_data(
    pairs: ImageTextPairs,
    run: Run,
    n: int,
    seed: int,
    synonyms: Synonyms,
    stop_words: frozenset[str],
) -> OneToMany:
    """The variants of a technique of `ANY_DATA`, `n` per pair with the original.

    Raises:
        ValueError: a technique that needs more than pairs.
    """
    if run.augmentation not in ANY_DATA:
        raise ValueError(f"{run.augmentation} cannot be made from pairs alone")
    wanted = Wanted(pairs, run, n - 1, seed, synonyms, stop_words)
    return ANY_DATA[run.augmentation](wanted)
