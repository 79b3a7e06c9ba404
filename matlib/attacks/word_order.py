"""Which word of a caption is tried first: by masking it, or by the objective's gradient at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from matlib.attacks.attackable import apart, pieces
from matlib.attacks.edits import Edit, apply_edit
from matlib.attacks.objectives import TextObjective, kl_from
from matlib.attacks.scoring import score_texts
from matlib.models.dual_encoder import DualEncoder

_FLAT = 1e-6
"""Gradient norms below this are rounding; a guided cosine objective has some 1e-1 to 1e2."""

WordOrder = list[list[int]]
"""Per caption its attackable word positions, most important first."""


def order_by_masking(
    encoder: DualEncoder,
    captions: Sequence[str],
    masks: Sequence[Mapping[int, str]],
    clean: Tensor,
    chunk: int,
) -> WordOrder:
    """KL between the embeddings of the caption and of the caption with the word masked.

    Only words that can be changed are masked. The released code masks every word, stop words
    included (43-46 % of the words of real captions), and then passes over them: the same
    order among the words that matter at almost twice the cost. A caption with one attackable
    word needs no order.

    Args:
        masks: per caption the positions that can be changed, ascending, each with what stands
            there once its word is masked.
        clean: (M, D) unit embeddings of the captions.
    """
    rows = [(i, p) for i, own in enumerate(masks) if len(own) > 1 for p in own]
    masked = [apply_edit(captions[i], Edit(p, masks[i][p])) for i, p in rows]
    owner = [i for i, _ in rows]
    lengths = [len(captions[i]) for i in owner]
    values = score_texts(encoder, masked, owner, lengths, kl_from(clean), chunk).tolist()
    weight = dict(zip(rows, values, strict=True))
    return _sorted(list(map(list, masks)), lambda i, p: weight.get((i, p), 0.0))


def order_by_gradient(
    encoder: DualEncoder,
    captions: Sequence[str],
    positions: Sequence[Sequence[int]],
    score: TextObjective,
    chunk: int,
) -> WordOrder:
    """Norm of the objective's gradient at the word's token embeddings: one row per caption.

    The marks around a word do not count.

    The objective has to have a slope at the clean caption. KL and squared distance from the
    clean caption have none (it is their minimum), so they need `masking`.

    Raises:
        ValueError: the model gives no gradient at its words, or all gradients vanish.
    """
    saliency = getattr(encoder, "word_saliency", None)
    if saliency is None:
        raise ValueError(
            f"{type(encoder).__name__} has no word_saliency(texts, score): importance by "
            'gradient needs it; use importance="masking"'
        )
    weights: list[list[float]] = [[] for _ in captions]
    wanted = sorted((i for i, own in enumerate(positions) if own), key=lambda i: len(captions[i]))
    for at in range(0, len(wanted), chunk):
        rows = wanted[at : at + chunk]
        owner = torch.tensor(rows)

        def own_score(features: Tensor, owner: Tensor = owner) -> Tensor:
            return score(features, owner.to(features.device))

        found = saliency([apart(captions[i]) for i in rows], own_score)
        for i, weight in zip(rows, found, strict=True):
            weights[i] = _by_position(captions[i], weight)
    if wanted and not any(value > _FLAT for weight in weights for value in weight):
        raise ValueError(
            "the objective is flat at every caption, as KL from the clean caption is: "
            'importance by gradient needs an image to move away from; use importance="masking"'
        )
    return _sorted(positions, lambda i, p: weights[i][p])


def _by_position(caption: str, weights: Sequence[float]) -> list[float]:
    """Norms at the pieces of a caption -> norms at its positions: of the words there, if any."""
    squares: list[dict[bool, float]] = [{} for _ in caption.split(" ")]
    for piece, weight in zip(pieces(caption), weights, strict=True):
        own = squares[piece.position]
        own[piece.is_word] = own.get(piece.is_word, 0.0) + weight**2
    return [(own[True] if True in own else own[False]) ** 0.5 for own in squares]


def _sorted(positions: Sequence[Sequence[int]], weight: Callable[[int, int], float]) -> WordOrder:
    """Descending weight; of equal words the earlier one first."""
    return [
        sorted(own, key=lambda p, i=i: (-weight(i, p), p))  # type: ignore[misc]
        for i, own in enumerate(positions)
    ]
