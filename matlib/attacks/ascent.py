"""What image attacks share: score and gradient, vanished gradients, restarts, views, chunks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.balls import Norm, Start, check_eps, largest
from matlib.attacks.budgets import check_count, check_positive
from matlib.attacks.noise import ImageGenerators, Noise, noise_of, seeds_of_images
from matlib.attacks.objectives import ImageObjective
from matlib.attacks.scoring import images_per_forward
from matlib.models.dual_encoder import DualEncoder, check_evaluation_mode, check_pixels


@dataclass
class AttackReport:
    """What an attack met: gradients that vanished, words that could be attacked.

    An attack adds to it, the caller reads it afterwards.

    An image whose gradient is exactly zero or not finite stays where it is for that step. The
    counts stay on the device until one is read, so that counting costs no synchronisation.
    One report may be handed to several calls; images are then counted once per call.

    Attributes:
        n_gradients: images times steps so far.
        n_captions: captions attacked.
        n_attackable_words: words, of all these captions, that some allowed edit changes.
    """

    n_gradients: int = 0
    n_captions: int = 0
    n_attackable_words: int = 0
    _zero: list[Tensor] = field(default_factory=list, repr=False)
    _non_finite: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def n_images(self) -> int:
        """Images attacked."""
        return sum(map(len, self._zero))

    @property
    def n_zero(self) -> int:
        """Gradients, of `n_gradients`, that were exactly zero."""
        return sum(int(part.sum()) for part in self._zero)

    @property
    def n_non_finite(self) -> int:
        """Gradients, of `n_gradients`, with a NaN or an infinity."""
        return sum(int(part.sum()) for part in self._non_finite)

    @property
    def n_images_vanished(self) -> int:
        """Images, of `n_images`, that stood still for at least one step."""
        both = zip(self._zero, self._non_finite, strict=True)
        return sum(int(((zero + bad) > 0).sum()) for zero, bad in both)

    @property
    def attackable_words_per_caption(self) -> float:
        """Mean over the captions; NaN where no text was attacked."""
        return self.n_attackable_words / self.n_captions if self.n_captions else math.nan

    def add_captions(self, n_captions: int, n_attackable_words: int) -> None:
        """Count a text attack's captions and the words of theirs that it may change."""
        self.n_captions += n_captions
        self.n_attackable_words += n_attackable_words

    def add(self, other: AttackReport) -> None:
        """Count what another attack met as well; its images are counted apart."""
        self.n_gradients += other.n_gradients
        self.add_captions(other.n_captions, other.n_attackable_words)
        self._zero += other._zero
        self._non_finite += other._non_finite

    def __str__(self) -> str:
        text = (
            f"{self.n_zero} zero and {self.n_non_finite} non-finite of {self.n_gradients} "
            f"gradients; {self.n_images_vanished} of {self.n_images} images stood still"
        )
        if self.n_captions:
            text += f"; {self.attackable_words_per_caption:.2f} attackable words per caption"
        return text


class Vanished:
    """Per image, the steps of one call at which its gradient was zero or not finite."""

    def __init__(self, n_images: int, device: torch.device) -> None:
        self._n_images, self._device = n_images, device
        self._peaks: list[Tensor] = []  # (B, 1, 1, 1) of each step; counted once they are asked for

    def check(self, gradient: Tensor) -> Tensor:
        """The gradient with zeros where an image's is not finite; what it was is remembered.

        Args:
            gradient: float (B, 3, H, W).
        """
        self._peaks.append(largest(gradient))  # one pass finds zeros, NaN and infinities
        return gradient.masked_fill(_is_bad(self._peaks[-1]), 0)

    @property
    def stays(self) -> Tensor:
        """bool (B, 1, 1, 1), True where the image stays at the step that was checked last."""
        return (self._peaks[-1] == 0) | _is_bad(self._peaks[-1])

    def tell(self, report: AttackReport | None) -> None:
        """Add what was met to the caller's report, if there is one."""
        if report is not None:
            report.n_gradients += len(self._peaks) * self._n_images
            each = torch.ones(0, self._n_images, device=self._device)  # (steps, B)
            if self._peaks:
                each = torch.stack([peak.flatten() for peak in self._peaks])
            report._zero.append((each == 0).sum(0))
            report._non_finite.append(_is_bad(each).sum(0))


def _is_bad(peak: Tensor) -> Tensor:
    """bool, True for NaN and infinities, in two launches (`isfinite` has four)."""
    return peak - peak != 0


class ImageAttack(Protocol):
    """What `PGD` and `APGD` have in common."""

    def __call__(
        self,
        encoder: DualEncoder,
        pixels: Tensor,
        objective: ImageObjective,
        *,
        generator: ImageGenerators,
        views: Views | None = None,
        report: AttackReport | None = None,
    ) -> Tensor:
        """float (B, 3, H, W) in [0, 1] -> adversarial pixels of that shape."""
        ...


def checked(
    encoder: DualEncoder, pixels: Tensor, eps_255: float, norm: Norm, in_range: bool = False
) -> Tensor:
    """The clean pixels on the encoder's device, after everything that can be wrong is checked.

    Args:
        in_range: they are known to lie in [0, 1], and are not read.

    Raises:
        ValueError: pixels that are not float (B, 3, H, W) in [0, 1], no image, a budget beyond
            the limit for this size of image, or an encoder in training mode.
    """
    check_pixels(pixels, in_range)
    check_eps(eps_255, norm, pixels[0].numel())
    check_evaluation_mode(encoder)
    return pixels.detach().to(encoder.device)


def check_start(start: Start, norm: Norm, n_restarts: int) -> None:
    """Refuse a start that does not exist, and restarts that would repeat one run.

    Raises:
        ValueError: an unknown start, `positive` in an L2 ball, fewer than one run, or several
            runs from the same point.
    """
    if start not in ("uniform", "positive", "none"):
        raise ValueError(f"start must be 'uniform', 'positive' or 'none'; got {start!r}")
    if start == "positive" and norm == "l2":
        raise ValueError("start='positive' is a box [0, eps]; with norm='l2' use 'uniform'")
    check_count("n_restarts (all runs)", n_restarts, 1)
    if n_restarts > 1 and start == "none":
        raise ValueError(
            f"{n_restarts} runs from start='none' would all be the same; use start='uniform'"
        )


def score_of(
    encoder: DualEncoder,
    point: Tensor,
    objective: ImageObjective,
    noise: Noise,
    views: Views | None,
) -> Tensor:
    """(B,) score of each image, added over its views; differentiable in `point`.

    Raises:
        ValueError: an objective that does not give one score per image.
    """
    if views is None:
        return _one_each(objective(encoder.encode_image(point)), len(point))
    seen = views(point, noise)
    features = encoder.encode_image(torch.cat(seen))  # (V * B, D)
    scores = torch.stack([objective(part) for part in features.chunk(len(seen))])  # (V, B)
    return _one_each(scores.sum(0), len(point))


def _one_each(scores: Tensor, n_images: int) -> Tensor:
    if scores.shape != (n_images,):
        raise ValueError(
            f"an image objective gives one score per image, here ({n_images},); "
            f"got {tuple(scores.shape)}. Build it for the images of this batch."
        )
    return scores


def score_and_gradient(
    encoder: DualEncoder,
    point: Tensor,
    objective: ImageObjective,
    noise: Noise,
    views: Views | None,
) -> tuple[Tensor, Tensor]:
    """(B,) scores and the gradient of their sum in the pixels, both detached."""
    leaf = point.detach().requires_grad_(True)
    with torch.enable_grad():
        scores = score_of(encoder, leaf, objective, noise, views)
        (gradient,) = torch.autograd.grad(scores, leaf, torch.ones_like(scores))  # (B, 3, H, W)
    return scores.detach(), gradient


def take_better(
    better: Tensor, found: tuple[Tensor, ...], kept: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Per image, `found` where bool (B,) `better`, else `kept`."""
    return tuple(
        torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
        for new, old in zip(found, kept, strict=True)
    )


def lowest_if_nan(scores: Tensor) -> Tensor:
    """(B,) scores, minus infinity for NaN, so that any number is better."""
    return torch.where(scores.isnan(), torch.full_like(scores, -torch.inf), scores)


def attack_in_chunks(
    attack: ImageAttack,
    encoder: DualEncoder,
    pixels: Tensor,
    objective_of: Callable[[Tensor], ImageObjective],
    *,
    generator: torch.Generator,
    views: Views | None = None,
    report: AttackReport | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Attack any number of images, `chunk` at a time: memory is bounded by the chunk.

    Every image draws from a stream of its own, so that no number depends on the chunk (but for
    the rounding of a forward of another size). Objectives are not sliced, they are built per
    chunk: `lambda rows: contrastive(text, relevant[rows], scale)`.

    Args:
        pixels: float (N, 3, H, W) in [0, 1], on any device.
        objective_of: int64 (B,) rows of `pixels`, on the encoder's device -> the objective of
            these images.
        generator: gives every image a seed, in order.
        chunk: images per forward; `images_per_forward` by default.

    Returns:
        adversarial pixels (N, 3, H, W), on the encoder's device.
    """
    size = chunk or images_per_forward(pixels, getattr(views, "n_views", 1), encoder.device)
    seeds = seeds_of_images(len(pixels), generator).to(encoder.device)
    every = torch.arange(len(pixels), device=encoder.device)
    chunks = zip(pixels.split(size), every.split(size), seeds.split(size), strict=True)
    parts = [
        attack(encoder, part, objective_of(rows), generator=Noise(own), views=views, report=report)
        for part, rows, own in chunks
    ]
    return torch.cat(parts)


Views = Callable[[Tensor, Noise], list[Tensor]]
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
            generator: gives every image a seed, or the images' streams.

        Raises:
            ValueError: a scale at which nothing is left of the image.
        """
        side, streams = pixels.shape[-1], noise_of(generator, pixels)
        resized = partial(F.interpolate, mode="bicubic", antialias=not self.released)
        seen = [pixels]
        for scale in self.scales:
            if int(scale * side) < 1:
                raise ValueError(f"a view at scale {scale:g} leaves nothing of {side} pixels")
            noisy = pixels + self.noise * streams.normal(pixels)
            small = resized(noisy, size=int(scale * side)).clamp(0, 1)
            back = resized(small, size=side)  # (B, 3, H, W)
            seen.append(back if self.released else back.clamp(0, 1))
        return seen
