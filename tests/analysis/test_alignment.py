"""Alignment against loops written out, and its extremes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from matlib.analysis.alignment import measure_alignment, rank_pairs, true_aligned_fraction
from matlib.analysis.embeddings import VariantEmbeddings
from matlib.augmentations.variants import with_captions
from tests.augmentations.pairs import toy_pairs
from tests.toys import generator


def random_variants(sizes: list[int], n_images: int, seed: int = 0) -> VariantEmbeddings:
    g = generator(seed)
    captions = tuple(F.normalize(torch.randn(n, 6, generator=g), dim=1) for n in sizes)
    images = F.normalize(torch.randn(len(sizes), n_images, 6, generator=g), dim=2)
    return VariantEmbeddings("random", captions, images)


@pytest.mark.parametrize("chunk", [1, 5, 4096])
def test_pairs_and_ranks_equal_loops(chunk: int) -> None:
    variants = random_variants([3, 1, 2, 4], n_images=3)
    found = rank_pairs(variants, chunk)
    rows = []
    for i, captions in enumerate(variants.captions):
        for c, caption in enumerate(captions):
            for r, image in enumerate(variants.images[i]):
                if (c, r) == (0, 0):
                    continue
                own = float(caption @ image)
                others = [j for j in range(4) if j != i]
                n_captions = sum(float(variants.captions[j][0] @ image) >= own for j in others)
                n_images = sum(float(variants.images[j, 0] @ caption) >= own for j in others)
                rows.append((i, own, n_captions, n_images))
    assert found.original.tolist() == [row[0] for row in rows]
    assert found.similarity.tolist() == pytest.approx([row[1] for row in rows], abs=1e-6)
    assert found.caption_rank.tolist() == [row[2] for row in rows]
    assert found.image_rank.tolist() == [row[3] for row in rows]


def test_each_original_counts_once_however_many_variants_it_has() -> None:
    variants = random_variants([5, 1, 2], n_images=1)
    pairs = rank_pairs(variants)
    means = [float(pairs.similarity[pairs.original == i].mean()) for i in (0, 2)]
    found = measure_alignment(variants)
    assert found.similarity.value == pytest.approx(sum(means) / 2, abs=1e-6)
    assert found.similarity.n == 2  # original 1 has no added pair
    assert found.n_pairs == 5
    assert found.similarity.low <= found.similarity.value <= found.similarity.high


def test_copies_of_well_separated_originals_are_perfectly_aligned() -> None:
    eye = torch.eye(6)
    variants = VariantEmbeddings("copies", tuple(e.expand(3, 6) for e in eye), eye[:, None])
    found = measure_alignment(variants)
    assert found.similarity.value == found.original_similarity.value == pytest.approx(1)
    assert found.finds_caption.value == found.finds_image.value == 1
    assert found.median_caption_rank == found.median_image_rank == 0


def test_captions_of_other_images_are_not_aligned() -> None:
    eye = torch.eye(6)
    wrong = tuple(torch.stack([e, o]) for e, o in zip(eye, eye.roll(1, 0), strict=True))
    found = measure_alignment(VariantEmbeddings("mismatched", wrong, eye[:, None]))
    assert found.similarity.value == pytest.approx(0)
    assert found.original_similarity.value == pytest.approx(1)
    assert found.finds_image.value == 0


@pytest.mark.parametrize("d", [48, 64, 128])
def test_a_caption_of_another_original_is_never_found(d: int) -> None:
    """It ties with itself, ties count against, and rounding must not decide ties."""
    own = F.normalize(torch.randn(60, d, generator=generator()), dim=1)
    other = own.roll(1, 0)
    sets = tuple(torch.stack([own, other], 1))
    found = measure_alignment(VariantEmbeddings("mismatched", sets, other[:, None]))
    assert found.caption_similarity.value == pytest.approx(1)  # as near as can be
    assert found.finds_caption.value == 0


def test_a_collapsed_reference_finds_nothing() -> None:
    ones = torch.ones(4, 2, 6) / 6**0.5
    found = measure_alignment(VariantEmbeddings("collapsed", tuple(ones), ones))
    assert found.finds_caption.value == 0
    assert found.median_image_rank == 3


def test_a_technique_without_variants_is_refused() -> None:
    with pytest.raises(ValueError, match="added no caption and no image"):
        rank_pairs(random_variants([1, 1], n_images=1))


def test_the_true_fraction_averages_added_captions_within_originals_first() -> None:
    extra = (("true", "true", "false"), ("true",), (), (), ("false",))
    sets = with_captions(toy_pairs(), extra)
    asked: list[tuple[int, str]] = []

    def truth(image: int, caption: str) -> float:
        asked.append((image, caption))
        return float(caption == "true")

    found = true_aligned_fraction(sets, truth)
    assert found.value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.n == 3
    assert asked == [(i, c) for i, captions in enumerate(extra) for c in captions]
    with pytest.raises(ValueError, match="no caption to check"):
        true_aligned_fraction(with_captions(toy_pairs(), [()] * 5), truth)


def test_added_captions_and_added_images_are_also_told_apart() -> None:
    variants = random_variants([3, 2], n_images=2)
    found = measure_alignment(variants)
    captions = [
        float((c[1:] @ variants.images[i, 0]).mean()) for i, c in enumerate(variants.captions)
    ]
    images = [float(variants.images[i, 1] @ c[0]) for i, c in enumerate(variants.captions)]
    assert found.caption_similarity.value == pytest.approx(sum(captions) / 2, abs=1e-6)
    assert found.image_similarity.value == pytest.approx(sum(images) / 2, abs=1e-6)
    only_captions = measure_alignment(random_variants([3, 2], n_images=1))
    assert math.isnan(only_captions.image_similarity.value)
    assert only_captions.image_similarity.n == 0
