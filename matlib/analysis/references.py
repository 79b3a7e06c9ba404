"""Is a measure fooled by its own reference model? The same measures under several of them.

A measure that is made of embeddings is the opinion of the encoder that made them. It is
repeated under encoders that were trained otherwise, and what is reported is how far they
agree: pair by pair for similarity, technique by technique for everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pandas as pd
import torch

from matlib.analysis.agreement import correlation, rank_correlation
from matlib.analysis.alignment import Truth, rank_pairs
from matlib.analysis.embeddings import VariantEmbeddings, embed_test, embed_variants
from matlib.analysis.technique import measure_technique
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.evaluation.statistics import Estimate
from matlib.models.dual_encoder import DualEncoder

MODEL_FREE = frozenset(
    {"distinct_1", "distinct_2", "compressed", "n_distinct", "true_fraction"},
)
"""Measures that no reference model takes part in."""

MIN_TECHNIQUES = 4
"""Fewer points have no interval of a rank correlation."""


def measure_under(
    references: Mapping[str, DualEncoder],
    techniques: Mapping[str, OneToMany],
    test: ImageTextPairs,
    *,
    truth: Truth | None = None,
    seed: int = 0,
    n_boot: int = 2000,
) -> pd.DataFrame:
    """Every measure of every technique under every reference model.

    Args:
        references: name -> encoder.
        techniques: name -> N originals with their variants, the same originals throughout.
        test: other images, for the shift.
        truth: share of a caption that is true of an original, if the world knows.
        seed: of bootstrap, permutations and folds.
        n_boot: bootstrap samples.

    Returns:
        column `reference` and `matlib.analysis.technique.COLUMNS`.
    """
    parts = []
    for name, encoder in references.items():
        there = embed_test(encoder, test)
        for technique, variants in techniques.items():
            table = measure_technique(
                encoder, variants, there, truth=truth, seed=seed, n_boot=n_boot
            )
            parts.append(table.assign(technique=technique, reference=name))
    return pd.concat(parts, ignore_index=True)


def reference_agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of two references over techniques, per measure and modality.

    Args:
        table: from `measure_under`; the originals (`none`) are a technique like the others.

    Returns:
        columns property, measure, modality, first, second, value, low, high, n (techniques);
        measures of fewer than four techniques, and those without a model, are left out.

    Raises:
        ValueError: fewer than two references.
    """
    names = list(dict.fromkeys(table["reference"]))
    if len(names) < 2:
        raise ValueError(f"agreement needs two references; got {names}")
    rows = []
    modelled = table[~table["measure"].isin(MODEL_FREE)]
    for key, part in modelled.groupby(["property", "measure", "modality"], sort=False):
        wide = part.pivot(index="technique", columns="reference", values="value").dropna()
        if len(wide) < MIN_TECHNIQUES:
            continue
        for first, second in combinations(names, 2):
            x, y = (torch.tensor(wide[name].to_numpy(copy=True)) for name in (first, second))
            found = rank_correlation(x, y)
            names_of_row = dict(zip(("property", "measure", "modality"), key, strict=True))
            rows.append({**names_of_row, "first": first, "second": second, "value": found.value,
                         "low": found.low, "high": found.high, "n": found.n})  # fmt: skip
    columns = ["property", "measure", "modality", "first", "second", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def pair_agreement(
    first: VariantEmbeddings, second: VariantEmbeddings, *, n_boot: int = 1000, seed: int = 0
) -> Estimate:
    """Spearman's correlation of the similarity of the same added pairs under two references.

    The interval resamples originals with all their pairs.

    Raises:
        ValueError: embeddings of other variants, or a technique that added nothing.
    """
    one, other = rank_pairs(first), rank_pairs(second)
    if not torch.equal(one.original, other.original):
        raise ValueError("the two references have embedded different variants")
    return correlation(one.similarity, other.similarity, one.original, n_boot=n_boot, seed=seed)


def embed_under(
    references: Mapping[str, DualEncoder], variants: OneToMany
) -> dict[str, VariantEmbeddings]:
    """`embed_variants` under every reference, by name."""
    return {name: embed_variants(encoder, variants) for name, encoder in references.items()}
