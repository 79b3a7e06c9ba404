"""One perturbation for all images, learnt on some and judged on others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.attacks.balls import Ball, Norm, check_eps
from matlib.attacks.budgets import check_count
from matlib.attacks.gallery import Gallery
from matlib.attacks.objectives import contrastive
from matlib.attacks.scoring import embed_texts
from matlib.models.dual_encoder import DualEncoder, check_evaluation_mode, frozen


@dataclass(frozen=True)
class Universal:
    """A universal adversarial perturbation for retrieval (ETU, Zhang et al., SIGIR 2024; C-PGC,
    Fang et al., ICCV 2025): maximise over |d| <= eps the mean over images of CLIP's image-to-text
    loss of clip(x + d) against the captions.

    It needs no gradient of the images that it is judged on, so it also tells masked gradients. Of
    the two papers it is the plain core, a perturbation by the sign of the gradient of a batch;
    ETU's local crops and C-PGC's generator are left out (ours).

    Attributes:
        eps_255: radius of the ball in 1/255 of the pixel range, as in `PGD`.
        n_epochs: passes over the images that it is learnt on.
        batch_size: images per step.
        step: of the ball's radius; it falls to a tenth in equal parts.
        norm: `linf` or `l2`.
    """

    eps_255: float
    n_epochs: int = 5
    batch_size: int = 32
    step: float = 0.25
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        check_eps(self.eps_255, self.norm)
        check_count("n_epochs", self.n_epochs)
        check_count("batch_size", self.batch_size, 1)
        if not 0 < self.step <= 2:
            raise ValueError(f"step is a share of the radius in (0, 2]; got {self.step}")

    def learn(self, encoder: DualEncoder, train: Gallery, generator: torch.Generator) -> Tensor:
        """float (3, H, W): what is added to every image.

        Args:
            train: images with their captions, of which none is to be judged.
            generator: for the order of the images.

        Raises:
            ValueError: an encoder in training mode.
        """
        check_evaluation_mode(encoder)
        ball, text = Ball(self.eps_255 / 255, self.norm), embed_texts(encoder, train.captions)
        relevant, scale = train.relevant.to(text.device), encoder.logit_scale.detach()
        pixels = train.pixels.to(encoder.device)
        added = torch.zeros_like(pixels[:1])
        parts = [part for _ in range(self.n_epochs)
                 for part in torch.randperm(len(pixels), generator=generator)
                 .split(self.batch_size)]  # fmt: skip
        with frozen(encoder):
            for done, rows in enumerate(parts):
                leaf = added.clone().requires_grad_(True)
                with torch.enable_grad():
                    image = encoder.encode_image((pixels[rows] + leaf).clamp(0, 1))
                    score = contrastive(text, relevant[rows], scale)(image).mean()
                    (gradient,) = torch.autograd.grad(score, leaf)
                size = ball.eps * self.step * (1 - 0.9 * done / len(parts))
                added = _shortened(added + size * ball.direction(gradient.nan_to_num()), ball)
        return added[0]

    def apply(self, pixels: Tensor, added: Tensor) -> Tensor:
        """float (N, 3, H, W) in [0, 1]: the images with what was learnt, within the ball."""
        return (pixels + added.to(pixels)).clamp(0, 1)


def _shortened(added: Tensor, ball: Ball) -> Tensor:
    """The perturbation itself within the ball; images are cut to [0, 1] later."""
    if ball.norm == "linf":
        return added.clamp(-ball.eps, ball.eps)
    return added * (ball.eps / torch.linalg.vector_norm(added).clamp_min(ball.eps))
