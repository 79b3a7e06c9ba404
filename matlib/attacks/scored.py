"""Attacks on images through any differentiable score: a caption's loss, a heat map.

PGD and APGD meet an encoder and an objective on its embeddings. Here the score of an image stands
in for its embedding, and the objective is the score itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from matlib.attacks.ascent import AttackReport, ImageAttack
from matlib.attacks.noise import Noise, seeds_of_images
from matlib.attacks.scoring import images_per_forward

Score = Callable[[Tensor, Tensor], Tensor]
"""float (B, 3, H, W) in [0, 1] and int64 (B,) which of the images they are -> (B,), to ascend;
differentiable in the pixels, and of each image alone."""


class _Scored(nn.Module):
    """A score in the place of an encoder; the modules that it runs through are its parts."""

    def __init__(self, parts: Sequence[nn.Module], score: Score, rows: Tensor, like: Tensor):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self._score, self._rows = score, rows
        self.device, self.image_size = like.device, like.shape[-1]

    @property
    def logit_scale(self) -> Tensor:
        return torch.ones((), device=self.device)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self._score(pixels, self._rows)[:, None]  # (B, 1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        raise NotImplementedError("a score of images embeds no texts")


def ascend_score(
    attack: ImageAttack,
    pixels: Tensor,
    score: Score,
    parts: Sequence[nn.Module],
    *,
    generator: torch.Generator,
    report: AttackReport | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Attack any number of images through a score, `chunk` at a time.

    Args:
        attack: `PGD` or `APGD`.
        pixels: float (N, 3, H, W) in [0, 1], on the device of what is attacked.
        parts: modules that the score runs through, in evaluation mode; their weights are frozen
            meanwhile.
        generator: gives every image a seed, in order.
        report: counts the gradients that vanish.
        chunk: images per forward; `images_per_forward` by default.

    Returns:
        adversarial pixels (N, 3, H, W).

    Raises:
        ValueError: as the attack does; a part in training mode.
    """
    size = chunk or images_per_forward(pixels)
    seeds = seeds_of_images(len(pixels), generator).to(pixels.device)
    return torch.cat([
        attack(
            _Scored(parts, score, rows, pixels), pixels[rows], lambda found: found[:, 0],
            generator=Noise(seeds[rows]), report=report,
        )
        for rows in torch.arange(len(pixels)).split(size)
    ])  # fmt: skip
