"""Image-text retrieval: who finds whom, per query, for any number of captions per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Direction = Literal["TR", "IR"]
"""Of images that look for captions (text retrieval), or captions for images."""

DIRECTIONS: tuple[Direction, Direction] = ("TR", "IR")
KS = (1, 5, 10)
"""Recall is reported among so many first answers."""

TIE_TOLERANCE = 1e-6
"""Cosine similarities this near are one similarity: a product of two float32 unit vectors is
rounded by about 1e-7, differently in blocks of different size, even between copies."""


@dataclass(frozen=True)
class Outcomes:
    """Rank of the first right answer of every query; 0 is the top.

    Attributes:
        tr_rank: int64 (N,), text retrieval: per image, the rank of its best true caption.
        ir_rank: int64 (M,), image retrieval: per caption, the rank of the best image it is
            true of.
    """

    tr_rank: Tensor
    ir_rank: Tensor

    def hits(self, direction: Direction, k: int) -> Tensor:
        """bool per query: a right answer is among the top k.

        Raises:
            ValueError: another direction than `TR` or `IR`, or k below 1.
        """
        if direction not in ("TR", "IR") or k < 1:
            raise ValueError(f"expected 'TR' or 'IR' and k >= 1; got {direction!r} and {k}")
        ranks = self.tr_rank if direction == "TR" else self.ir_rank
        return ranks < k

    def recall(self, direction: Direction, k: int) -> float:
        """TR@k or IR@k in [0, 1]."""
        return float(self.hits(direction, k).double().mean())


def retrieve(image: Tensor, text: Tensor, relevant: Tensor, chunk: int = 1024) -> Outcomes:
    """Rank every caption for every image and every image for every caption.

    An image is right at k if any caption that is true of it is in its top k (TR@k); a caption
    is right at k if any image that it is true of is (IR@k), as in Karpathy & Fei-Fei (2015)
    and all peers. Ties count against the query: a right answer is ranked behind all wrong
    ones of the same similarity (within `TIE_TOLERANCE`), so a model whose embedding collapsed
    to a point scores 0 (with `argsort`, as in the released evaluations, ties are broken by
    position).

    Args:
        image: (N, D) unit embeddings.
        text: (M, D) unit embeddings.
        relevant: bool (N, M), True where caption m is true of image n.
        chunk: rows compared at a time; beside `relevant`, memory is bounded by
            chunk x max(N, M).

    Raises:
        ValueError: shapes that do not fit, a query without a right answer, NaN embeddings.
    """
    check_relevant(relevant, image.shape[0], text.shape[0])
    if not bool(torch.isfinite(image).all() and torch.isfinite(text).all()):
        raise ValueError("embeddings contain NaN or infinity: the model is broken")
    image, text, relevant = image.float(), text.float(), relevant.to(image.device)

    def ranks(query: Tensor, gallery: Tensor, right: Tensor) -> Tensor:
        blocks = torch.arange(len(query), device=query.device).split(chunk)
        return torch.cat([_ranks(query[b] @ gallery.T, right[b]) for b in blocks])

    return Outcomes(ranks(image, text, relevant).cpu(), ranks(text, image, relevant.T).cpu())


def check_relevant(relevant: Tensor, n: int, m: int) -> None:
    """Raises ValueError: not bool (n, m), or a query without a right answer."""
    if relevant.shape != (n, m) or relevant.dtype != torch.bool:
        raise ValueError(
            f"relevant must be bool ({n}, {m}) for {n} images and {m} captions; "
            f"got {relevant.dtype} {tuple(relevant.shape)}"
        )
    if not bool(relevant.any(1).all()) or not bool(relevant.any(0).all()):
        raise ValueError("every image needs a true caption and every caption a true image")


def _ranks(score: Tensor, right: Tensor) -> Tensor:
    """int64 (Q,): wrong answers at least as high as the best right one, per row of (Q, G)."""
    best = score.masked_fill(~right, float("-inf")).amax(1, keepdim=True)  # (Q, 1)
    return ((score >= best - TIE_TOLERANCE) & ~right).sum(1)  # (Q, G) -> (Q,)


def worst_of(outcomes: Sequence[Outcomes]) -> Outcomes:
    """Per query the worst rank over several attacks: a pessimistic bound.

    Each attack stands in its own fully adversarial gallery, so no single attacker reaches
    all of these ranks at once; the recall of any of the attacks is at least this.

    Raises:
        ValueError: nothing to compare, or different queries.
    """
    if not outcomes:
        raise ValueError("worst_of needs at least one attack's outcomes")
    shapes = {(len(o.tr_rank), len(o.ir_rank)) for o in outcomes}
    if len(shapes) > 1:
        raise ValueError(f"outcomes of different queries cannot be compared: {sorted(shapes)}")
    return Outcomes(
        torch.stack([o.tr_rank for o in outcomes]).amax(0),
        torch.stack([o.ir_rank for o in outcomes]).amax(0),
    )


def conditional_attack_success(clean: Tensor, attacked: Tensor) -> float:
    """Share of the queries right on clean data that the attack breaks (SGA, DRA, SA-AET).

    NaN if no query was right. 1 minus this, times clean recall, is only a lower bound of
    recall under attack: a query can also become right.

    Args:
        clean, attacked: bool per query.
    """
    right = int(clean.sum())
    return float((clean & ~attacked).sum()) / right if right else float("nan")


def difference_attack_success(clean: Tensor, attacked: Tensor) -> float:
    """Recall lost under attack, in [-1, 1] (Co-Attack's tables, there in points)."""
    return float(clean.double().mean() - attacked.double().mean())


def chance_recall(relevant: Tensor, direction: Direction, k: int) -> float:
    """Expected recall of a random ranking: the floor below which nothing is learnt.

    Args:
        relevant: bool (N, M).
        direction: `TR` or `IR`.
        k: length of the list that is looked at.
    """
    right = (relevant if direction == "TR" else relevant.T).sum(1).double()
    gallery = relevant.shape[1] if direction == "TR" else relevant.shape[0]
    miss = torch.ones_like(right)
    for drawn in range(min(k, gallery)):
        miss = miss * ((gallery - right - drawn).clamp(min=0) / (gallery - drawn))
    return float((1 - miss).mean())
