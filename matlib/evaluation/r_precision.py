"""Retrieval where several answers are right: how many of them come first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PrecisionAtR(NamedTuple):
    """Per query, in [0, 1].

    Attributes:
        r_precision: float64 (Q,), the share of right answers among the first R, where R of the
            gallery are right.
        map_at_r: float64 (Q,), the mean over the first R places of the precision up to each
            place that is right, 0 for the others (Musgrave et al. 2020, *A Metric Learning
            Reality Check*, section 3.1).
    """

    r_precision: Tensor
    map_at_r: Tensor


def precision_at_r(
    query: Tensor, gallery: Tensor, right: Tensor, chunk: int = 1024
) -> PrecisionAtR:
    """R-precision and mAP@R of every query; of equal similarities the wrong one comes first.

    Args:
        query: (Q, D) unit embeddings.
        gallery: (G, D) unit embeddings.
        right: bool (Q, G); at least one of each row.

    Raises:
        ValueError: a shape that does not fit, or a query without a right answer.
    """
    if right.shape != (len(query), len(gallery)) or not bool(right.any(1).all()):
        raise ValueError(
            f"expected bool ({len(query)}, {len(gallery)}) with a right answer in every row; "
            f"got {tuple(right.shape)}"
        )
    parts = []
    for rows in torch.arange(len(query), device=query.device).split(chunk):
        own = right[rows.to(right.device)].to(query.device)
        score = (query[rows].float() @ gallery.float().T).double() - 1e-9 * own  # (q, G)
        n_right = own.sum(1)
        most = int(n_right.max())
        is_right = own.gather(1, score.topk(most, dim=1).indices)  # (q, most), best first
        place = torch.arange(1, most + 1, device=own.device)
        counts = (place <= n_right[:, None]) & is_right  # (q, most), within the first R
        so_far = is_right.cumsum(1).double() / place
        parts.append(
            PrecisionAtR(counts.sum(1).double() / n_right, (so_far * counts).sum(1) / n_right)
        )
    return PrecisionAtR(*(torch.cat(each).cpu() for each in zip(*parts, strict=True)))
