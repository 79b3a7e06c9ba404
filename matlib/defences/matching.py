"""The matching loss of fusion models: which text belongs to which image, read together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.models.dual_encoder import FusionEncoder


def matching_loss(
    encoder: FusionEncoder, seen: Tensor, captions: Sequence[str], similarity: Tensor
) -> Tensor:
    """ALBEF's matching loss: each pair against a hard text and a hard image.

    A negative is drawn with the probability that the contrastive softmax gives it (ALBEF,
    `models/model_retrieval.py`), among pairs of another caption. Draws are of torch's global
    generator, which training seeds at every step. The cross-entropy over "match" and "no match" is
    that of the difference of their logits, which `match` gives. BLIP has the same loss.

    Args:
        seen: float (B, 1 + P, W), `image_tokens` of the images.
        captions: B, caption i belongs to image i.
        similarity: float (B, B), logits of images against captions, without gradient.

    Returns:
        scalar, the mean over 3 B pairs; over the positive ones alone where all captions are equal.
    """
    n = len(captions)
    alike = torch.tensor([[a == b for b in captions] for a in captions], device=similarity.device)
    texts, images = [*captions], [seen]
    target = [1.0] * n
    if not bool(alike.all(1).any()):
        hard_text = _drawn(similarity.masked_fill(alike, -torch.inf))  # (B,)
        hard_image = _drawn(similarity.T.masked_fill(alike, -torch.inf))  # (B,)
        texts += [captions[i] for i in hard_text.tolist()] + [*captions]
        images += [seen, seen[hard_image]]
        target += [0.0] * 2 * n
    score = encoder.match(torch.cat(images), texts)  # (3 B,)
    return F.binary_cross_entropy_with_logits(score, score.new_tensor(target))


def _drawn(logits: Tensor) -> Tensor:
    """int64 (B,): one column of each row of (B, B), drawn by the softmax."""
    return torch.multinomial(logits.float().softmax(1), 1).squeeze(1)
