"""DRA (Gao et al. 2024, "Boosting Transferability ..."): SGA steered along the attack's path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.attacks.balls import Ball
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, TextAttack, embed_images, prepared
from matlib.attacks.objectives import (
    ImageObjective,
    TextObjective,
    away_from_captions,
    away_from_image,
)
from matlib.attacks.scoring import embed_texts
from matlib.attacks.views import ScaleViews
from matlib.models.dual_encoder import DualEncoder, check_evaluation_mode, check_pixels, frozen


@dataclass(frozen=True)
class DiversifiedPGD:
    """DRA's image step: SGA's, with the gradient taken at a mix of points of the path.

    At every step `n_mixes` triples (a, b, c) with a + b + c = 1 are drawn. Each names the point
    a * current + b * clean + c * previous; the sign step from there is tried without views, and
    the triple whose step raises the score most is kept, per image. Then one step of SGA follows
    with the gradient at that point. The released code tries the triples one after the other and
    computes a second backward pass for each that nothing uses; here they are one batch.

    Attributes:
        eps_255: radius of the L-infinity ball in 1/255.
        n_steps: steps.
        step_255: step in 1/255 (released: 2/255 at eps 8/255).
        n_mixes: triples tried per step.
    """

    eps_255: float
    n_steps: int = 10
    step_255: float = 2.0
    n_mixes: int = 5

    def __call__(
        self,
        encoder: DualEncoder,
        pixels: Tensor,
        objective: ImageObjective,
        *,
        generator: torch.Generator,
        views: ScaleViews,
    ) -> tuple[Tensor, Tensor]:
        """Adversarial pixels and those of the step before the last, both (B, 3, H, W)."""
        check_pixels(pixels)
        check_evaluation_mode(encoder)
        clean = pixels.to(encoder.device)
        if self.eps_255 == 0 or self.n_steps == 0:
            return clean.clone(), clean.clone()
        ball = Ball(self.eps_255 / 255, "linf")
        current = ball.project(clean + ball.draw(clean, "uniform", generator), clean)
        previous, step = clean, self.step_255 / 255
        with frozen(encoder):
            for _ in range(self.n_steps):
                point = self._best_mix(encoder, current, clean, previous, objective, generator)
                seen = point.requires_grad_(True)
                with torch.enable_grad():
                    parts = [objective(encoder.encode_image(v)) for v in views(seen, generator)]
                    (gradient,) = torch.autograd.grad(torch.stack(parts).sum(), seen)
                previous, current = current, ball.project(current + step * gradient.sign(), clean)
        return current, previous

    def _best_mix(
        self,
        encoder: DualEncoder,
        current: Tensor,
        clean: Tensor,
        previous: Tensor,
        objective: ImageObjective,
        generator: torch.Generator,
    ) -> Tensor:
        step = self.step_255 / 255
        points = torch.stack(
            [a * current + b * clean + c * previous for a, b, c in self._mixes(generator)]
        )
        n = len(points)
        seen = points.flatten(0, 1).requires_grad_(True)
        with torch.enable_grad():
            scores = [objective(f) for f in encoder.encode_image(seen).chunk(n)]
            (gradient,) = torch.autograd.grad(torch.stack(scores).sum(), seen)
        with torch.no_grad():
            tried = current.repeat(n, 1, 1, 1) + step * gradient.sign()
            value = torch.stack([objective(f) for f in encoder.encode_image(tried).chunk(n)])
        best = value.argmax(0)
        return points.detach()[best, torch.arange(len(clean), device=best.device)]

    def _mixes(self, generator: torch.Generator) -> list[tuple[float, float, float]]:
        """Triples in whole percent: a uniform in 0..100, b uniform in 0..100 - a, c the rest.

        The released sampler is not uniform over triples either; its exact law is its own.
        """
        found = []
        for _ in range(self.n_mixes):
            a = int(torch.randint(101, (1,), generator=generator))
            b = int(torch.randint(101 - a, (1,), generator=generator))
            found.append((a / 100, b / 100, (100 - a - b) / 100))
        return found


def dra(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: DiversifiedPGD,
    text: TextAttack,
    *,
    generator: torch.Generator,
    views: ScaleViews | None = None,
    weights: tuple[float, float, float] = (0.6, 0.2, 0.2),
) -> tuple[Tensor, list[str]]:
    """Text, image, text as in SGA; a transfer attack.

    1. each caption moves away from its clean image;
    2. the image moves along diversified gradients away from all its moved captions;
    3. each clean caption moves away from a mix of its image clean, moved, and one step before.

    Args:
        weights: of the three images in step 3 (released: 0.6, 0.2, 0.2).
    """
    away = prepared(encoder, gallery, candidates, text)
    clean = embed_images(encoder, gallery.pixels, gallery.chunk)
    first = embed_texts(encoder, away(away_from_image(clean[gallery.own])))
    own, scales = gallery.own_mask.to(first.device), views or ScaleViews()
    moved, before = [], []
    for rows in torch.arange(len(gallery.pixels)).split(gallery.chunk):
        objective = away_from_captions(first, own[rows])
        last, last_but_one = image(
            encoder, gallery.pixels[rows], objective, generator=generator, views=scales
        )
        moved.append(last)
        before.append(last_but_one)
    pixels = torch.cat(moved)
    guides = [
        clean,
        embed_images(encoder, pixels, gallery.chunk),
        embed_images(encoder, torch.cat(before), gallery.chunk),
    ]
    return pixels, away(_away_from_mix([g[gallery.own] for g in guides], weights))


def _away_from_mix(guides: list[Tensor], weights: tuple[float, float, float]) -> TextObjective:
    # a weighted sum of similarities is the similarity to the weighted sum of the guides
    return away_from_image(sum(w * g for w, g in zip(weights, guides, strict=True)))  # type: ignore[arg-type]
