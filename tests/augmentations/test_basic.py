"""Crop, flip, jitter and AugMix."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from matlib.augmentations.images import augmix, crop_flip_jitter
from tests.augmentations.pairs import toy_pairs
from tests.toys import generator


@pytest.mark.parametrize("augment", [crop_flip_jitter, augmix])
def test_images_are_added_behind_the_originals(augment: partial[object]) -> None:
    pairs, before = toy_pairs(), torch.get_rng_state()
    one, other = (augment(pairs, 2, generator(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)  # torch's own generator is put back
    images = one.all_images()  # type: ignore[attr-defined]
    assert images.shape == (5, 3, 3, 16, 16) and images.dtype == torch.uint8
    assert torch.equal(images, other.all_images())  # type: ignore[attr-defined]
    assert torch.equal(images[:, 0], pairs.images.load(range(5)))
    assert not torch.equal(images[:, 1], images[:, 2])


def test_strength_zero_adds_copies_or_mirror_images() -> None:
    pairs = toy_pairs()
    originals = pairs.images.load(range(5))
    assert torch.equal(augmix(pairs, 1, generator(), severity=0).all_images()[:, 1], originals)
    plain = crop_flip_jitter(pairs, 1, generator(), strength=0, flip=False).all_images()
    assert torch.equal(plain[:, 1], originals)
    mirrored = crop_flip_jitter(pairs, 4, generator(), strength=0).all_images()
    for i, original in enumerate(originals):
        for variant in mirrored[i, 1:]:
            assert torch.equal(variant, original) or torch.equal(variant, original.flip(-1))


def test_more_strength_moves_images_further() -> None:
    pairs = toy_pairs()
    moved = [
        (found[:, 1:].float() - found[:, :1].float()).abs().mean().item()
        for found in (
            crop_flip_jitter(pairs, 8, generator(), strength=s, flip=False).all_images()
            for s in (0.2, 1.0, 2.0)
        )
    ]
    assert moved == sorted(moved) and moved[0] < moved[2]


def test_strengths_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"strength is in \[0, 2\]"):
        crop_flip_jitter(toy_pairs(), 1, generator(), strength=3)
    with pytest.raises(ValueError, match="severity is in 0 to 10"):
        augmix(toy_pairs(), 1, generator(), severity=11)
    with pytest.raises(ValueError, match="n_variants must be 0 or more"):
        augmix(toy_pairs(), -1, generator())
