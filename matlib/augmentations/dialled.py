"""Pairs whose alignment, diversity and shift are set: the treatments of the experiment.

All added variants of a pair tell of one and the same scene: its own, or one with wrong
attributes. So a wrong variant is as varied as a true one, and the dial of alignment leaves
diversity alone. A dialect puts a fixed word in the place of each word, so that shift adds no
variety either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal, TypeVar

import torch
from torch import Tensor

from matlib.augmentations.variants import with_captions, with_images
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.scenes.grammar import Dials, with_articles, write_captions
from matlib.scenes.lexicon import CONCEPT_OF, LEXICON, Concept
from matlib.scenes.renderer import Style, render
from matlib.scenes.scene import Scene, corrupt_scene

_T = TypeVar("_T")

MOST_WRONG = 0.5
"""Probability at alignment 0 that an attribute is wrong. source: ours; generated captions of
the study's own captioner and rewriter lie between (notebook 70)."""


@dataclass(frozen=True)
class Levels:
    """What added pairs are set to.

    Attributes:
        modality: whether captions or images are added.
        alignment, diversity, shift: in [0, 1], see `dialled_captions`.
        nuisance: the renderer's, of images at diversity 1; None: that of the world throughout.
    """

    modality: Literal["image", "text"]
    alignment: float
    diversity: float
    shift: float
    nuisance: float | None = None

    @property
    def dials(self) -> dict[str, float]:
        """The three dials, by name."""
        return {"alignment": self.alignment, "diversity": self.diversity, "shift": self.shift}


def dialled_captions(
    pairs: ImageTextPairs,
    scenes: Sequence[Scene],
    n_added: int,
    generator: torch.Generator,
    *,
    alignment: float,
    diversity: float,
    shift: float,
    dials: Dials,
) -> OneToMany:
    """Each pair with `n_added` captions at the set levels, each in [0, 1].

    Args:
        pairs: N images with one caption each.
        scenes: what the images show.
        n_added: captions added to each pair, repeats included: it is the same at all levels.
        alignment: 1: true; 0: each attribute wrong with probability `MOST_WRONG`.
        diversity: share of the added captions beyond the first that differ from it.
        shift: share of the concepts that are said in the dialect.
        dials: of the grammar.

    Raises:
        ValueError: a level outside [0, 1], or not one scene per image.
    """
    _check(pairs, scenes, alignment, diversity, shift)
    told = scenes_told(scenes, alignment, generator)
    written = write_captions(told, generator, n_added, dials=dials)
    spoken = [tuple(_in_dialect(caption, shift) for caption in own) for own in written]
    keep = _distinct(len(scenes), n_added, diversity, generator)
    extra = [_repeated(own, n) for own, n in zip(spoken, keep, strict=True)]
    return with_captions(pairs, extra, "dialled")


def dialled_images(
    pairs: ImageTextPairs,
    scenes: Sequence[Scene],
    n_added: int,
    generator: torch.Generator,
    *,
    alignment: float,
    diversity: float,
    shift: float,
    style: Style,
) -> OneToMany:
    """Each pair with `n_added` images at the set levels; as `dialled_captions`.

    Args:
        shift: of the palette (`Style.palette_shift`).
        style: of the renderer, otherwise.
    """
    _check(pairs, scenes, alignment, diversity, shift)
    told = scenes_told(scenes, alignment, generator)
    size = int(pairs.images.load([0]).shape[-1])
    drawn = render([scene for scene in told for _ in range(n_added)], generator, size=size,
                   style=replace(style, palette_shift=shift))  # fmt: skip
    images = drawn.view(len(scenes), n_added, *drawn.shape[1:])
    keep = _distinct(len(scenes), n_added, diversity, generator)
    columns = torch.tensor([_repeated(tuple(range(n_added)), n) for n in keep])
    rows = torch.arange(len(scenes))[:, None]
    extra: Tensor = images[rows, columns.view(len(scenes), n_added)]
    return with_images(pairs, extra, "dialled")


def dialect(word: str, share: float = 1.0) -> str:
    """The dialect's word for a word: always the same synonym, itself where there is none.

    Args:
        share: in [0, 1], of the concepts that the dialect has a word of its own for. Which
            concepts these are is fixed, so that a half dialect is no mixture of two.
    """
    concept = CONCEPT_OF.get(word)
    if concept is None or _PLACE[concept] >= share:
        return word
    return LEXICON[concept.kind][concept.value][0]


def _places() -> dict[Concept, float]:
    """Every concept's place in [0, 1) in a fixed, arbitrary order."""
    concepts = sorted(set(CONCEPT_OF.values()), key=lambda c: sha256(repr(c).encode()).digest())
    return {concept: i / len(concepts) for i, concept in enumerate(concepts)}


_PLACE = _places()


def _check(
    pairs: ImageTextPairs, scenes: Sequence[Scene], alignment: float, diversity: float, shift: float
) -> None:
    levels = {"alignment": alignment, "diversity": diversity, "shift": shift}
    for name, level in levels.items():
        if not 0.0 <= level <= 1.0:
            raise ValueError(f"{name} is a level in [0, 1]; got {level}")
    if len(pairs) != len(scenes):
        raise ValueError(f"{len(pairs)} images show as many scenes; got {len(scenes)}")


def scenes_told(
    scenes: Sequence[Scene], alignment: float, generator: torch.Generator
) -> list[Scene]:
    """What the added variants of each scene tell of: the first draw of the functions above."""
    wrong = MOST_WRONG * (1 - alignment)
    return [corrupt_scene(scene, wrong, generator) for scene in scenes]


def _in_dialect(caption: str, shift: float) -> str:
    return " ".join(with_articles([dialect(word, shift) for word in caption.split(" ")]))


def _distinct(n: int, n_added: int, diversity: float, generator: torch.Generator) -> list[int]:
    """How many different variants each pair gets: 1 to `n_added`, exact on average."""
    wanted = 1 + diversity * (n_added - 1)
    draws = torch.rand(n, generator=generator)
    return [int(wanted) + int(draw < wanted - int(wanted)) for draw in draws.tolist()]


def _repeated(variants: tuple[_T, ...], n: int) -> tuple[_T, ...]:
    """The first `n` variants, repeated in turn to the full number."""
    return tuple(variants[i % n] for i in range(len(variants)))
