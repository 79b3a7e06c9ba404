"""How far every query of a gallery is from failing, and what its failing is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AimedAt = Literal["both", "tr", "ir"]

TIE = 1e-6
"""A wrong answer this little below the right one stands before it, as in the evaluation."""

SEARCH_TIE = TIE / 2
"""What a search counts on: similarities are rounded otherwise in blocks of another size."""

NOTHING = -3.0
"""Stands for the similarity of an answer that does not exist; cosines are at least -1."""


@dataclass(frozen=True)
class Aim:
    """What each query is worth to the attacker; all of them together 1.

    Attributes:
        tr: float (N,), of every image as a query for captions.
        ir: float (M,), of every caption as a query for images.
    """

    tr: Tensor
    ir: Tensor

    @classmethod
    def at(cls, relevant: Tensor, target: AimedAt = "both", aside: float = 0.05) -> Aim:
        """Recall at 1: the mean of both directions, or one of them.

        Args:
            relevant: bool (N, M).
            aside: worth of a direction that is not aimed at, as a share of the other's.

        Raises:
            ValueError: an unknown target.
        """
        if target not in ("both", "tr", "ir"):
            raise ValueError(f"target must be 'both', 'tr' or 'ir'; got {target!r}")
        n, m = relevant.shape
        tr = torch.full((n,), (aside if target == "ir" else 1.0) / n)
        ir = torch.full((m,), (aside if target == "tr" else 1.0) / m)
        return cls(tr, ir)._scaled()

    def among(self, tr: Tensor, ir: Tensor) -> Aim:
        """The same aim at some queries only: those that no earlier gallery made fail.

        Args:
            tr, ir: bool (N,) and (M,).
        """
        return Aim(self.tr * tr.to(self.tr), self.ir * ir.to(self.ir))._scaled()

    def _scaled(self) -> Aim:
        """All together 1, or nothing where nothing is aimed at."""
        total = (self.tr.sum() + self.ir.sum()).clamp_min(torch.finfo(self.tr.dtype).tiny)
        return Aim(self.tr / total, self.ir / total)

    def to(self, like: Tensor) -> Aim:
        """On the device and in the dtype of another tensor."""
        return Aim(self.tr.to(like), self.ir.to(like))

    def failing(self, tr: Tensor, ir: Tensor, tie: float = SEARCH_TIE) -> Tensor:
        """Scalar: worth of the queries that fail, from their margins."""
        return (self.tr * (tr >= -tie)).sum() + (self.ir * (ir >= -tie)).sum()


def margins(similarity: Tensor, relevant: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) and (M,): highest wrong minus highest right similarity of images and of captions.

    Above 0 the query fails at 1. A query without a wrong answer never does.

    Args:
        similarity: float (N, M), cosines.
        relevant: bool (N, M).
    """
    wrong = similarity.masked_fill(relevant, NOTHING)  # (N, M)
    right = similarity.masked_fill(~relevant, NOTHING)  # (N, M)
    return wrong.amax(1) - right.amax(1), wrong.amax(0) - right.amax(0)  # (N,), (M,)


def soft_margins(similarity: Tensor, relevant: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """The same with `width * logsumexp(. / width)` for the maximum: every near answer counts."""
    wrong = similarity.masked_fill(relevant, NOTHING) / width
    right = similarity.masked_fill(~relevant, NOTHING) / width
    tr, ir = (wrong.logsumexp(axis) - right.logsumexp(axis) for axis in (1, 0))  # (N,), (M,)
    return width * tr, width * ir


def soft_worth(margin: Tensor) -> Tensor:
    """What a query counts by its margin in units of the softness: 0 once it surely fails.

    Below it falls, ever more slowly: so a query near to failing pulls most, and one far from it
    is given up, but not quite.
    """
    return -torch.log1p(F.softplus(-margin))


def unit_of(tr: Tensor, ir: Tensor) -> float:
    """The scale of a model's margins: their median magnitude, by which softness is measured."""
    return max(float(torch.cat([tr, ir]).abs().median()), 1e-4)
