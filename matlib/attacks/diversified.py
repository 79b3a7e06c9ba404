"""DRA (Gao et al. 2024): SGA with gradients from along the path of the attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.attacks.ascent import (
    AttackReport,
    ScaleViews,
    Vanished,
    Views,
    checked,
    score_and_gradient,
    score_of,
)
from matlib.attacks.budgets import check_count, check_weights
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, TextAttack, embed_images, prepared
from matlib.attacks.noise import ImageGenerators, Noise, noise_of, seeds_of_images
from matlib.attacks.objectives import ImageObjective, away_from_captions, away_from_image
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import ROUNDING_UNITS, embed_texts, images_per_forward
from matlib.models.dual_encoder import DualEncoder, frozen

Mix = tuple[float, float, float]
"""Weights of the current, the clean and the previous image; they sum to 1."""


def draw_mixes(n: int, noise: Noise, images: Tensor) -> Tensor:
    """(B, n, 3), per image `n` triples (`Mix`) in whole percent, in the images' dtype.

    a is uniform in 0..100, b uniform in 0..100 - a, c the rest.

    The released sampler is not uniform over triples either, and the paper does not say which
    law is meant. This one favours the current image: the mean of a is 50, of b and c 25.
    """
    first, second = noise.uniform(images.new_empty(len(images), n, 2)).unbind(-1)  # (B, n) each
    a = (101 * first).floor()
    b = ((101 - a) * second).floor()
    return torch.stack([a, b, 100 - a - b], dim=-1) / 100


@dataclass(frozen=True)
class DiversifiedPGD:
    """DRA's image step: SGA's, with the gradient taken at a mix of three points of its path.

    The first step is SGA's. From the second on, `n_mixes` triples (a, b, c) are drawn for every
    image, each naming its point a * current + b * clean + c * previous. A step along the
    gradient there (without views) is tried from the current image, and per image the triple
    whose step scores highest is kept. Then SGA's step follows, with its gradient (all views) at
    that point.

    The released code draws for its whole batch of 8 and keeps one triple, that of the highest
    sum. The score is a sum over images, and max_k sum_i s_ik <= sum_i max_k s_ik: a triple per
    image is at least as good, and does not hang on who shares the batch. It also tries the
    triples one by one, with a second backward pass for each that nothing uses; here they are one
    forward and one backward of n_mixes * B images, and one forward.

    Attributes:
        image: budget, step, start and number of steps (released: `PGD(8, 10, 2)`).
        n_mixes: triples tried per step.
    """

    image: PGD
    n_mixes: int = 5

    def __post_init__(self) -> None:
        check_count("n_mixes", self.n_mixes, 1)
        if self.image.momentum or self.image.n_restarts > 1:
            raise ValueError("DRA is one run without momentum: pass a PGD that has neither")

    def __call__(
        self,
        encoder: DualEncoder,
        pixels: Tensor,
        objective: ImageObjective,
        *,
        generator: ImageGenerators,
        views: Views | None = None,
        report: AttackReport | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Adversarial pixels, and those one step before, both (B, 3, H, W); see `PGD`."""
        clean = checked(encoder, pixels, self.image.eps_255, self.image.norm)
        if self.image.eps_255 == 0 or self.image.n_steps == 0:
            return clean.clone(), clean.clone()
        ball, vanished = self.image.ball, Vanished(len(clean), clean.device)
        noise = noise_of(generator, clean)
        start = clean + ball.draw(clean, self.image.start, noise)
        previous = current = ball.project(start, clean)
        with frozen(encoder):
            for step in range(self.image.n_steps):
                point = current
                if step > 0:
                    path = torch.stack([current, clean, previous])
                    point = self._best_mix(encoder, path, objective, noise)
                _, gradient = score_and_gradient(encoder, point, objective, noise, views)
                gradient = vanished.check(gradient)
                there = current + self.image.step * ball.direction(gradient)
                previous, current = current, ball.project(there, clean)
        vanished.tell(report)
        return current, previous

    def _best_mix(
        self,
        encoder: DualEncoder,
        path: Tensor,
        objective: ImageObjective,
        noise: Noise,
    ) -> Tensor:
        """(3, B, ...) current, clean and previous images -> (B, ...), the best mix of each."""
        current, n = path[0], self.n_mixes
        points = torch.einsum("bnp,pbchw->nbchw", draw_mixes(n, noise, current), path)

        def of_all(features: Tensor) -> Tensor:
            return torch.cat([objective(part) for part in features.chunk(n)])

        tried = points.flatten(0, 1)
        _, gradient = score_and_gradient(encoder, tried, of_all, noise, None)
        move = self.image.step * self.image.ball.direction(gradient.nan_to_num(0, 0, 0))
        with torch.no_grad():
            score = score_of(encoder, current.repeat(n, 1, 1, 1) + move, of_all, noise, None)
        score = score.view(n, -1)  # (n, B)
        # mixes whose steps are the same one have the same score, but for rounding
        margin = ROUNDING_UNITS * torch.finfo(score.dtype).eps * score.abs().clamp_min(1)
        best = (score >= (score - margin).amax(0)).byte().argmax(0)  # (B,), the first of equal
        return points[best, torch.arange(len(current), device=best.device)]


def dra(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: PGD,
    text: TextAttack,
    *,
    generator: torch.Generator,
    views: ScaleViews | None = None,
    n_mixes: int = 5,
    weights: Mix = (0.6, 0.2, 0.2),
    report: AttackReport | None = None,
) -> tuple[Tensor, list[str]]:
    """Text, image, text as in SGA: an attack made to transfer to other models.

    1. each caption moves away from its clean image;
    2. the image moves, by gradients from along its path, away from all its moved captions;
    3. each *clean* caption moves away from its image clean, moved, and one step before.

    Args:
        image: the released code has eps 8/255, step 2/255 and 10 steps where SGA has 2, 0.5
            and 10: its tables cannot be compared with SGA's.
        views: SGA's scales; the code ignores its own `--scales` and always takes these.
        n_mixes: see `DiversifiedPGD`.
        weights: of the clean, the moved and the previous image in step 3.
    """
    check_weights("weights", weights)
    away = prepared(encoder, gallery, candidates, text, report)
    clean = embed_images(encoder, gallery.pixels, gallery.chunk)
    first = embed_texts(encoder, away(away_from_image(clean[gallery.own])))

    own, move = gallery.own_mask.to(first.device), DiversifiedPGD(image, n_mixes)
    seen_as = views or ScaleViews()
    most = max(seen_as.n_views, n_mixes)
    size = gallery.chunk or images_per_forward(gallery.pixels, most, encoder.device)
    seeds = seeds_of_images(len(gallery.pixels), generator).to(first.device)
    chunks = zip(*(part.split(size) for part in (gallery.pixels, own, seeds)), strict=True)
    parts = [
        move(
            encoder, pixels, away_from_captions(first, mask), generator=Noise(seed), views=seen_as,
            report=report,
        )
        for pixels, mask, seed in chunks
    ]  # fmt: skip
    moved, before = (torch.cat(images) for images in zip(*parts, strict=True))

    # A weighted sum of similarities is the similarity to the weighted sum of the images.
    seen = [clean, *(embed_images(encoder, x, gallery.chunk) for x in (moved, before))]
    guide = torch.stack([weight * x for weight, x in zip(weights, seen, strict=True)]).sum(0)
    return moved, away(away_from_image(guide[gallery.own]))
