"""An adversarial hub: one image that stands first for many captions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from matlib.attacks.ascent import AttackReport, ImageAttack
from matlib.attacks.objectives import ImageObjective
from matlib.attacks.scoring import embed_texts
from matlib.models.dual_encoder import DualEncoder


def hub(
    encoder: DualEncoder,
    pixels: Tensor,
    captions: Sequence[str],
    image: ImageAttack,
    *,
    generator: torch.Generator,
    report: AttackReport | None = None,
) -> Tensor:
    """One image near a given one, that is similar to as many captions as can be.

    Zhang et al., "Adversarial hubness in multi-modal retrieval" (arXiv 2412.14113): maximise over
    |x' - x| <= eps the mean over captions of cos(v(x'), t). It is added to a gallery, of which
    the attacker moves nothing else; no gradient of a query or of its right answer is needed.

    Args:
        pixels: float (3, H, W) in [0, 1], what the hub looks like.
        captions: one or more that the attacker expects to be asked, judged or like the judged.
        image: `PGD` or `APGD` with the budget.

    Returns:
        float (3, H, W).

    Raises:
        ValueError: no captions; else as the image attack.
    """
    if not captions:
        raise ValueError("a hub needs the captions that it is to stand first for; got none")
    middle = embed_texts(encoder, captions).mean(0)
    return image(encoder, pixels[None], towards(middle), generator=generator, report=report)[0]


def towards(target: Tensor) -> ImageObjective:
    """Similarity to one direction: the mean over captions is that to their mean.

    Args:
        target: (D,), of any length.
    """

    def score(image: Tensor) -> Tensor:
        return image @ target

    return score


def behind(ir_rank: Tensor, text: Tensor, image: Tensor, added: Tensor, relevant: Tensor) -> Tensor:
    """int64 (M,): ranks of captions' right images once an image is added that is right for none.

    Args:
        ir_rank: int64 (M,), without it.
        text, image: (M, D) and (N, D) unit embeddings.
        added: (D,), of the added image.
        relevant: bool (N, M).
    """
    right = (image @ text.T).masked_fill(~relevant, -torch.inf).amax(0)
    return ir_rank + (text @ added >= right - 1e-6).to(ir_rank)
