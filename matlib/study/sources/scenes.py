"""The embedded world as a source of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from matlib.augmentations.dialled import dialled_captions, dialled_images
from matlib.augmentations.human import combine, with_captions, with_images
from matlib.config import Dataset, Run, SetLevels
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.data.scenes import (
    BASE_DIALS,
    Dials,
    Scene,
    Style,
    World,
    aligned_fraction,
    describes,
    read,
    restate,
    synonyms_of,
    typo_edits,
)
from matlib.data.scenes.edits import EditChecker
from matlib.data.scenes.lexicon import FUNCTION_WORDS, HELD_OUT_WORDS
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
        pairs, rows, name = self.pairs("train"), range(self.config.n_train), run.augmentation

        def captions() -> OneToMany:
            extra = self.world.more_captions(rows, n - 1, draw(seed, "captions"))
            return with_captions(pairs, extra, "captions")

        def renderings(style: Style | None = None, technique: str = "renderings") -> OneToMany:
            extra = self.world.more_renderings(rows, n - 1, draw(seed, technique), style=style)
            return with_images(pairs, extra, technique)

        if name == "captions":
            return captions()
        if name == "renderings":
            return renderings()
        if name == "captions+renderings":
            return combine(captions(), renderings(), technique=name)
        if name == "restyled":
            return renderings(replace(self.world.style, palette_shift=strength_of(run)), name)
        if name == "restated":
            return with_captions(pairs, self._restated(n - 1, draw(seed, name)), name)
        if run.dials is not None:
            return self._dialled(run.dials, n - 1, draw(seed, str(run.dials)))
        return variants_of_any_data(pairs, run, n, seed, self.synonyms, self.stop_words)

    def _restated(self, n_added: int, generator: torch.Generator) -> list[tuple[str, ...]]:
        """Other sentences with the facts of each training caption and no others."""
        found = []
        for caption in self.pairs("train").captions:
            reading = read(caption)
            assert reading is not None, "the grammar writes what the reader reads"
            told = restate(reading, generator, n_added) or (caption,)
            found.append(tuple(told[i % len(told)] for i in range(n_added)))
        return found

    def _dialled(self, dials: SetLevels, n_added: int, generator: torch.Generator) -> OneToMany:
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


def nuisance_style(strength: float) -> Style:
    """A renderer whose every nuisance has the same strength."""
    return Style(*[strength] * 7)
