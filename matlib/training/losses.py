"""Outer losses: what the weights descend, from the embeddings of the whole batch."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossDirection = Literal["symmetric", "image_to_text"]


def contrastive_loss(
    image: Tensor, text: Tensor, scale: Tensor, direction: LossDirection = "symmetric"
) -> Tensor:
    """CLIP's loss, or its image-to-text half, over the batch.

    The whole equals `open_clip.loss.ClipLoss` on one process (a test compares them). That is not
    used because it has no half of its own, and because on several processes it gathers the
    embeddings itself, at every call and for both towers alike. Here a defence gathers each version
    of the inputs once, with a gradient only for towers that learn, and pairs them as it needs.

    Args:
        image, text: unit (G, D); row i of one belongs to row i of the other.
        scale: logit scale.
        direction: `symmetric`: the mean of both halves (Radford et al. 2021, figure 3);
            `image_to_text`: captions are the classes (TeCoA).

    Returns:
        scalar.
    """
    logits = scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    to_text = F.cross_entropy(logits, target)
    if direction == "image_to_text":
        return to_text
    return (to_text + F.cross_entropy(logits.T, target)) / 2


def distance_loss(features: Tensor, target: Tensor) -> Tensor:
    """mean_i |f_i - t_i|^2: summed over dimensions, averaged over rows (FARE, LEAF).

    Args:
        features: (G, D), not normalised.
        target: (G, D); no gradient goes there.

    Returns:
        scalar.
    """
    return (features - target.detach()).square().sum(1).mean()


def divergence_loss(logits: Tensor, target_logits: Tensor) -> Tensor:
    """mean_i KL(softmax(target_i) || softmax(logits_i)); no gradient goes to the target.

    Args:
        logits, target_logits: (G, C).

    Returns:
        scalar.
    """
    target = F.log_softmax(target_logits.detach(), dim=1)
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="batchmean", log_target=True)
