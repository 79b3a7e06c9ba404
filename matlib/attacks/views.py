"""Differentiable views of a batch of images whose scores an attack adds up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.balls import ImageGenerators, drawn
from matlib.attacks.budgets import check_positive

Views = Callable[[Tensor, ImageGenerators], list[Tensor]]
"""Differentiable views of a batch whose scores are added, e.g. several scales."""


@dataclass(frozen=True)
class ScaleViews:
    """SGA's views: the image, and per scale a noisy copy resized there and back.

    Attributes:
        scales: factors of the side (SGA's code: 0.5, 0.75, 1.25, 1.5).
        noise: standard deviation of the pixel noise added before resizing (SGA's code: 0.05,
            fresh at every step).
        released: as SGA's code makes them under the torchvision that it pins (0.15; DRA 0.16):
            resized without antialiasing, and not brought back to [0, 1] at the end, where
            bicubic interpolation overshoots. By default both are done, as today's torchvision
            and an image file would.
    """

    scales: tuple[float, ...] = (0.5, 0.75, 1.25, 1.5)
    noise: float = 0.05
    released: bool = False

    def __post_init__(self) -> None:
        for scale in self.scales:
            check_positive("a view's scale", scale, ", a factor of the side")
        if self.noise != 0:
            check_positive("the noise of views", self.noise)

    @property
    def n_views(self) -> int:
        """Views per image, itself among them."""
        return 1 + len(self.scales)

    def __call__(self, pixels: Tensor, generator: ImageGenerators) -> list[Tensor]:
        """float (B, 3, H, W) -> 1 + len(scales) tensors of that shape.

        They lie in [0, 1]; with `released` a little outside.

        Args:
            generator: for the batch, or one per image.

        Raises:
            ValueError: a scale at which nothing is left of the image.
        """
        side = pixels.shape[-1]
        resized = partial(F.interpolate, mode="bicubic", antialias=not self.released)
        seen = [pixels]
        for scale in self.scales:
            if int(scale * side) < 1:
                raise ValueError(f"a view at scale {scale:g} leaves nothing of {side} pixels")
            noise = drawn(torch.randn, pixels, generator).to(pixels.device)
            small = resized(pixels + self.noise * noise, size=int(scale * side)).clamp(0, 1)
            back = resized(small, size=side)
            seen.append(back if self.released else back.clamp(0, 1))
        return seen
