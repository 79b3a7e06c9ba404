"""One augmentation technique, measured: alignment, diversity and shift as rows of one table.

The shift of one technique against test data: captions, images, and pairs of both.

Where a technique lies: one number each for alignment, diversity and shift of what it adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from matlib.analysis.alignment import Truth, added_pairs, measure_alignment, true_aligned_fraction
from matlib.analysis.diversity import (
    compressed_share,
    measure_distinct_n,
    measure_diversity,
    n_distinct,
    n_distinct_images,
    vendi_score,
)
from matlib.analysis.embeddings import (
    HeldOutEmbeddings,
    VariantEmbeddings,
    embed_variants,
    image_sets,
    joint_rows,
)
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
from matlib.evaluation.statistics import Estimate, bootstrap_mean
from matlib.models.dual_encoder import DualEncoder

MEASURE_COLUMNS = (
    "technique", "property", "measure", "modality", "value", "low", "high", "n", "p_value",
    "bandwidth",
)  # fmt: skip


def measure_technique(
    encoder: DualEncoder,
    variants: OneToMany,
    test: HeldOutEmbeddings,
    *,
    truth: Truth | None,
    seed: int = 0,
    n_boot: int = 2000,
) -> pd.DataFrame:
    """Every measure of one technique, one row each, with 95 % intervals over originals.

    A technique that added nothing is the reference: its pairs are the originals themselves.

    Args:
        encoder: the reference model, trained by none of the compared techniques.
        variants: N originals with their variants.
        test: `embed_test` of other images under the same encoder.
        truth: share of a caption that is true of an original, if the world knows.
        seed: of bootstrap, permutations and folds.
        n_boot: bootstrap samples.

    Returns:
        columns `MEASURE_COLUMNS`; `modality` is `pair`, `image`, `text` or `joint`. What a
        technique does not touch has no row: one that adds captions has no shift of images.
    """
    embedded = embed_variants(encoder, variants)
    rows = _alignment_rows(embedded, variants, truth, seed, n_boot)
    rows += _diversity_rows(embedded, variants, seed, n_boot)
    rows += _shift_rows(embedded, variants, test, seed, n_boot)
    table = pd.DataFrame([{"technique": variants.technique, **row} for row in rows])
    return table.reindex(columns=list(MEASURE_COLUMNS))


def _row(
    measure: tuple[str, str, str], found: Estimate, p_value: float = math.nan, **more: float
) -> dict[str, Any]:
    names = dict(zip(("property", "measure", "modality"), measure, strict=True))
    return {**names, **found.columns(), "n": found.n, "p_value": p_value, **more}


def _is_reference(embedded: VariantEmbeddings) -> bool:
    return embedded.n_added_captions + embedded.n_added_images == 0


def _alignment_rows(
    embedded: VariantEmbeddings,
    variants: OneToMany,
    truth: Truth | None,
    seed: int,
    n_boot: int,
) -> list[dict[str, Any]]:
    if _is_reference(embedded):
        text = torch.stack([rows[0] for rows in embedded.captions])
        similarity = (text * embedded.images[:, 0]).sum(1).double()
        found = {"similarity": bootstrap_mean(similarity, seed=seed, n_boot=n_boot)}
    else:
        measured = measure_alignment(embedded, seed=seed, n_boot=n_boot)
        found = {
            "similarity": measured.similarity,
            "finds_caption": measured.finds_caption,
            "finds_image": measured.finds_image,
        }
    if truth is not None and embedded.n_added_captions:
        found["true_fraction"] = true_aligned_fraction(variants, truth, seed=seed, n_boot=n_boot)
    return [_row(("alignment", name, "pair"), estimate) for name, estimate in found.items()]


def _diversity_rows(
    embedded: VariantEmbeddings, variants: OneToMany, seed: int, n_boot: int
) -> list[dict[str, Any]]:
    rows = []
    if embedded.n_added_captions or _is_reference(embedded):
        for n in (1, 2):
            found = measure_distinct_n(variants.captions, n, seed=seed, n_boot=n_boot)
            rows.append(_row(("diversity", f"distinct_{n}", "text"), found))
        for name, of_set in (("compressed", compressed_share), ("n_distinct", n_distinct)):
            values = torch.tensor([float(of_set(own)) for own in variants.captions])
            found = bootstrap_mean(values.double(), seed=seed, n_boot=n_boot)
            rows.append(_row(("diversity", name, "text"), found))
    for modality, sets, n_added in (
        ("text", embedded.captions, embedded.n_added_captions),
        ("image", tuple(embedded.images), embedded.n_added_images),
    ):
        if n_added:
            measured = measure_diversity(sets, seed=seed, n_boot=n_boot)
            rows.append(_row(("diversity", "distance", modality), measured.pairwise_distance))
            rows.append(_row(("diversity", "vendi", modality), measured.vendi))
    if embedded.n_added_images:
        counts = torch.tensor([float(n_distinct_images(own)) for own in image_sets(variants)])
        found = bootstrap_mean(counts.double(), seed=seed, n_boot=n_boot)
        rows.append(_row(("diversity", "n_distinct", "image"), found))
    return rows


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


def _shift_rows(
    embedded: VariantEmbeddings,
    variants: OneToMany,
    test: HeldOutEmbeddings,
    seed: int,
    n_boot: int,
) -> list[dict[str, Any]]:
    """MMD^2, kernel and Fréchet distance and two-sample accuracy against the test sample.

    For each modality that has added rows; the originals stand in where nothing was added. The
    distances use one row of every original, since variants of one are not independent. The
    kernel's width is the median distance among original training and test rows, so that all
    techniques are measured in one unit. Of the Fréchet distance it is the excess over no shift.
    """
    rows = []
    for sample in _samples(embedded, variants, test, seed):

        def add(measure: str, found: Estimate, of: str = sample.modality, **more: float) -> None:
            rows.append(_row(("shift", measure, of), found, **more))

        generator = torch.Generator().manual_seed(seed)
        bandwidth = median_bandwidth(sample.originals, sample.there)
        x, y = sample.added[_one_of_each(sample.group, generator)], sample.there
        mmd = mmd_test(x, y, generator, bandwidth=bandwidth)
        add("mmd2", mmd2_interval(x, y, bandwidth), p_value=mmd.p_value, bandwidth=bandwidth)
        kid = kernel_distance_test(x, y, generator)
        add("kernel_distance", kernel_distance_interval(x, y), p_value=kid.p_value)
        frechet = frechet_test(x, y, generator, n_permutations=N_SHIFT_PERMUTATIONS)
        excess = frechet_interval(x, y, without_shift=frechet.without_shift)
        add("frechet", excess, p_value=frechet.p_value)
        here, there = sample.features
        told = two_sample_accuracy(
            here, there, groups_x=sample.group,
            groups_y=torch.arange(len(there)) + len(embedded), seed=seed, n_boot=n_boot,
            n_folds=min(N_FOLDS, len(there), len(x)),
        )  # fmt: skip
        add("accuracy", told.accuracy)
    return rows


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
    nothing = _is_reference(embedded)
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


COORDINATE_NAMES = ("similarity", "vendi", "mmd2")
"""Alignment, diversity, shift; diversity is that of the *added* variants among themselves."""


def technique_coordinates(
    embedded: VariantEmbeddings, test: HeldOutEmbeddings, *, seed: int = 0
) -> dict[str, float]:
    """Mean similarity of added pairs, Vendi score of added variants, MMD^2 to test data.

    Diversity leaves the original out: a wrong variant lies far from the original, and would
    count as diverse for being wrong. Shift is that of the added captions or images themselves,
    one of each original. Where a technique adds both, the means of both.

    Args:
        embedded: N originals with their variants under the reference model.
        test: of other originals, under the same model.
        seed: which of an original's variants stand for it.

    Returns:
        a number for each of `NAMES`; for the originals alone, their own similarity and shift
        and a diversity of 1.
    """
    text = torch.stack([rows[0] for rows in embedded.captions])
    image = embedded.images[:, 0]
    if _is_reference(embedded):
        vendi, found = [1.0], [(text, text, test.text), (image, image, test.image)]
        similarity = (text * image).sum(1)
    else:
        caption_row, image_row, _ = added_pairs(embedded)
        similarity = (
            torch.cat(embedded.captions)[caption_row] * embedded.images.flatten(0, 1)[image_row]
        ).sum(1)
        vendi, found = [], []
        if embedded.n_added_captions:
            sets = [rows[1:] for rows in embedded.captions if len(rows) > 1]
            vendi.append(_mean_vendi(sets))
            found.append((_one_of_each_set(sets, seed), text, test.text))
        if embedded.n_added_images:
            sets = list(embedded.images[:, 1:])
            vendi.append(_mean_vendi(sets))
            found.append((_one_of_each_set(sets, seed), image, test.image))
    shift = [
        mmd2_interval(added, there, median_bandwidth(originals, there)).value
        for added, originals, there in found
    ]
    numbers = (float(similarity.mean()), _mean(vendi), _mean(shift))
    return dict(zip(COORDINATE_NAMES, numbers, strict=True))


def _mean_vendi(sets: list[Tensor]) -> float:
    return _mean([vendi_score(rows) for rows in sets])


def _one_of_each_set(sets: list[Tensor], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [rows[int(torch.randint(len(rows), (), generator=generator))] for rows in sets]
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
