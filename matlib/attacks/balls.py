"""The L-infinity and L2 balls that image attacks stay in: budgets, starts, steps, projections.

And what is left of a change where an image file holds it: whole steps of 1/255 (`to_8bit`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.noise import ImageGenerators, noise_of

Norm = Literal["linf", "l2"]
Start = Literal["uniform", "positive", "none"]

MIN_EPS_255 = 0.05
"""Below it a budget looks like one that was already divided by 255."""
MAX_EPS_255 = 64.0
"""Largest L-infinity budget, and largest root-mean-square change of an L2 budget."""


def check_eps(eps_255: float, norm: Norm = "linf", n_values: int | None = None) -> None:
    """Refuse a budget in the wrong unit.

    Both norms count in 1/255 of the pixel range: an L2 radius of 0.5 in pixel units is
    `eps_255=127.5`. The limit for L-infinity is 64. For L2 it is 64 * sqrt(number of values),
    the radius of the ball around the L-infinity ball of 64: 64 * sqrt(3 * 224 * 224) = 24,832
    at 224 px. The image is not known when an attack is built, so this limit is checked when
    it is called.

    Args:
        n_values: values of one image (3 * H * W), where they are known.

    Raises:
        ValueError: negative, not finite or above the limit, or between 0 and 0.05 (an eps
            already divided by 255).
    """
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm must be 'linf' or 'l2'; got {norm!r}")
    if norm == "linf" and not 0 <= eps_255 <= MAX_EPS_255:
        raise ValueError(f"eps_255 is in 1/255 of the pixel range, 0 to 64; got {eps_255}")
    limit = math.inf if n_values is None else MAX_EPS_255 * math.sqrt(n_values)
    if norm == "l2" and not (0 <= eps_255 < math.inf and eps_255 <= limit):
        raise ValueError(
            "eps_255 of an L2 ball is a Euclidean length in 1/255 of the pixel range, "
            f"0 to 64 * sqrt(3 * H * W), here {limit:.6g}; got {eps_255}"
        )
    if 0 < eps_255 < MIN_EPS_255:
        raise ValueError(
            f"eps_255 is in 1/255 of the pixel range; got {eps_255}, which looks like a value "
            f"already divided by 255 (did you mean {eps_255 * 255:.3g}?)"
        )


def largest(values: Tensor) -> Tensor:
    """float (B, ...) -> (B, 1, 1, 1), the largest magnitude of each image; NaN if one is NaN."""
    return torch.linalg.vector_norm(values.flatten(1), math.inf, dim=1).view(-1, 1, 1, 1)


def length(values: Tensor) -> Tensor:
    """float (B, ...) -> (B, 1, 1, 1), the Euclidean norm of each image."""
    return torch.linalg.vector_norm(values.flatten(1), dim=1).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Ball:
    """All images within `eps` of a clean one, and within [0, 1].

    Attributes:
        eps: radius in pixel units; for L2 the Euclidean norm over all 3 * H * W values.
        norm: `linf` or `l2`.
    """

    eps: float
    norm: Norm = "linf"

    @property
    def order(self) -> float:
        """Of the norm, for `torch.linalg.vector_norm`."""
        return math.inf if self.norm == "linf" else 2.0

    def draw(self, clean: Tensor, start: Start, generator: ImageGenerators) -> Tensor:
        """Perturbation to begin with, shaped like `clean` and on its device.

        `uniform` in the ball, `positive` in [0, eps] (L-infinity only), or `none` (zeros).

        Raises:
            ValueError: streams that are not as many as the images.
        """
        if start == "none":
            return torch.zeros_like(clean)
        noise = noise_of(generator, clean)
        if self.norm == "linf":
            unit = noise.uniform(clean)
            return unit * self.eps if start == "positive" else (unit - 0.5) * (2 * self.eps)
        # A uniform point of a d-ball has a uniform direction and radius u^(1/d), u uniform
        # in [0, 1]. At 224 px d is 150,528, so that practically all starts lie on the sphere.
        direction = noise.normal(clean)
        radius = self.eps * noise.uniform(clean[:, :1, :1, :1]) ** (1 / clean[0].numel())
        return direction * (radius / length(direction))

    def project(self, moved: Tensor, clean: Tensor) -> Tensor:
        """The nearest point of the ball, then of [0, 1] (which never leaves the ball)."""
        return self.onto(clean)(moved)

    def onto(self, clean: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` for the images given, whose bounds are computed once."""
        if self.norm == "l2":
            return partial(self._shortened, clean)
        low, high = (clean - self.eps).clamp(min=0), (clean + self.eps).clamp(max=1)
        return lambda moved: moved.clamp(low, high)

    def _shortened(self, clean: Tensor, moved: Tensor) -> Tensor:
        offset = moved - clean
        factor = (self.eps / length(offset).clamp_min(_tiny(offset))).clamp(max=1)
        return (clean + offset * factor).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent of unit size per image: the sign, or the gradient at length 1.

        A gradient of zeros gives zeros. The L2 length is taken after division by the largest
        magnitude: squares of 1e-23 are zero in float32, and confident models have such
        gradients.
        """
        if self.norm == "linf":
            return gradient.sign()
        scaled = gradient / largest(gradient).clamp_min(_tiny(gradient))
        return scaled / length(scaled).clamp_min(_tiny(gradient))


def _tiny(values: Tensor) -> float:
    return torch.finfo(values.dtype).tiny


_ROUNDING = 1e-4
"""In 1/255: float32 pixels are this close to the number that they stand for."""


def to_8bit(moved: Tensor, clean: Tensor, eps_255: float, norm: Norm = "linf") -> Tensor:
    """Changes in whole steps of 1/255, still inside the ball around the 8-bit original.

    Plain rounding may leave the ball: with eps 1.5 a change of 1.5 becomes 2. For L-infinity
    changes are rounded and cut to whole steps not above eps, so a budget below 1 leaves none.
    For L2 they are rounded towards zero, which never lengthens them.

    Args:
        moved: float (B, 3, H, W) in [0, 1].
        clean: the originals, 8-bit values divided by 255.
        eps_255: the attack's budget.

    Returns:
        float like `moved`, every value k / 255 with k whole.

    Raises:
        ValueError: a budget that is none, see `check_eps`.
    """
    check_eps(eps_255, norm)
    original = (clean.to(moved.device).double() * 255).round()
    change = moved.double() * 255 - original
    if norm == "linf":
        most = math.floor(eps_255 + _ROUNDING)
        change = change.round().clamp(-most, most)
    else:
        change = (change.abs() + _ROUNDING).floor() * change.sign()
    return ((original + change).clamp(0, 255) / 255).to(moved.dtype)
