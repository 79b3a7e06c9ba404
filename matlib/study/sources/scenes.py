"""The embedded world as a source of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from matlib.augmentations.table import Data
from matlib.augmentations.wanted import Wanted
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.scenes.grammar import Dials
from matlib.scenes.lexicon import (
    FUNCTION_WORDS,
    HELD_OUT_WORDS,
    half_of_synonyms,
    synonyms_of,
)
from matlib.scenes.renderer import even_style
from matlib.scenes.scene import Scene
from matlib.scenes.truth import EditChecker, aligned_fraction, describes, read
from matlib.scenes.typos import typo_edits
from matlib.scenes.world import BASE_DIALS, World
from matlib.study.profile.parts import Dataset
from matlib.study.profile.rows import Run
from matlib.study.sources.source import Source, typo_rules


class ScenesSource(Source):
    """The embedded world of one seed."""

    name: str = "scenes"
    data: Data = "scenes"
    stop_words: frozenset[str] = frozenset(FUNCTION_WORDS)

    def __init__(self, config: Dataset) -> None:
        self.config = config
        is_half = config.held_out_words == "half"
        self.held_out_words = half_of_synonyms(config.world_seed) if is_half else HELD_OUT_WORDS
        self.world = World(
            config.world_seed,
            image_size=config.image_size,
            n_train=config.n_train,
            n_val=config.n_val,
            n_test=config.n_test,
            captions_per_image=config.captions_per_image,
            style=even_style(config.nuisance),
            base_dials=replace(BASE_DIALS, omit_rate=config.omit_rate),
            dials=Dials(omit_rate=config.omit_rate),
            three_rate=config.three_rate,
        )

    def identity(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    def pairs(self, split: str) -> ImageTextPairs:
        return self.world.split(split).pairs

    def base(self) -> OneToMany:
        c = self.config
        return OneToMany.from_pairs(
            self.world.base_pairs(c.n_base, c.base_captions, c.base_renderings)
        )

    def corpus(self, n_captions: int) -> list[str]:
        return self.world.masked_lm_corpus(n_captions)

    def wanted(self, run: Run, added: int, seed: int) -> Wanted:
        return replace(super().wanted(run, added, seed), world=self.world)

    def synonyms(self, word: str) -> Sequence[str]:
        return synonyms_of(word)

    def means_the_same(self, caption: str, edited: str) -> bool:
        """Whether an edit leaves what a caption says as it is, true or not."""
        reading = read(caption)
        return reading is not None and read(edited) == reading

    def typos(
        self, caption: str, seed: int, n_per_word: int, held_out: bool = False
    ) -> list[tuple[int, str]]:
        return typo_edits(caption, seed, n_per_word, typo_rules(held_out))

    def truth(self) -> Callable[[int, str], float] | None:
        scenes = self.world.train.scenes
        return lambda image, caption: aligned_fraction(caption, scenes[image])

    def is_true(self, split: str, image: int, caption: str) -> bool:
        """Whether a caption describes an image of a split."""
        return describes(caption, self.world.split(split).scenes[image])

    @staticmethod
    def fraction(caption: str, scene: Scene) -> float:
        """Share of a caption's facts that hold in a scene, whichever it is."""
        return aligned_fraction(caption, scene)

    def valid_edit(
        self, split: str, captions: Sequence[str], own: Sequence[int]
    ) -> Callable[[int, str], bool]:
        """(caption index, edited caption) -> the edit keeps the truth (threat `bert_true`).

        Args:
            captions: true captions of scenes of the split.
            own: the scene of each.
        """
        return EditChecker(self.world.split(split).checker, captions, own)

    def is_false(self, split: str, caption: int, edited: str) -> bool:
        """Whether an edited caption no longer describes its own scene."""
        own = int(self.pairs(split).image_of[caption])
        return own not in self.world.split(split).checker.described(edited)
