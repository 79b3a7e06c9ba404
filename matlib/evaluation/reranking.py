"""Retrieval of fusion models: embeddings choose k candidates, reading them together orders them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from matlib.attacks.scoring import images_per_forward
from matlib.evaluation.retrieval import TIE_TOLERANCE, Outcomes, check_relevant
from matlib.models.dual_encoder import FusionEncoder, frozen

RERANKED = 16
"""Candidates of each query that are read together. ALBEF and BLIP take 256 on COCO and 128 on
Flickr30k (source: `k_test` of their configurations)."""
_PAIRS = 256


def reranked(
    encoder: FusionEncoder,
    pixels: Tensor,
    captions: Sequence[str],
    similarity: Tensor,
    relevant: Tensor,
    k: int = RERANKED,
) -> Outcomes:
    """Rank every caption for every image and every image for every caption, as ALBEF does.

    The k most similar of each query are ordered by `match`; all others stay behind them, by
    similarity. Ties count against the query, as in `retrieve`.

    Args:
        encoder: in evaluation mode.
        pixels: float (N, 3, S, S) in [0, 1].
        captions: M captions.
        similarity: float (N, M), of the embeddings.
        relevant: bool (N, M), True where caption m is true of image n.
        k: 1 or more.

    Raises:
        ValueError: shapes that do not fit, k below 1, or scores that are not finite.
    """
    check_relevant(relevant, *similarity.shape)
    if k < 1:
        raise ValueError(f"expected 1 candidate or more; got {k}")
    similarity, relevant = similarity.float(), relevant.to(similarity.device)
    for_image = _chosen(similarity, k)  # bool (N, M)
    for_text = _chosen(similarity.T, k).T  # bool (N, M)
    match = _matched(encoder, pixels, captions, for_image | for_text).to(similarity.device)
    return Outcomes(
        _ranks(similarity, match, for_image, relevant).cpu(),
        _ranks(similarity.T, match.T, for_text.T, relevant.T).cpu(),
    )


def _chosen(similarity: Tensor, k: int) -> Tensor:
    """bool (Q, G): the k most similar of each row."""
    chosen = torch.zeros_like(similarity, dtype=torch.bool)
    return chosen.scatter_(1, similarity.topk(min(k, similarity.shape[1]), dim=1).indices, True)


def _matched(
    encoder: FusionEncoder, pixels: Tensor, captions: Sequence[str], wanted: Tensor
) -> Tensor:
    """float (N, M): `match` where wanted, 0 elsewhere; an image's tokens are made once."""
    found = torch.zeros(wanted.shape)
    size = images_per_forward(pixels, device=encoder.device)
    with torch.no_grad(), frozen(encoder):
        for first in range(0, len(pixels), size):
            tokens = encoder.image_tokens(pixels[first : first + size].to(encoder.device))
            rows, columns = wanted[first : first + size].cpu().nonzero(as_tuple=True)
            for part in torch.arange(len(rows)).split(_PAIRS):
                texts = [captions[i] for i in columns[part].tolist()]
                score = encoder.match(tokens[rows[part].to(tokens.device)], texts)  # (R,)
                found[first + rows[part], columns[part]] = score.float().cpu()
    if not bool(found.isfinite().all()):
        raise ValueError("matching scores contain NaN or infinity: the model is broken")
    return found


def _ranks(similarity: Tensor, match: Tensor, chosen: Tensor, right: Tensor) -> Tensor:
    """int64 (Q,): wrong answers at least as high as the best right one, per row of (Q, G)."""

    def best(score: Tensor, among: Tensor) -> Tensor:
        return score.masked_fill(~among, -torch.inf).amax(1, keepdim=True)  # (Q, 1)

    wrong = ~right
    ahead = (match >= best(match, chosen & right) - TIE_TOLERANCE) & chosen & wrong  # (Q, G)
    behind = (similarity >= best(similarity, right) - TIE_TOLERANCE) & ~chosen & wrong
    has_right = (chosen & right).any(1)
    return torch.where(has_right, ahead.sum(1), (chosen & wrong).sum(1) + behind.sum(1))
