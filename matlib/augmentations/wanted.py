"""What a technique is asked for: pairs, how many variants, and what else is known of the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from matlib.augmentations.dialled import Levels
from matlib.augmentations.text import Synonyms
from matlib.data.pairs import ImageTextPairs
from matlib.scenes.world import World


def _no_synonyms(word: str) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Wanted:
    """What a technique is asked for.

    Attributes:
        pairs: N images with one caption each.
        added: variants of each pair beside the original, 0 or more.
        draw: purpose -> a CPU generator of its own, the same for the same purpose.
        purpose: of the technique's own draws: its name, or the levels of one design point.
        seed: in [0, 2**31), of draws that are made anew when an image is loaded.
        strength: in the unit of the technique (`Strength`).
        synonyms, stop_words: of the data's language.
        world: that drew the pairs; None of data on disk.
        written: on disk, the same images with all captions that people wrote.
        levels: of the technique `dialled`.
    """

    pairs: ImageTextPairs
    added: int
    draw: Callable[[str], torch.Generator]
    purpose: str
    seed: int = 0
    strength: float = math.nan
    synonyms: Synonyms = _no_synonyms
    stop_words: frozenset[str] = frozenset()
    world: World | None = None
    written: ImageTextPairs | None = None
    levels: Levels | None = None

    @property
    def generator(self) -> torch.Generator:
        """The technique's own, at its start."""
        return self.draw(self.purpose)

    def of_world(self) -> World:
        """The world that drew the pairs.

        Raises:
            ValueError: they are of a data set on disk.
        """
        if self.world is None:
            raise ValueError(f"{self.purpose} needs the world that drew the pairs; pass `world`")
        return self.world

    def by_people(self) -> ImageTextPairs:
        """The same images with all their captions.

        Raises:
            ValueError: nobody wrote others.
        """
        if self.written is None:
            raise ValueError(f"{self.purpose} needs the images' other captions; pass `written`")
        return self.written
