"""Given captions and images as one-to-many sets."""

from __future__ import annotations

import pytest
import torch

from matlib.augmentations.variants import combine, with_captions, with_images
from tests.augmentations.pairs import CAPTIONS, toy_pairs
from tests.toys import generator

EXTRA = (("one", "two"), (), ("three",), (), ("four", "five", "six"))


def extra_images(n: int = 5, renderings: int = 2) -> torch.Tensor:
    shape = (n, renderings, 3, 16, 16)
    return torch.randint(256, shape, generator=generator(1), dtype=torch.uint8)


def test_extra_captions_follow_their_original() -> None:
    found = with_captions(toy_pairs(), EXTRA)
    assert found.technique == "captions"
    assert found.captions == tuple((c, *e) for c, e in zip(CAPTIONS, EXTRA, strict=True))
    assert found.images.shape[1] == 1


def test_extra_images_follow_their_original() -> None:
    pairs, extra = toy_pairs(), extra_images()
    found = with_images(pairs, extra)
    assert torch.equal(found.images[:, 0], pairs.images.load(range(5)))
    assert torch.equal(found.images[:, 1:], extra)


def test_combining_keeps_each_original_once() -> None:
    pairs, extra = toy_pairs(), extra_images()
    found = combine(with_captions(pairs, EXTRA), with_images(pairs, extra))
    assert found.technique == "captions+renderings"
    assert found.captions == with_captions(pairs, EXTRA).captions
    assert torch.equal(found.images, with_images(pairs, extra).images)
    twice = combine(with_captions(pairs, EXTRA), with_captions(pairs, EXTRA), "twice")
    assert twice.captions[0] == (CAPTIONS[0], "one", "two", "one", "two")
    assert (twice.technique, twice.images.shape[1]) == ("twice", 1)


def test_combining_different_originals_is_refused() -> None:
    a = with_captions(toy_pairs(), EXTRA)
    with pytest.raises(ValueError, match="different originals"):
        combine(a, with_captions(toy_pairs(CAPTIONS[::-1]), EXTRA))
    with pytest.raises(ValueError, match="different originals"):
        combine(a, with_images(toy_pairs(CAPTIONS[:4]), extra_images(4)))


def test_extras_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="as many sets"):
        with_captions(toy_pairs(), EXTRA[:3])
    with pytest.raises(ValueError, match="bare string"):
        with_captions(toy_pairs(), ["a caption"] * 5)
    for bad in (extra_images(4), extra_images().float(), extra_images()[..., :8]):
        with pytest.raises(ValueError, match="extra images are expected as uint8"):
            with_images(toy_pairs(), bad)
