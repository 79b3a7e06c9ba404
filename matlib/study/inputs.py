"""What a study starts from: the embedded world, or a data set on disk, behind one interface."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from matlib.attacks.candidates import content_words, english_stop_words
from matlib.attacks.typos import RULES, one_letter_edits
from matlib.augmentations.human import combine, with_captions, with_images
from matlib.augmentations.image import RandAugmented, randaugment
from matlib.augmentations.text import drop_and_swap, mismatched
from matlib.config import Augmentation, Dataset
from matlib.data.karpathy import read_karpathy
from matlib.data.memory import image_budget
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.data.scenes import (
    BASE_DIALS,
    Dials,
    Style,
    World,
    aligned_fraction,
    typo_edits,
)
from matlib.data.scenes.edits import EditChecker
from matlib.data.scenes.lexicon import FUNCTION_WORDS, HELD_OUT_WORDS
from matlib.data.scenes.typos import HELD_OUT_RULE
from matlib.study.provenance import file_hash


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

    def variants(self, augmentation: Augmentation, n: int, seed: int) -> OneToMany:
        """The training pairs with their one-to-many variants, `n` per pair at most."""
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
            style=Style(*[config.nuisance] * 7),
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

    def variants(self, augmentation: Augmentation, n: int, seed: int) -> OneToMany:
        pairs, rows = self.pairs("train"), range(self.config.n_train)

        def captions() -> OneToMany:
            extra = self.world.more_captions(rows, n - 1, draw(seed, "captions"))
            return with_captions(pairs, extra, "captions")

        def renderings() -> OneToMany:
            extra = self.world.more_renderings(rows, n - 1, draw(seed, "renderings"))
            return with_images(pairs, extra, "renderings")

        if augmentation == "captions":
            return captions()
        if augmentation == "renderings":
            return renderings()
        if augmentation == "captions+renderings":
            return combine(captions(), renderings(), technique=augmentation)
        return _variants_of_any_data(pairs, augmentation, n, seed)

    def typos(
        self, caption: str, seed: int, n_per_word: int, held_out: bool = False
    ) -> list[tuple[int, str]]:
        return typo_edits(caption, seed, n_per_word, _typo_rules(held_out))

    def truth(self) -> Callable[[int, str], float] | None:
        scenes = self.world.train.scenes
        return lambda image, caption: aligned_fraction(caption, scenes[image])

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


class KarpathySource:
    """A data set on disk in the Karpathy format: Flickr8k, Flickr30k or COCO.

    Images that fit into `image_budget()` are held as bytes, others decoded when a batch needs
    them; RandAugment's variants are a function of (seed, image, number) and held or made anew
    in the same way. The bytes are the same either way.
    """

    def __init__(self, config: Dataset, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.name: str = config.name
        self.stop_words: frozenset[str] = english_stop_words()
        self.held_out_words: frozenset[str] = frozenset()
        self.pairs("test")  # missing files are found before any long work

    def identity(self) -> dict[str, Any]:
        annotation = next(self.folder.rglob("dataset_*.json"))
        return {**self.config.model_dump(mode="json"), "annotation": file_hash(annotation)}

    @cache  # noqa: B019 - one source lives as long as its study
    def _read(self, split: str, limit: int) -> ImageTextPairs:
        c = self.config
        return read_karpathy(
            self.folder, c.name, split, c.image_size, limit=limit, mode=c.image_mode
        )

    @cached_property
    def _train(self) -> ImageTextPairs:
        return self._read("train", self.config.n_train)

    def pairs(self, split: str) -> ImageTextPairs:
        if split == "train":
            return self._train.one_to_one(draw(self.config.world_seed, "one caption each"))
        n = self.config.n_val if split == "val" else self.config.n_test
        return self._read(split, n)

    def base(self) -> OneToMany:
        return OneToMany.from_pairs(self._read("train", self.config.n_base))

    def corpus(self, n_captions: int) -> list[str]:
        wanted = max(self.config.n_train, self.config.n_base)
        return list(self._read("train", wanted).captions[:n_captions])

    def variants(self, augmentation: Augmentation, n: int, seed: int) -> OneToMany:
        pairs = self.pairs("train")

        def captions() -> OneToMany:
            every = OneToMany.from_pairs(self._train).captions
            extra = [
                tuple(c for c in own if c != first)[: n - 1] or (first,)
                for own, first in zip(every, pairs.captions, strict=True)
            ]
            return with_captions(pairs, extra, "captions")

        def augmented(captions: OneToMany, technique: str) -> OneToMany:
            images = RandAugmented(pairs.images, n, seed)
            found = replace(captions, technique=technique, images=images, made_from=None)
            return found.held(image_budget())

        if augmentation == "captions":
            return captions()
        if augmentation == "randaugment":
            return augmented(OneToMany.from_pairs(pairs), augmentation)
        if augmentation == "captions+renderings":  # other photographs of a scene do not exist
            return augmented(captions(), "captions+randaugment")
        if augmentation == "renderings":
            raise ValueError("further renderings exist in scenes only; use randaugment")
        return _variants_of_any_data(pairs, augmentation, n, seed)

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        words = {w.lower() for c in self._train.captions for w in c.split(" ")}
        return frozenset(words | {w for c in self.pairs("test").captions for w in c.split(" ")})

    def typos(
        self, caption: str, seed: int, n_per_word: int, held_out: bool = False
    ) -> list[tuple[int, str]]:
        words, rng, rules = caption.split(" "), random.Random(seed), _typo_rules(held_out)
        return [
            (position, typo)
            for position in content_words(caption, self.stop_words)
            for typo in one_letter_edits(words[position], n_per_word, self._vocabulary, rng, rules)
        ]

    def truth(self) -> Callable[[int, str], float] | None:
        return None


def _typo_rules(held_out: bool) -> tuple[str, ...]:
    return tuple(rule for rule in RULES if (rule == HELD_OUT_RULE) == held_out)


def _variants_of_any_data(
    pairs: ImageTextPairs, augmentation: Augmentation, n: int, seed: int
) -> OneToMany:
    generator = draw(seed, augmentation)
    if augmentation == "none":
        return OneToMany.from_pairs(pairs)
    if augmentation == "randaugment":
        return randaugment(pairs, n - 1, generator)
    if augmentation == "drop-swap":
        return drop_and_swap(pairs, n - 1, generator)
    if augmentation == "mismatched":
        return mismatched(pairs, n - 1, generator)
    raise ValueError(f"unknown augmentation {augmentation!r}")


def open_source(config: Dataset, folder: Path | None) -> ScenesSource | KarpathySource:
    """The source a profile names.

    Raises:
        ValueError: a data set on disk is wanted but no folder was given.
        FileNotFoundError: the folder, its JSON or its images are missing.
    """
    if config.name == "scenes":
        return ScenesSource(config)
    if folder is None:
        raise ValueError(
            f"this profile reads {config.name} from disk: pass its folder (make study "
            f"DATA=<folder>, or --data), or fetch it with: python -m matlib data fetch "
            f"{config.name}"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder at {folder}")
    return KarpathySource(config, folder)
