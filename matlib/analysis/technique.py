"""One augmentation technique, measured: alignment, diversity and shift as rows of one table."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch

from matlib.analysis.alignment import Truth, measure_alignment, true_aligned_fraction
from matlib.analysis.diversity import (
    compressed_share,
    measure_distinct_n,
    measure_diversity,
    n_distinct,
    n_distinct_images,
)
from matlib.analysis.embeddings import (
    HeldOutEmbeddings,
    VariantEmbeddings,
    embed_variants,
    image_sets,
)
from matlib.analysis.technique_shift import shift_measures
from matlib.data.pairs import OneToMany
from matlib.evaluation.bootstrap import Estimate, bootstrap_mean
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
        columns `COLUMNS`; `modality` is `pair`, `image`, `text` or `joint`. What a technique
        does not touch has no row: one that adds captions has no shift of images.
    """
    embedded = embed_variants(encoder, variants)
    rows = _alignment_rows(embedded, variants, truth, seed, n_boot)
    rows += _diversity_rows(embedded, variants, seed, n_boot)
    rows += [
        _row(("shift", m.measure, m.modality), m.estimate, m.p_value, bandwidth=m.bandwidth)
        for m in shift_measures(embedded, variants, test, seed=seed, n_boot=n_boot)
    ]
    table = pd.DataFrame([{"technique": variants.technique, **row} for row in rows])
    return table.reindex(columns=list(MEASURE_COLUMNS))


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
