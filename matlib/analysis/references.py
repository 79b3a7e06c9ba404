"""Is a measure fooled by its own reference model? The same measures under several of them.

A measure that is made of embeddings is the opinion of the encoder that made them. It is
repeated under encoders that were trained otherwise, and what is reported is how far they
agree, technique by technique.
"""

from __future__ import annotations

from itertools import combinations

import pandas as pd
import torch

from matlib.analysis.agreement import rank_correlation

MODEL_FREE = frozenset(
    {"distinct_1", "distinct_2", "compressed", "n_distinct", "true_fraction"},
)
"""Measures that no reference model takes part in."""

MIN_TECHNIQUES = 4
"""Fewer points have no interval of a rank correlation."""


def reference_agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of two references over techniques, per measure and modality.

    Args:
        table: of `matlib.analysis.technique.measure_technique`, with the columns `technique` and
            `reference`; the originals (`none`) are a technique like the others.

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
