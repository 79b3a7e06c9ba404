"""One augmentation technique, measured: alignment, diversity and shift as rows of one table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from matlib.analysis.alignment import Truth, measure_alignment, true_aligned_fraction
from matlib.analysis.diversity import measure_distinct_n, measure_diversity
from matlib.analysis.embeddings import VariantEmbeddings, embed_variants
from matlib.analysis.shift import median_bandwidth, mmd_test, two_sample_accuracy
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.evaluation.bootstrap import Estimate, bootstrap_mean
from matlib.models.dual_encoder import DualEncoder

COLUMNS = (
    "technique", "property", "measure", "modality", "value", "low", "high", "n", "p_value",
    "bandwidth",
)  # fmt: skip

N_FOLDS = 5


@dataclass(frozen=True)
class HeldOut:
    """Embeddings of test pairs that the added variants are compared with.

    Attributes:
        image: unit (N, D), one row per test image.
        text: unit (N, D), one caption of each.
    """

    image: Tensor
    text: Tensor

    def of(self, modality: str) -> Tensor:
        """The rows of `image` or `text`."""
        return self.image if modality == "image" else self.text


def embed_test(encoder: DualEncoder, test: ImageTextPairs) -> HeldOut:
    """Every test image and the first of its captions under `encoder`."""
    found = embed_variants(encoder, OneToMany.from_pairs(test))
    return HeldOut(found.images[:, 0], torch.stack([rows[0] for rows in found.captions]))


def measure_technique(
    encoder: DualEncoder,
    variants: OneToMany,
    test: HeldOut,
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
        columns `COLUMNS`; `modality` is `pair`, `image` or `text`. What a technique does not
        touch has no row: one that adds captions has no shift of images.
    """
    embedded = embed_variants(encoder, variants)
    rows = _alignment_rows(embedded, variants, truth, seed, n_boot)
    rows += _diversity_rows(embedded, variants, seed, n_boot)
    rows += _shift_rows(embedded, variants, test, seed, n_boot)
    table = pd.DataFrame([{"technique": variants.technique, **row} for row in rows])
    return table.reindex(columns=list(COLUMNS))


def _row(
    measure: tuple[str, str, str], found: Estimate, p_value: float = math.nan, **more: float
) -> dict[str, Any]:
    names = dict(zip(("property", "measure", "modality"), measure, strict=True))
    numbers = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    return {**names, **numbers, "p_value": p_value, **more}


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
    for modality, sets, n_added in (
        ("text", embedded.captions, embedded.n_added_captions),
        ("image", tuple(embedded.images), embedded.n_added_images),
    ):
        if n_added:
            measured = measure_diversity(sets, seed=seed, n_boot=n_boot)
            rows.append(_row(("diversity", "distance", modality), measured.pairwise_distance))
            rows.append(_row(("diversity", "vendi", modality), measured.vendi))
    return rows


def _shift_rows(
    embedded: VariantEmbeddings, variants: OneToMany, test: HeldOut, seed: int, n_boot: int
) -> list[dict[str, Any]]:
    """MMD^2 and two-sample accuracy against the test sample, per modality with variants.

    The kernel's width is the median distance among original training and test rows, so that
    all techniques are measured in one unit.
    """
    rows = []
    first_captions = torch.stack([own[0] for own in embedded.captions])
    for modality, originals, (added, group) in (
        ("text", first_captions, _once_each(embedded, variants)),
        ("image", embedded.images[:, 0], embedded.added_images()),
    ):
        if len(added) == 0 and not _is_reference(embedded):
            continue
        if len(added) == 0:
            added, group = originals, torch.arange(len(originals))
        there = test.of(modality)
        bandwidth = median_bandwidth(originals, there)
        generator = torch.Generator().manual_seed(seed)
        x = added[_one_of_each(group, generator)]
        mmd = mmd_test(x, there, generator, bandwidth=bandwidth)
        estimate = mmd2_interval(x, there, bandwidth)
        rows.append(_row(("shift", "mmd2", modality), estimate, mmd.p_value, bandwidth=bandwidth))
        elsewhere = torch.arange(len(there)) + len(embedded)
        told = two_sample_accuracy(
            added, there, groups_x=group, groups_y=elsewhere, seed=seed, n_boot=n_boot,
            n_folds=min(N_FOLDS, len(there), len(x)),
        )  # fmt: skip
        rows.append(_row(("shift", "accuracy", modality), told.accuracy))
    return rows


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
    return added[kept], torch.tensor(groups)


def _one_of_each(group: Tensor, generator: torch.Generator) -> Tensor:
    """int64 (G,): a random row of every original: variants of one are not independent."""
    order = torch.randperm(len(group), generator=generator)
    position = {int(original): int(row) for original, row in zip(group[order], order, strict=True)}
    return torch.tensor([position[original] for original in sorted(position)])


def mmd2_interval(x: Tensor, y: Tensor, bandwidth: float, z: float = 1.96) -> Estimate:
    """Unbiased MMD^2 with a Gaussian kernel and its jackknife interval.

    MMD^2 is a two-sample U-statistic, so leaving out one row at a time on either side gives
    its variance (Arvesen 1969). Without shift the statistic is degenerate and the interval is
    only a guide: the permutation test decides whether there is one.

    Args:
        x, y: (n, D) and (m, D), independent rows, n and m at least 3.
        bandwidth: sigma of exp(-|a - b|^2 / (2 sigma^2)).
        z: half-width in standard errors.

    Returns:
        value, interval, and n the number of rows of x; no interval (NaN) below three rows.
    """
    rows = torch.cat([x, y]).double()
    kernel = torch.cdist(rows, rows).square().div(-2 * bandwidth**2).exp().fill_diagonal_(0.0)
    n, m = len(x), len(y)
    xx, yy, xy = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    a, b, c = xx.sum(), yy.sum(), xy.sum()
    value = a / (n * (n - 1)) + b / (m * (m - 1)) - 2 * c / (n * m)
    if min(n, m) < 3:
        return Estimate(float(value), math.nan, math.nan, n)
    without_x = (
        (a - 2 * xx.sum(1)) / ((n - 1) * (n - 2))
        + b / (m * (m - 1))
        - 2 * (c - xy.sum(1)) / ((n - 1) * m)
    )
    without_y = (
        a / (n * (n - 1))
        + (b - 2 * yy.sum(1)) / ((m - 1) * (m - 2))
        - 2 * (c - xy.sum(0)) / (n * (m - 1))
    )
    variance = (n - 1) * without_x.var(correction=0) + (m - 1) * without_y.var(correction=0)
    half = z * float(variance.sqrt())
    return Estimate(float(value), float(value) - half, float(value) + half, n)
