"""Techniques of the embedded world: its grammar, its renderer and its truth make the variants."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from matlib.augmentations.dialled import dialled_captions, dialled_images
from matlib.augmentations.variants import combine, with_captions, with_images
from matlib.augmentations.wanted import Wanted
from matlib.data.pairs import OneToMany
from matlib.scenes.grammar import restate
from matlib.scenes.renderer import Style
from matlib.scenes.truth import read


def told_again(w: Wanted) -> OneToMany:
    """More sentences about the same scenes."""
    rows = range(len(w.pairs))
    extra = w.of_world().more_captions(rows, w.added, w.draw("captions"))
    return with_captions(w.pairs, extra, "captions")


def drawn_again(w: Wanted) -> OneToMany:
    """More pictures of the same scenes."""
    return _renderings(w, w.draw("renderings"), None, "renderings")


def told_and_drawn(w: Wanted) -> OneToMany:
    """More sentences and more pictures."""
    return combine(told_again(w), drawn_again(w), technique="captions+renderings")


def restyled(w: Wanted) -> OneToMany:
    """More pictures, in another style."""
    style = replace(w.of_world().style, palette_shift=w.strength)
    return _renderings(w, w.generator, style, "restyled")


def _renderings(
    w: Wanted, generator: torch.Generator, style: Style | None, technique: str
) -> OneToMany:
    rows = range(len(w.pairs))
    extra = w.of_world().more_renderings(rows, w.added, generator, style=style)
    return with_images(w.pairs, extra, technique)


def restated(w: Wanted) -> OneToMany:
    """Other sentences with the facts of each caption and no others."""
    generator, found = w.generator, []
    for caption in w.pairs.captions:
        reading = read(caption)
        assert reading is not None, "the grammar writes what the reader reads"
        told = restate(reading, generator, w.added) or (caption,)
        found.append(tuple(told[i % len(told)] for i in range(w.added)))
    return with_captions(w.pairs, found, "restated")


def dialled(w: Wanted) -> OneToMany:
    """One point of the controlled experiment.

    Raises:
        ValueError: no levels are given.
    """
    world, levels = w.of_world(), w.levels
    if levels is None:
        raise ValueError("dialled needs the levels of alignment, diversity and shift")
    scenes, generator = world.train.scenes, w.generator
    if levels.modality == "text":
        return dialled_captions(
            w.pairs, scenes, w.added, generator, dials=world.dials, **levels.dials
        )
    style = world.style
    if levels.nuisance is not None:
        style = _nearer(style, levels.nuisance, levels.diversity)
    return dialled_images(w.pairs, scenes, w.added, generator, style=style, **levels.dials)


def _nearer(style: Style, nuisance: float, share: float) -> Style:
    """A style of which every nuisance has gone a share of the way to one strength."""
    strengths = {name: low for name, low in asdict(style).items() if name != "palette_shift"}
    return replace(style, **{k: low + share * (nuisance - low) for k, low in strengths.items()})
