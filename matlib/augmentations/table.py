"""The techniques by name: what each adds to pairs, by which function, of which data, how strongly.

What makes a technique out of pairs alone is in `matlib.augmentations.text` and `images`, out of
the embedded world in `of_scenes`, by a generating model in `generators` and `diffusion`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from matlib.augmentations import of_scenes
from matlib.augmentations.images import (
    RandAugmented,
    augmix,
    crop_flip_jitter,
    randaugment,
    similar_images,
)
from matlib.augmentations.text import character_noise, drop_and_swap, eda, mismatched
from matlib.augmentations.variants import other_captions, with_captions
from matlib.augmentations.wanted import Wanted
from matlib.choices import UNNAMED, Choices, Shown
from matlib.data.pairs import OneToMany, image_budget

Data = Literal["scenes", "disk"]
"""The embedded world, or a data set on disk."""

MakeVariants = Callable[[Wanted], OneToMany]


@dataclass(frozen=True)
class Strength:
    """How strongly a technique changes what is there.

    Attributes:
        unit: in a few words.
        usual: where nothing else is asked for.
        greatest: 0 is the least.
        copies_at_zero: whether at strength 0 it adds copies of the originals.
    """

    unit: str
    usual: float
    greatest: float
    copies_at_zero: bool = False


@dataclass(frozen=True)
class Technique:
    """One way to add variants to pairs.

    Attributes:
        name: in profiles, names of rows and tables.
        adds: captions, images or both; "" of the originals alone.
        pairs: makes it of any pairs.
        scenes, disk: makes it of what only such data have; used before `pairs`.
        model: the generating model that makes it where none of these does: `captioner`,
            `rewriter`, `translators`, `image_to_image` or `text_to_image`.
        real_only: that model is large and pretrained, without a small counterpart in the
            embedded world.
        strength: None: it has none.
        is_control: adds no fact to the originals, or false ones.
        shown: in figures.
    """

    name: str
    adds: Literal["", "text", "image", "both"]
    pairs: MakeVariants | None = None
    scenes: MakeVariants | None = None
    disk: MakeVariants | None = None
    model: str = ""
    real_only: bool = False
    strength: Strength | None = None
    is_control: bool = False
    shown: Shown = UNNAMED

    def maker(self, data: Data) -> MakeVariants | None:
        """The function that makes it of such data; None where there is none."""
        return (self.scenes if data == "scenes" else self.disk) or self.pairs

    def needs_model(self, data: Data) -> bool:
        """Whether a generating model makes it of such data."""
        return bool(self.model) and self.maker(data) is None

    def fits(self, data: Data) -> bool:
        """Whether it can be made of such data at all."""
        by_model = bool(self.model) and not (self.real_only and data == "scenes")
        return by_model or self.maker(data) is not None


def _none(w: Wanted) -> OneToMany:
    return OneToMany.from_pairs(w.pairs)


def _mismatched(w: Wanted) -> OneToMany:
    return mismatched(w.pairs, w.added, w.generator)


def _similar_images(w: Wanted) -> OneToMany:
    return similar_images(w.pairs, w.added)


def _randaugment(w: Wanted) -> OneToMany:
    return randaugment(w.pairs, w.added, w.generator, magnitude=round(w.strength))


def _crop_flip_jitter(w: Wanted) -> OneToMany:
    return crop_flip_jitter(w.pairs, w.added, w.generator, strength=w.strength)


def _augmix(w: Wanted) -> OneToMany:
    return augmix(w.pairs, w.added, w.generator, severity=round(w.strength))


def _drop_swap(w: Wanted) -> OneToMany:
    rate = w.strength
    return drop_and_swap(w.pairs, w.added, w.generator, drop_rate=rate, swap_rate=rate)


def _characters(w: Wanted) -> OneToMany:
    return character_noise(w.pairs, w.added, w.generator, rate=w.strength)


def _eda(w: Wanted) -> OneToMany:
    return eda(w.pairs, w.added, w.generator, synonyms=w.synonyms, rate=w.strength,
               stop_words=w.stop_words)  # fmt: skip


def _written(w: Wanted) -> OneToMany:
    """The other captions that people wrote for an image; its own where there is none."""
    others = other_captions(w.by_people(), w.pairs)
    extra = [
        tuple(caption for caption in own if caption != first)[: w.added] or (first,)
        for own, first in zip(others, w.pairs.captions, strict=True)
    ]
    return with_captions(w.pairs, extra, "captions")


def _randaugmented(w: Wanted) -> OneToMany:
    return _with_randaugment(w, OneToMany.from_pairs(w.pairs), "randaugment", round(w.strength))


def _written_and_randaugmented(w: Wanted) -> OneToMany:
    """Other captions, and RandAugment: other photographs of a scene do not exist."""
    return _with_randaugment(w, _written(w), "captions+randaugment", magnitude=9)


def _with_randaugment(w: Wanted, captions: OneToMany, technique: str, magnitude: int) -> OneToMany:
    images = RandAugmented(w.pairs.images, w.added + 1, w.seed, magnitude=magnitude)
    found = replace(captions, technique=technique, images=images, made_from=None)
    return found.held(image_budget())


TECHNIQUES: Choices[Technique] = Choices.named(
    Technique("none", "", _none, shown=Shown("originals")),
    Technique("captions", "text", scenes=of_scenes.told_again, disk=_written,
              shown=Shown("true captions")),
    Technique("renderings", "image", scenes=of_scenes.drawn_again, shown=Shown("true renderings")),
    Technique("captions+renderings", "both", scenes=of_scenes.told_and_drawn,
              disk=_written_and_randaugmented, shown=Shown("captions and renderings")),
    Technique("similar-images", "image", _similar_images,
              shown=Shown("images of similar captions")),
    Technique("restated", "text", scenes=of_scenes.restated, is_control=True,
              shown=Shown("restated captions")),
    Technique("eda", "text", _eda, strength=Strength("share of words changed", 0.1, 1.0, True),
              shown=Shown("EDA")),
    Technique("characters", "text", _characters, is_control=True,
              strength=Strength("share of words with an edited letter", 0.1, 1.0, True),
              shown=Shown("character noise")),
    Technique("drop-swap", "text", _drop_swap,
              strength=Strength("share of words dropped and swapped", 0.1, 1.0, True),
              shown=Shown("drop and swap")),
    Technique("rewritten", "text", model="rewriter",
              strength=Strength("sampling temperature", 1.0, 4.0),
              shown=Shown("rewritten captions")),
    Technique("back-translated", "text", model="translators", real_only=True,
              shown=Shown("back-translation")),
    Technique("captioned", "text", model="captioner",
              strength=Strength("sampling temperature", 1.0, 4.0),
              shown=Shown("captions by a captioner")),
    Technique("randaugment", "image", _randaugment, disk=_randaugmented,
              strength=Strength("magnitude of 30", 9.0, 30.0), shown=Shown("RandAugment")),
    Technique("crop-flip-jitter", "image", _crop_flip_jitter,
              strength=Strength("strength", 1.0, 2.0), shown=Shown("crop, flip, jitter")),
    Technique("augmix", "image", _augmix, strength=Strength("severity of 10", 3.0, 10.0, True),
              shown=Shown("AugMix")),
    Technique("restyled", "image", scenes=of_scenes.restyled, model="image_to_image",
              strength=Strength("distance of the style", 1.0, 1.0),
              shown=Shown("restyled images")),
    Technique("generated", "image", model="text_to_image", real_only=True,
              shown=Shown("generated images")),
    Technique("mismatched", "text", _mismatched, is_control=True, shown=Shown("mismatched")),
    Technique("dialled", "both", scenes=of_scenes.dialled, shown=Shown("dialled")),
    what="augmentation",
)  # fmt: skip
