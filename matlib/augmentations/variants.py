"""Augmentation by captions and images that exist: people's, or the embedded world's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from matlib.data.pairs import ImageTextPairs, OneToMany


def with_captions(
    pairs: ImageTextPairs, extra: Sequence[Sequence[str]], technique: str = "captions"
) -> OneToMany:
    """Each pair with further captions of its image.

    Args:
        pairs: N images with their captions (one each in the 1:1 setting).
        extra: N sequences of captions, which may differ in length and may be empty.
        technique: name of the result.

    Raises:
        ValueError: not one sequence per image, or a string where a sequence is expected.
    """
    originals = OneToMany.from_pairs(pairs)
    if len(extra) != len(originals):
        raise ValueError(f"{len(originals)} images need as many sets of captions; got {len(extra)}")
    if any(isinstance(captions, str) for captions in extra):
        raise ValueError("extra captions are a sequence of strings per image; got a bare string")
    captions = tuple((*own, *more) for own, more in zip(originals.captions, extra, strict=True))
    return replace(originals, technique=technique, captions=captions)


def with_images(pairs: ImageTextPairs, extra: Tensor, technique: str = "renderings") -> OneToMany:
    """Each pair with further images of its caption.

    Args:
        pairs: N images (3, H, W) with their captions.
        extra: uint8 (N, R, 3, H, W), R >= 0 further images of each caption.
        technique: name of the result.

    Raises:
        ValueError: another type or shape.
    """
    originals = OneToMany.from_pairs(pairs)
    n, _, *size = originals.images.shape
    fits = extra.ndim == 5 and extra.shape[0] == n and list(extra.shape[2:]) == size
    if not fits or extra.dtype != torch.uint8:
        raise ValueError(
            f"extra images are expected as uint8 ({n}, R, {', '.join(map(str, size))}); "
            f"got {extra.dtype} {tuple(extra.shape)}"
        )
    images = torch.cat([originals.all_images(), extra], 1)
    return OneToMany(technique, originals.captions, images)


def combine(a: OneToMany, b: OneToMany, technique: str | None = None) -> OneToMany:
    """All captions and all images of two techniques on the same originals.

    Training draws a caption and an image independently, so the combination of captions and
    renderings holds their cross product.

    Args:
        a, b: variants of the same originals.
        technique: name of the result; both names joined with `+` by default.

    Raises:
        ValueError: the techniques do not start from the same originals.
    """
    same_captions = [c[0] for c in a.captions] == [c[0] for c in b.captions]
    of_a, of_b = a.all_images(), b.all_images()
    if not same_captions or not torch.equal(of_a[:, 0], of_b[:, 0]):
        raise ValueError(
            f"{a.technique!r} and {b.technique!r} have different originals; "
            "make both from the same 1:1 pairs"
        )
    captions = tuple((*x, *y[1:]) for x, y in zip(a.captions, b.captions, strict=True))
    images = torch.cat([of_a, of_b[:, 1:]], 1)
    return OneToMany(technique or f"{a.technique}+{b.technique}", captions, images)


def other_captions(
    pairs: ImageTextPairs, one_to_one: ImageTextPairs
) -> tuple[tuple[str, ...], ...]:
    """The captions of each image that the 1:1 setting left out (four of Flickr's five).

    Args:
        pairs: N images with all their captions.
        one_to_one: the same images in the same order, `pairs.one_to_one(generator)`.

    Returns:
        N tuples, in the order of `pairs.captions`; for `with_captions(one_to_one, ...)`.

    Raises:
        ValueError: different images, or a caption that `pairs` does not have.
    """
    if pairs.image_ids != one_to_one.image_ids:
        raise ValueError("the 1:1 pairs must hold the same images in the same order")
    left: list[list[str]] = [[] for _ in range(len(pairs))]
    for caption, image in zip(pairs.captions, pairs.image_of.tolist(), strict=True):
        left[image].append(caption)
    for caption, image in zip(one_to_one.captions, one_to_one.image_of.tolist(), strict=True):
        if caption not in left[image]:
            raise ValueError(f"image {pairs.image_ids[image]} has no caption {caption!r} to leave")
        left[image].remove(caption)  # once: the same sentence may stand there twice
    return tuple(tuple(captions) for captions in left)
