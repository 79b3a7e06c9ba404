"""Projected gradient ascent on pixels in an L-infinity ball (Madry et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.objectives import ImageObjective
from matlib.models.dual_encoder import DualEncoder, check_pixels, frozen

Views = Callable[[Tensor, torch.Generator], list[Tensor]]
"""Differentiable views of a batch whose scores are added, e.g. several scales."""


def check_eps(eps_255: float) -> None:
    """Refuse a budget in the wrong unit.

    Raises:
        ValueError: outside [0, 64], or between 0 and 0.05 (an eps already divided by 255).
    """
    if not 0 <= eps_255 <= 64:
        raise ValueError(f"eps_255 is in 1/255 of the pixel range, 0 to 64; got {eps_255}")
    if 0 < eps_255 < 0.05:
        raise ValueError(
            f"eps_255 is in 1/255 of the pixel range; got {eps_255}, which looks like a value "
            f"already divided by 255 (did you mean {eps_255 * 255:.3g}?)"
        )


@dataclass(frozen=True)
class PGD:
    """Sign-gradient ascent, projected to the ball and to [0, 1] after every step.

    Attributes:
        eps_255: radius of the L-infinity ball in 1/255 of the pixel range.
        n_steps: gradient steps.
        step_255: step in 1/255; by default 1.25 * eps / n_steps as in Co-Attack's code
            (0.25/255 at eps 2/255 and 10 steps), at least eps / 4 so that few steps suffice.
        start: `uniform` in the ball (SGA; Madry et al.), `positive` in [0, eps] (Co-Attack's
            code, although its paper describes the ball), or `none`.
    """

    eps_255: float
    n_steps: int = 10
    step_255: float | None = None
    start: Literal["uniform", "positive", "none"] = "uniform"

    def __post_init__(self) -> None:
        check_eps(self.eps_255)
        if self.n_steps < 0:
            raise ValueError(f"n_steps must be 0 or more; got {self.n_steps}")

    @property
    def step(self) -> float:
        """Step in pixel units [0, 1]."""
        if self.step_255 is not None:
            return self.step_255 / 255
        return max(1.25 * self.eps_255 / max(self.n_steps, 1), self.eps_255 / 4) / 255

    def __call__(
        self,
        encoder: DualEncoder,
        pixels: Tensor,
        objective: ImageObjective,
        *,
        generator: torch.Generator,
        views: Views | None = None,
    ) -> Tensor:
        """Adversarial pixels, same shape, within eps of `pixels` and within [0, 1].

        Args:
            encoder: the attacked model; its weights, `.grad` and mode stay untouched.
            pixels: float (B, 3, H, W) in [0, 1].
            objective: score per image of the batch to ascend.
            generator: CPU generator for the start (and the views' noise).
            views: extra differentiable views; scores of all views are added (SGA).

        Raises:
            ValueError: pixels that are not float (B, 3, H, W) in [0, 1].
        """
        check_pixels(pixels)
        clean = pixels.to(encoder.device)
        if self.eps_255 == 0 or self.n_steps == 0:
            return clean.clone()
        adversarial = self._project(clean + self._start(clean, generator), clean)
        with frozen(encoder):
            for _ in range(self.n_steps):
                gradient = self._gradient(encoder, adversarial, objective, generator, views)
                adversarial = self._project(adversarial + self.step * gradient.sign(), clean)
        return adversarial

    def _start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "none":
            return torch.zeros_like(clean)
        unit = torch.rand(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
        eps = self.eps_255 / 255
        return unit * eps if self.start == "positive" else (2 * unit - 1) * eps

    def _project(self, moved: Tensor, clean: Tensor) -> Tensor:
        eps = self.eps_255 / 255
        return torch.minimum(torch.maximum(moved, clean - eps), clean + eps).clamp(0, 1)

    @staticmethod
    def _gradient(
        encoder: DualEncoder,
        current: Tensor,
        objective: ImageObjective,
        generator: torch.Generator,
        views: Views | None,
    ) -> Tensor:
        point = current.detach().requires_grad_(True)
        with torch.enable_grad():
            seen = [point] if views is None else views(point, generator)
            features = encoder.encode_image(torch.cat(seen))
            total = torch.stack([objective(part).sum() for part in features.chunk(len(seen))])
            (gradient,) = torch.autograd.grad(total.sum(), point)
        return gradient


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
