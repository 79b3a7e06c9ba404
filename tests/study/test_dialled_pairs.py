"""What a design point of the experiment makes of the embedded world."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from matlib.augmentations.dialled import dialled_images
from matlib.study.profile.parts import Dataset
from matlib.study.profile.rows import Run, SetLevels
from matlib.study.sources.scenes import ScenesSource
from matlib.study.sources.source import draw

WORLD = Dataset(name="scenes", image_size=32, world_seed=7, n_train=12, n_val=2, n_test=2)


def point(diversity: float, nuisance: float | None, modality: str = "image") -> Run:
    levels = SetLevels(
        modality=modality, alignment=1, diversity=diversity, shift=0, nuisance=nuisance  # type: ignore[arg-type]
    )  # fmt: skip
    return Run(defence="mat+", augmentation="dialled", dials=levels)


def spread(run: Run) -> float:
    """Mean squared difference of the added images of a scene from their mean."""
    found = ScenesSource(WORLD).variants(run, 4, 0).all_images()[:, 1:].float() / 255
    return float((found - found.mean(1, keepdim=True)).square().mean())


def test_images_of_a_stronger_nuisance_differ_more_and_only_beside_diversity() -> None:
    assert spread(point(1, 2.5)) > 2 * spread(point(1, None)) > 0
    copies = ScenesSource(WORLD).variants(point(0, 2.5), 4, 0).all_images()[:, 1:]
    assert (copies == copies[:, :1]).all()


def test_at_diversity_zero_the_nuisance_is_that_of_the_world() -> None:
    source, run = ScenesSource(WORLD), point(0, 2.5)
    assert run.dials is not None
    plain = dialled_images(
        source.pairs("train"), source.world.train.scenes, 3, draw(0, str(run.dials)),
        style=source.world.style, **run.dials.levels,
    )  # fmt: skip
    assert torch.equal(source.variants(run, 4, 0).all_images(), plain.all_images())


def test_an_unset_nuisance_is_no_part_of_a_rows_identity() -> None:
    assert "nuisance" not in point(1, None).model_dump()["dials"]
    assert point(1, None).row == "mat+.dialled.image-a1-d1-s0"
    assert point(1, 2.5).row == "mat+.dialled.image-a1-d1-s0-n2.5"
    with pytest.raises(ValidationError, match="captions have none"):
        point(1, 2.5, "text")
