"""Captions and images whose truth, making or dose of shift is known, to try the measures on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from matlib.analysis.embeddings import HeldOutEmbeddings, embed_test
from matlib.augmentations.human import with_captions
from matlib.augmentations.image import randaugment
from matlib.augmentations.text import drop_and_swap, mismatched
from matlib.data.image_sources import ImageTensor
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.data.scenes.grammar import Dials, write_captions
from matlib.data.scenes.render import Style, render
from matlib.data.scenes.scene import corrupt_scene, sample_scenes
from matlib.models.dual_encoder import DualEncoder
from matlib.study.measures import first_images
from matlib.study.recipes import as_run
from matlib.study.runs import Study
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw

WRONG = (0.0, 0.1, 0.2, 0.35, 0.5, 1.0)
"""Probability that an attribute of the scene is replaced before the caption is written."""

DROP = (0.1, 0.3, 0.6)
"""Rates of words dropped."""

SYNONYMS = (0.3, 1.0)
"""Rates of words written as one of their synonyms."""

TRUE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of shifted items."""


@dataclass(frozen=True)
class Graded:
    """Captions from true to wrong.

    Attributes:
        variants: N originals, each with its graded captions.
        table: original, kind and truth of every added caption, in the order of `rank_pairs`.
    """

    variants: OneToMany
    table: pd.DataFrame


def graded_captions(study: Study, n: int) -> Graded:
    """True captions, captions of ever more corrupted scenes, damaged ones, and other images'.

    Raises:
        ValueError: data that know no truth.
    """
    source = first_images(study, max(n, 2))
    truth = source.truth()
    if truth is None or not isinstance(source, ScenesSource):
        raise ValueError("graded captions need a world that knows what is true of its images")
    pairs, scenes = source.pairs("train"), source.world.train.scenes
    kinds: dict[str, Sequence[str]] = {}
    for p in WRONG:
        generator = draw(0, f"corrupted {p}")
        told = [corrupt_scene(scene, p, generator) for scene in scenes]
        written = write_captions(told, generator, dials=source.world.dials)
        kinds[f"wrong {p:g}"] = [own[0] for own in written]
    for rate in DROP:
        dropped = drop_and_swap(pairs, 1, draw(0, f"drop {rate}"), drop_rate=rate)
        kinds[f"drop {rate:g}"] = [own[1] for own in dropped.captions]
    other = mismatched(pairs, 1, draw(0, "mismatched"))
    kinds["mismatched"] = [own[1] for own in other.captions]
    extra = list(zip(*kinds.values(), strict=True))
    rows = [
        {"original": i, "kind": kind, "truth": truth(i, caption)}
        for i, own in enumerate(extra)
        for kind, caption in zip(kinds, own, strict=True)
    ]
    return Graded(with_captions(pairs, extra, "graded"), pd.DataFrame(rows))


def diverse_sets(study: Study, n: int) -> list[OneToMany]:
    """The captions of the first n training images varied in ever other ways, sets of one size."""
    source, k = first_images(study, max(n, 2)), study.profile.n_variants
    pairs = source.pairs("train")
    copies = [(caption,) * (k - 1) for caption in pairs.captions]
    sets = [with_captions(pairs, copies, "copies")]
    for rate in DROP:
        generator = draw(0, f"drop {rate}")
        dropped = drop_and_swap(pairs, k - 1, generator, drop_rate=rate)
        sets.append(replace(dropped, technique=f"drop {rate:g}"))
    sets.append(mismatched(pairs, k - 1, draw(0, "mismatched")))
    if not isinstance(source, ScenesSource):
        return [*sets, source.variants(as_run("captions"), k, 0)]
    world, rows = source.world, range(len(pairs))
    for name, dials, n_new in (
        ("one further caption", world.dials, 1),
        ("captions", world.dials, k - 1),
        *((f"synonyms {rate:g}", replace(world.dials, synonym_rate=rate), k - 1)
          for rate in SYNONYMS),
        ("one template", replace(world.dials, families=(world.dials.families[0],)), k - 1),
    ):  # fmt: skip
        new = world.more_captions(rows, n_new, draw(0, name), dials=dials)
        filled = [
            (*own, *(first,) * (k - 1 - len(own)))
            for own, first in zip(new, pairs.captions, strict=True)
        ]
        sets.append(with_captions(pairs, filled, name))
    return sets


@dataclass(frozen=True)
class ShiftRows:
    """Unit embeddings (P, D) of items without and with shift, and of test items (P, D)."""

    plain: Tensor
    shifted: Tensor
    test: Tensor


@dataclass(frozen=True)
class ShiftedItems:
    """Pairs without shift, the same shifted in image and caption, and other pairs to test on."""

    plain: ImageTextPairs
    shifted: ImageTextPairs
    test: ImageTextPairs

    def rows(self, modality: str, encoder: DualEncoder) -> ShiftRows:
        """The images or the captions of all three under `encoder`."""
        found = [_of(embed_test(encoder, p), modality) for p in self.all()]
        return ShiftRows(*found)

    def all(self) -> tuple[ImageTextPairs, ImageTextPairs, ImageTextPairs]:
        """plain, shifted, test."""
        return self.plain, self.shifted, self.test


def shifted_items(study: Study, n: int) -> ShiftedItems:
    """`n` pairs without shift, the same shifted, and `n` test pairs.

    In scenes: fresh scenes; shifted images have the palette turned as far as it goes, shifted
    captions are written in synonyms. On photographs: training pairs against test pairs, at
    most as many as there are; RandAugment and dropped words are the shift.
    """
    source = study.source
    if not isinstance(source, ScenesSource):
        plain, test = source.pairs("train"), source.pairs("test")
        n = min(n, len(plain), len(test))
        plain = plain.subset(range(n))
        images = randaugment(plain, 1, draw(0, "shift")).all_images()[:, 1]
        words = drop_and_swap(plain, 1, draw(0, "shift"), drop_rate=0.3).captions
        shifted = _pairs(images, [own[1] for own in words])
        return ShiftedItems(plain, shifted, test.subset(range(n)))
    config, world = source.config, source.world
    n = min(n, max(16, 10 * config.n_test))  # toy profiles stay small
    scenes = sample_scenes(2 * n, draw(0, "shift scenes"), three_rate=config.three_rate)
    here, there = scenes[:n], scenes[n:]
    style = world.style or Style()
    made = []
    for shown, palette, dials in (
        (here, 0.0, world.dials),
        (here, 1.0, Dials(omit_rate=config.omit_rate, synonym_rate=1.0)),
        (there, 0.0, world.dials),
    ):
        generator = draw(0, "shift renderings" if shown is here else "shift test")
        images = render(
            shown, generator, size=config.image_size, style=replace(style, palette_shift=palette)
        )
        made.append(_pairs(images, [c[0] for c in write_captions(shown, generator, dials=dials)]))
    return ShiftedItems(*made)


def _pairs(images: Tensor, captions: Sequence[str]) -> ImageTextPairs:
    ids = tuple(str(i) for i in range(len(captions)))
    return ImageTextPairs(
        "validation", "test", ImageTensor(images), tuple(captions), torch.arange(len(ids)), ids
    )


def _of(embedded: HeldOutEmbeddings, modality: str) -> Tensor:
    return embedded.image if modality == "image" else embedded.text
