"""Differentiable views of a batch of images whose scores an attack adds up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Views = Callable[[Tensor, torch.Generator], list[Tensor]]
"""Differentiable views of a batch whose scores are added, e.g. several scales."""


@dataclass(frozen=True)
class ScaleViews:
    """SGA's views: the image, and per scale a noisy copy resized there and back.

    Attributes:
        scales: factors of the side (SGA's code: 0.5, 0.75, 1.25, 1.5).
        noise: standard deviation of the pixel noise added before resizing (SGA's code: 0.05,
            fresh at every step).
    """

    scales: tuple[float, ...] = (0.5, 0.75, 1.25, 1.5)
    noise: float = 0.05

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> list[Tensor]:
        """float (B, 3, H, W) -> 1 + len(scales) tensors of that shape in [0, 1]."""
        side = pixels.shape[-1]
        seen = [pixels]
        for scale in self.scales:
            noise = torch.randn(pixels.shape, generator=generator, dtype=pixels.dtype)
            noisy = pixels + self.noise * noise.to(pixels.device)
            small = F.interpolate(
                noisy, size=int(scale * side), mode="bicubic", antialias=True
            ).clamp(0, 1)
            back = F.interpolate(small, size=side, mode="bicubic", antialias=True)
            seen.append(back.clamp(0, 1))
        return seen
