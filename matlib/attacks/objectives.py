"""What an attack ascends: a score per image or per candidate caption, from embeddings only."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.image_objectives import (
    margin,
)

TextObjective = Callable[[Tensor, Tensor], Tensor]
"""(R, D) unit caption embeddings and int64 (R,) caption index -> (R,) score to ascend."""


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


def squared_distance_from(clean: Tensor) -> TextObjective:
    """Squared distance to the original embedding (LEAF).

    LEAF measures it between embeddings that are not normalised. Between the unit vectors that a
    `DualEncoder` gives it is 2 - 2 cos, so it ranks edits as the cosine does.

    Args:
        clean: (M, D) unit embeddings of the unedited captions; of another model (the one
            before a defence was trained) where the defence's own training loss is wanted.
    """

    def score(text: Tensor, caption: Tensor) -> Tensor:
        return (text - clean[caption]).square().sum(1)

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

    all_true = mask.all(1)

    def score(text: Tensor, caption: Tensor) -> Tensor:
        logits = scale * text @ image.T  # (R, N)
        return margin(logits, mask[caption], all_true[caption])

    return score
