"""The embedded world as a source of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from matlib.augmentations.dialled import dialled_captions, dialled_images
from matlib.augmentations.variants import combine, with_captions, with_images
from matlib.choices import Choices
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.scenes.grammar import Dials, restate
from matlib.scenes.lexicon import FUNCTION_WORDS, HELD_OUT_WORDS, synonyms_of
from matlib.scenes.renderer import Style
from matlib.scenes.scene import Scene
from matlib.scenes.truth import EditChecker, aligned_fraction, describes, read
from matlib.scenes.typos import typo_edits
from matlib.scenes.world import BASE_DIALS, World
from matlib.study.profile.parts import Dataset
from matlib.study.profile.rows import Run
from matlib.study.sources.source import draw, strength_of, typo_rules, variants_of_any_data


class ScenesSource:
    """The embedded world of one seed."""

    name: str = "scenes"
    stop_words: frozenset[str] = frozenset(FUNCTION_WORDS)
    held_out_words: frozenset[str] = HELD_OUT_WORDS

    def __init__(self, config: Dataset) -> None:
        self.config = config
        self.world = World(
            config.world_seed,
            image_size=config.image_size,
            n_train=config.n_train,
            n_val=config.n_val,
            n_test=config.n_test,
            captions_per_image=config.captions_per_image,
            style=nuisance_style(config.nuisance),
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

    def variants(self, run: Run, n: int, seed: int) -> OneToMany:
        if run.augmentation in OF_SCENES:
            return OF_SCENES[run.augmentation](self, run, n - 1, seed)
        pairs = self.pairs("train")
        return variants_of_any_data(pairs, run, n, seed, self.synonyms, self.stop_words)

    def captioned(self, run: Run, n_added: int, seed: int) -> OneToMany:
        """More sentences about the same scenes."""
        extra = self.world.more_captions(self._rows, n_added, draw(seed, "captions"))
        return with_captions(self.pairs("train"), extra, "captions")

    def rendered(self, run: Run, n_added: int, seed: int) -> OneToMany:
        """More pictures of the same scenes."""
        return self._renderings(n_added, draw(seed, "renderings"), None, "renderings")

    def both(self, run: Run, n_added: int, seed: int) -> OneToMany:
        """More sentences and more pictures."""
        captions, images = (make(run, n_added, seed) for make in (self.captioned, self.rendered))
        return combine(captions, images, technique=run.augmentation)

    def restyled(self, run: Run, n_added: int, seed: int) -> OneToMany:
        """More pictures, in another style."""
        style = replace(self.world.style, palette_shift=strength_of(run))
        return self._renderings(n_added, draw(seed, "restyled"), style, "restyled")

    @property
    def _rows(self) -> range:
        return range(self.config.n_train)

    def _renderings(
        self, n_added: int, generator: torch.Generator, style: Style | None, technique: str
    ) -> OneToMany:
        extra = self.world.more_renderings(self._rows, n_added, generator, style=style)
        return with_images(self.pairs("train"), extra, technique)

    def restated(self, run: Run, n_added: int, seed: int) -> OneToMany:
        """Other sentences with the facts of each training caption and no others."""
        pairs, generator, found = self.pairs("train"), draw(seed, "restated"), []
        for caption in pairs.captions:
            reading = read(caption)
            assert reading is not None, "the grammar writes what the reader reads"
            told = restate(reading, generator, n_added) or (caption,)
            found.append(tuple(told[i % len(told)] for i in range(n_added)))
        return with_captions(pairs, found, "restated")

    def dialled(self, run: Run, n_added: int, seed: int) -> OneToMany:
        """One point of the controlled experiment."""
        dials = run.dials
        assert dials is not None, "a row of augmentation dialled has dials"
        generator = draw(seed, str(dials))
        pairs, scenes = self.pairs("train"), self.world.train.scenes
        if dials.modality == "text":
            return dialled_captions(
                pairs, scenes, n_added, generator, dials=self.world.dials, **dials.levels
            )
        low = self.config.nuisance
        high = low if dials.nuisance is None else dials.nuisance
        style = nuisance_style(low + dials.diversity * (high - low))
        return dialled_images(pairs, scenes, n_added, generator, style=style, **dials.levels)

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


OF_SCENES: Choices[Callable[[ScenesSource, Run, int, int], OneToMany]] = Choices({
    "captions": ScenesSource.captioned, "renderings": ScenesSource.rendered,
    "captions+renderings": ScenesSource.both, "restyled": ScenesSource.restyled,
    "restated": ScenesSource.restated, "dialled": ScenesSource.dialled,
})  # fmt: skip
"""The techniques that need the world: its grammar, its renderer, its truth."""


def nuisance_style(strength: float) -> Style:
    """A renderer whose every nuisance has the same strength."""
    return Style(*[strength] * 7)
