"""Signs that a training goes wrong although its loss is a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COLLAPSE_SPREAD = 1e-3
"""Similarities that differ by less than this are all equal: times CLIP's largest scale of 100
their logits differ by 0.1, and no pair is told from another (source: ours)."""

OVERFIT_DROP = 0.05
"""A fall of held-out robust recall that is no longer noise of a few hundred pairs: two standard
errors at recall 0.5 and 400 pairs, 2 * sqrt(0.25 / 400) = 0.05 (source: ours)."""


def spread(features: Tensor, others: Tensor) -> Tensor:
    """Scalar: largest minus smallest similarity between unit (B, D) and (C, D) embeddings."""
    similarity = features.detach() @ others.detach().T
    return similarity.max() - similarity.min()


def recall_at_1(image: Tensor, text: Tensor) -> Tensor:
    """Scalar in [0, 1]: mean recall at 1 of both directions among the pairs of a batch.

    A tie counts as a miss, so that a collapsed embedding recalls nothing.

    Args:
        image, text: unit (G, D), row i of one belongs to row i of the other.
    """
    similarity = image.detach() @ text.detach().T
    own = similarity.diagonal()
    others = similarity.masked_fill(
        torch.eye(len(own), dtype=torch.bool, device=own.device), -math.inf
    )
    to_text, to_image = own > others.amax(1), own > others.amax(0)
    return (to_text.float().mean() + to_image.float().mean()) / 2


def collapse(step: int, spread_now: float, warnings: Sequence[str]) -> str | None:
    """A warning when all similarities of a batch are equal; once in a run."""
    if not spread_now < COLLAPSE_SPREAD or any("collapsed" in text for text in warnings):
        return None
    return (
        f"step {step}: the embedding has collapsed: all similarities of the batch lie within "
        f"{spread_now:.1e}. Lower the learning rate or eps, or warm up for longer."
    )


@dataclass(frozen=True)
class HeldOut:
    """One measurement beside training.

    Attributes:
        step: after which step.
        held_out: robust recall on held-out pairs, in [0, 1].
        train: mean robust recall of the batches since the last measurement; NaN if unknown.
    """

    step: int
    held_out: float
    train: float


def overfitting(measured: Sequence[HeldOut], warnings: Sequence[str]) -> str | None:
    """A warning when training gains robustness that held-out pairs lose; once in a run.

    That is catastrophic over-fitting (Wong et al. 2020; Rice et al. 2020): held-out robust
    recall lies `OVERFIT_DROP` below its best so far while that of training has risen since.
    """
    if len(measured) < 2 or any("over-fitting" in text for text in warnings):
        return None
    best, last = max(measured, key=lambda m: m.held_out), measured[-1]
    if not (last.held_out <= best.held_out - OVERFIT_DROP and last.train > best.train):
        return None
    return (
        f"step {last.step}: catastrophic over-fitting: since step {best.step} robust recall rose "
        f"from {best.train:.2f} to {last.train:.2f} in training and fell from "
        f"{best.held_out:.2f} to {last.held_out:.2f} on held-out pairs. Stop at step "
        f"{best.step}, or train with more attack steps or a smaller eps."
    )
