"""The shift of one technique against test data: captions, images, and pairs of both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.analysis.alignment import added_pairs
from matlib.analysis.embeddings import HeldOutEmbeddings, VariantEmbeddings, joint_rows
from matlib.analysis.shift.classifier import two_sample_accuracy
from matlib.analysis.shift.frechet import frechet_interval, frechet_test
from matlib.analysis.shift.mmd import (
    kernel_distance_interval,
    kernel_distance_test,
    median_bandwidth,
    mmd2_interval,
    mmd_test,
)
from matlib.data.pairs import OneToMany
from matlib.evaluation.bootstrap import Estimate

N_FOLDS = 5
N_SHIFT_PERMUTATIONS = 99
"""Of the Fréchet distance, each of which costs two decompositions."""


@dataclass(frozen=True)
class Sample:
    """What a technique adds, beside the test data and what it started from.

    Attributes:
        modality: `text`, `image` or `joint`.
        added: (T, D), the added rows.
        group: int64 (T,), the original of each.
        originals: (N, D), the rows of the originals.
        there: (M, D), the test rows.
        features: of `added` and `there` for the classifier, where these differ.
    """

    modality: str
    added: Tensor
    group: Tensor
    originals: Tensor
    there: Tensor
    features: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ShiftMeasure:
    """One number: `mmd2`, `kernel_distance`, `frechet` (excess over no shift) or `accuracy`."""

    measure: str
    modality: str
    estimate: Estimate
    p_value: float = math.nan
    bandwidth: float = math.nan


def shift_measures(
    embedded: VariantEmbeddings,
    variants: OneToMany,
    test: HeldOutEmbeddings,
    *,
    seed: int = 0,
    n_boot: int = 2000,
) -> list[ShiftMeasure]:
    """MMD^2, kernel and Fréchet distance and two-sample accuracy against the test sample.

    For each modality that has added rows; the originals stand in where nothing was added. The
    distances use one row of every original, since variants of one are not independent. The
    kernel's width is the median distance among original training and test rows, so that all
    techniques are measured in one unit.

    Args:
        embedded: the variants under the reference model.
        variants: the same with their words and pixels.
        test: of other originals, under the same model.
        seed: of draws, permutations, folds and bootstrap.
        n_boot: bootstrap samples of the accuracy.
    """
    found = []
    for sample in _samples(embedded, variants, test, seed):
        generator = torch.Generator().manual_seed(seed)
        bandwidth = median_bandwidth(sample.originals, sample.there)
        x, y = sample.added[_one_of_each(sample.group, generator)], sample.there
        mmd = mmd_test(x, y, generator, bandwidth=bandwidth)
        value = mmd2_interval(x, y, bandwidth)
        found.append(ShiftMeasure("mmd2", sample.modality, value, mmd.p_value, bandwidth))
        kid = kernel_distance_test(x, y, generator)
        value = kernel_distance_interval(x, y)
        found.append(ShiftMeasure("kernel_distance", sample.modality, value, kid.p_value))
        frechet = frechet_test(x, y, generator, n_permutations=N_SHIFT_PERMUTATIONS)
        value = frechet_interval(x, y, without_shift=frechet.without_shift)
        found.append(ShiftMeasure("frechet", sample.modality, value, frechet.p_value))
        here, there = sample.features
        told = two_sample_accuracy(
            here, there, groups_x=sample.group,
            groups_y=torch.arange(len(there)) + len(embedded), seed=seed, n_boot=n_boot,
            n_folds=min(N_FOLDS, len(there), len(x)),
        )  # fmt: skip
        found.append(ShiftMeasure("accuracy", sample.modality, told.accuracy))
    return found


def joint_features(image: Tensor, text: Tensor) -> Tensor:
    """(N, 3 D): image, caption, and their product entry by entry.

    A linear classifier on the first two alone adds up an opinion on the image and one on the
    caption, and so cannot see that they do not belong together.
    """
    return torch.cat([image, text, image * text * image.shape[1] ** 0.5], 1)


def _samples(
    embedded: VariantEmbeddings, variants: OneToMany, test: HeldOutEmbeddings, seed: int
) -> Iterator[Sample]:
    text, image = torch.stack([own[0] for own in embedded.captions]), embedded.images[:, 0]
    nothing = embedded.n_added_captions + embedded.n_added_images == 0
    own = torch.arange(len(embedded))
    for modality, originals, (added, group) in (
        ("text", text, _once_each(embedded, variants)),
        ("image", image, embedded.added_images()),
    ):
        if nothing:
            added, group = originals, own
        if len(added):
            there = test.of(modality)
            yield Sample(modality, added, group, originals, there, (added, there))
    if nothing:
        images, captions, group = image, text, own
    else:
        images, captions, group = _pairs(embedded, variants, seed)
    features = joint_features(images, captions), joint_features(test.image, test.text)
    originals, there = joint_rows(image, text), test.of("joint")
    yield Sample("joint", joint_rows(images, captions), group, originals, there, features)


def _once_each(embedded: VariantEmbeddings, variants: OneToMany) -> tuple[Tensor, Tensor]:
    """`embedded.added_captions()` with each sentence once, under the original it was written for.

    A sentence added to several originals (a mismatched caption is) would stand on both sides
    of a split, and the classifier would know it by heart.
    """
    added, group = embedded.added_captions()
    sentences = [caption for own in variants.captions for caption in own[1:]]
    first = {caption: row for row, caption in reversed(list(enumerate(sentences)))}
    kept = sorted(first.values())
    written_for = {own[0]: i for i, own in enumerate(variants.captions)}
    groups = [written_for.get(sentences[row], int(group[row])) for row in kept]
    return added[kept], torch.tensor(groups, dtype=torch.long)


def _pairs(
    embedded: VariantEmbeddings, variants: OneToMany, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, caption (P, D) and original (P,) of the added pairs, no sentence in two originals.

    For the same reason as in `_once_each`; which original keeps a shared sentence is random.
    """
    caption_row, image_row, original = added_pairs(embedded)
    sentences = [caption for own in variants.captions for caption in own]
    keeper: dict[str, int] = {}
    generator = torch.Generator().manual_seed(seed)
    for row in torch.randperm(len(original), generator=generator).tolist():
        keeper.setdefault(sentences[caption_row[row]], int(original[row]))
    kept = torch.tensor(
        [
            keeper[sentences[c]] == o
            for c, o in zip(caption_row.tolist(), original.tolist(), strict=True)
        ]
    )
    images, captions = embedded.images.flatten(0, 1), torch.cat(embedded.captions)
    return images[image_row[kept]], captions[caption_row[kept]], original[kept]


def _one_of_each(group: Tensor, generator: torch.Generator) -> Tensor:
    """int64 (G,): a random row of every original: variants of one are not independent."""
    order = torch.randperm(len(group), generator=generator)
    position = {int(original): int(row) for original, row in zip(group[order], order, strict=True)}
    return torch.tensor([position[original] for original in sorted(position)])
