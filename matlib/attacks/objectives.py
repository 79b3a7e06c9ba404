"""What an attack ascends: a score per image or per candidate caption, from embeddings only."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ImageObjective = Callable[[Tensor], Tensor]
"""(B, D) unit image embeddings of the current batch -> (B,) score to ascend."""

TextObjective = Callable[[Tensor, Tensor], Tensor]
"""(R, D) unit caption embeddings and int64 (R,) caption index -> (R,) score to ascend."""


def away_from_captions(text: Tensor, mask: Tensor) -> ImageObjective:
    """Negative similarity to all captions of the own image (SGA, image step).

    Args:
        text: (M, D) unit caption embeddings.
        mask: bool (B, M), the captions of each image of the batch.
    """
    weight = mask.to(text.dtype)

    def score(image: Tensor) -> Tensor:
        return -((image @ text.T) * weight).sum(1)

    return score


def contrastive(text: Tensor, mask: Tensor, scale: Tensor | float) -> ImageObjective:
    """Image-to-text cross-entropy, any number of true captions per image, in margin form.

    m = log sum over the false captions of exp(s) - log sum over the true ones of exp(s).
    The cross-entropy is log(1 + exp(m)): it rises exactly when m rises, so sign-gradient
    steps are the same; but where the model is confident its gradient underflows (at scale
    100 a cosine gap of 0.9 leaves exp(-90)), and an attack would stand still. For one true
    caption this is TeCoA's inner loss; for several it can only be raised by pushing all of
    them below a false one, which is what TR@1 counts.

    Args:
        text: (M, D) unit embeddings of the gallery's captions.
        mask: bool (B, M), True where the caption is true of the image.
        scale: the model's logit scale.
    """

    def score(image: Tensor) -> Tensor:
        return _margin(scale * image @ text.T, mask)

    return score


def _margin(logits: Tensor, mask: Tensor) -> Tensor:
    """(B, M) logits and bool (B, M) -> (B,) log-sum-exp of the false minus of the true ones."""
    true = logits.masked_fill(~mask, float("-inf")).logsumexp(1)
    if bool(mask.all(1).any()):  # nothing false to move towards: only away from the true ones
        return -true
    return logits.masked_fill(mask, float("-inf")).logsumexp(1) - true


def symmetric_contrastive(text: Tensor, scale: Tensor | float) -> ImageObjective:
    """Both halves of CLIP's loss for aligned pairs (image i, caption i) of one batch.

    This is the loss that MAT and image-only adversarial training descend in the weights.
    """
    target = torch.arange(text.shape[0], device=text.device)

    def score(image: Tensor) -> Tensor:
        logits = scale * image @ text.T  # (B, B)
        to_text = F.cross_entropy(logits, target, reduction="none")
        to_image = F.cross_entropy(logits.T, target, reduction="none")
        return (to_text + to_image) / 2

    return score


def kl_from(clean: Tensor) -> TextObjective:
    """KL(p(clean) || p(edited)), p the softmax over embedding dimensions (Co-Attack's code).

    The softmax runs over the D coordinates of a unit vector, not over classes; its only
    justification is that the field's baselines use it.

    Args:
        clean: (M, D) unit embeddings of the unedited captions.
    """
    reference = F.log_softmax(clean, dim=1)

    def score(text: Tensor, caption: Tensor) -> Tensor:
        own = reference[caption]
        return (own.exp() * (own - F.log_softmax(text, dim=1))).sum(1)

    return score


def away_from_image(image: Tensor) -> TextObjective:
    """Negative similarity to the caption's own image (SGA, both text steps).

    Args:
        image: (M, D) unit embeddings, row m the image of caption m.
    """

    def score(text: Tensor, caption: Tensor) -> Tensor:
        return -(text * image[caption]).sum(1)

    return score


def caption_contrastive(image: Tensor, mask: Tensor, scale: Tensor | float) -> TextObjective:
    """Caption-to-image cross-entropy against a gallery of images, in `contrastive`'s margin form.

    Args:
        image: (N, D) unit embeddings of the gallery.
        mask: bool (M, N), True where image n is an answer to caption m.
        scale: the model's logit scale.
    """

    def score(text: Tensor, caption: Tensor) -> Tensor:
        return _margin(scale * text @ image.T, mask[caption])  # (R, N)

    return score
