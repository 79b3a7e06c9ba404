"""What every comparison of two samples checks first: shapes, originals, independence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from matlib.analysis.embeddings import Matrix, float_rows

Groups = np.ndarray | Tensor | list[Any]
"""One label per row: the original that the row is a variant of."""


def two_samples(x: Matrix, y: Matrix) -> tuple[Tensor, Tensor]:
    a, b = float_rows(x), float_rows(y)
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "expected two samples (n, D) and (m, D) of the same D with n, m >= 2; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a, b


def group_labels(
    a: Tensor, b: Tensor, groups_x: Groups | None, groups_y: Groups | None
) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) and (m,): the original of each row, equal where the given labels are."""
    if (groups_x is None) != (groups_y is None):
        raise ValueError("give groups for both samples or for neither: labels are compared")
    if groups_x is None or groups_y is None:
        return np.arange(len(a)), np.arange(len(a), len(a) + len(b))
    if len(groups_x) != len(a) or len(groups_y) != len(b):
        raise ValueError(
            f"groups need one label per row ({len(a)} and {len(b)}); "
            f"got {len(groups_x)} and {len(groups_y)}"
        )
    pooled = np.concatenate([np.asarray(groups_x), np.asarray(groups_y)])
    codes = np.unique(pooled, return_inverse=True)[1]
    return codes[: len(a)], codes[len(a) :]


def one_per_group(labels: np.ndarray, generator: torch.Generator) -> Tensor:
    """int64 (G,): a random row of each group, in random order."""
    order = torch.randperm(len(labels), generator=generator)
    first = np.unique(labels[order.numpy()], return_index=True)[1]
    return order[torch.from_numpy(np.sort(first))]
