"""RandAugment as a pure function of pairs and generator."""

from __future__ import annotations

import pytest
import torch

from matlib.augmentations.images import randaugment
from tests.augmentations.pairs import CAPTIONS, toy_pairs
from tests.toys import generator


def test_variants_stand_behind_the_original_and_differ_from_it() -> None:
    pairs = toy_pairs()
    found = randaugment(pairs, 6, generator())
    assert found.images.shape == (len(pairs), 7, 3, 16, 16)
    assert found.images.dtype == torch.uint8
    assert torch.equal(found.images[:, 0], pairs.images.load(range(len(pairs))))
    changed = (found.images[:, 1:] != found.images[:, :1]).flatten(2).any(2)
    assert changed.float().mean() > 0.5  # "Identity" is one of the operations
    assert found.captions == tuple((c,) for c in CAPTIONS)


def test_the_same_generator_gives_the_same_bytes_whatever_the_global_state() -> None:
    first = randaugment(toy_pairs(), 3, generator(1)).images
    torch.rand(17)
    assert torch.equal(randaugment(toy_pairs(), 3, generator(1)).images, first)
    assert not torch.equal(randaugment(toy_pairs(), 3, generator(2)).images, first)


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    randaugment(toy_pairs(), 2, generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_generator_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        torch.rand(1)
        raise RuntimeError("no image")

    monkeypatch.setattr("torchvision.transforms.v2.RandAugment.forward", fail)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no image"):
        randaugment(toy_pairs(), 2, generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_no_operation_is_the_identity() -> None:
    found = randaugment(toy_pairs(), 2, generator(), n_operations=0).images
    assert torch.equal(found, found[:, :1].expand_as(found))


def test_several_captions_per_image_are_kept() -> None:
    found = randaugment(toy_pairs(CAPTIONS[:4], per_image=2), 1, generator())
    assert found.captions == (CAPTIONS[:2], CAPTIONS[2:4])


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="magnitude must be in 0 to 30"):
        randaugment(toy_pairs(), 1, generator(), magnitude=31)
    with pytest.raises(ValueError, match="0 or more"):
        randaugment(toy_pairs(), -1, generator())
