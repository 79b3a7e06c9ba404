"""Ascent of all images of a gallery together, against queries of both directions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.ascent import AttackReport, Vanished, checked
from matlib.attacks.balls import Ball, Norm, check_eps, largest
from matlib.attacks.gallery import Gallery
from matlib.attacks.margins import Aim, margins, soft_margins, unit_of
from matlib.models.dual_encoder import DualEncoder, frozen


@dataclass(frozen=True)
class JointAscent:
    """The image step of the gallery attacker.

    All images ascend one score of the whole gallery: the worth of its queries, each counted
    softly by its margin. So an image moves away from its own captions as a query, and as the
    right answer of theirs; and towards foreign captions as the wrong answer of theirs. Of all
    points on the way the one at which most queries fail is kept, the first one included.

    Attributes:
        eps_255: radius of the ball in 1/255 of the pixel range, as in `PGD`.
        n_steps: gradient steps.
        norm: `linf` or `l2`.
        momentum: share of the velocity that is kept.
        first_step, last_step: of the ball's radius; between them the step falls by a cosine.
        width: softness of "highest" among the answers, in units of the model's margins.
        softness: of "failing", in the same unit.
    """

    eps_255: float
    n_steps: int = 20
    norm: Norm = "linf"
    momentum: float = 0.9
    first_step: float = 0.5
    last_step: float = 0.05
    width: float = 0.3
    softness: float = 1.0

    def __post_init__(self) -> None:
        check_eps(self.eps_255, self.norm)
        if self.n_steps < 0 or not 0 <= self.momentum <= 1:
            raise ValueError(
                "expected n_steps >= 0 and momentum in [0, 1]; "
                f"got {self.n_steps} and {self.momentum}"
            )
        if not (0 < self.last_step <= self.first_step and min(self.width, self.softness) > 0):
            raise ValueError(
                "expected 0 < last_step <= first_step, and width and softness above 0; got "
                f"{self.last_step}, {self.first_step}, {self.width} and {self.softness}"
            )

    def narrowed(self) -> JointAscent:
        """The same with harder counts: for points from which an ascent has already come."""
        return replace(self, width=self.width / 3, softness=self.softness / 2)

    @property
    def ball(self) -> Ball:
        """The allowed perturbations, in pixel units."""
        return Ball(self.eps_255 / 255, self.norm)

    def start(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """A point of the ball around each clean image, drawn uniformly."""
        return self.ball.project(clean + self.ball.draw(clean, "uniform", generator), clean)

    def __call__(
        self,
        encoder: DualEncoder,
        gallery: Gallery,
        point: Tensor,
        text: Tensor,
        aim: Aim,
        *,
        report: AttackReport | None = None,
    ) -> Tensor:
        """Pixels (N, 3, H, W) within the ball, at which as many queries fail as at any met.

        Args:
            point: float (N, 3, H, W), where to begin, within the ball.
            text: (M, D) unit embeddings of the captions as they are now.
            report: counts the gradients that vanish.

        Raises:
            ValueError: pixels outside [0, 1], an encoder in training mode.
        """
        clean = checked(encoder, gallery.pixels, self.eps_255, self.norm)
        with frozen(encoder):
            run = _Run(self, encoder, gallery, clean, point.to(clean), text, aim.to(text))
            return run.ascend(report)


class _Run:
    """One ascent; `similarity` (N, M) is that of the images where they were last seen."""

    def __init__(
        self,
        how: JointAscent,
        encoder: DualEncoder,
        gallery: Gallery,
        clean: Tensor,
        point: Tensor,
        text: Tensor,
        aim: Aim,
    ) -> None:
        self.how, self.encoder, self.clean, self.text, self.aim = how, encoder, clean, text, aim
        self.relevant = gallery.relevant.to(clean.device)
        self.point, self.velocity = point, torch.zeros_like(point)
        self.parts = torch.arange(len(clean), device=clean.device).split(gallery.chunk)
        self.similarity = torch.cat([self._seen(point[rows]) for rows in self.parts])
        self.unit = unit_of(*margins(self.similarity, self.relevant))

    def _seen(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return self.encoder.encode_image(pixels) @ self.text.T

    def ascend(self, report: AttackReport | None) -> Tensor:
        best, kept = self._value(), self.point
        vanished = [Vanished(len(rows), self.clean.device) for rows in self.parts]
        for step in range(self.how.n_steps):
            before = self.point
            self.point = self._move(step, vanished)
            if step:  # the similarities are now those of `before`, all of them
                best, kept = max((best, kept), (self._value(), before), key=lambda x: x[0])
        if self.how.n_steps:
            self.similarity = torch.cat([self._seen(self.point[rows]) for rows in self.parts])
            best, kept = max((best, kept), (self._value(), self.point), key=lambda x: x[0])
        for each in vanished:
            each.tell(report)
        return kept

    def _value(self) -> tuple[float, float]:
        """Worth of the failing queries; where equal, the softly counted one."""
        failing = self.aim.failing(*margins(self.similarity, self.relevant))
        return float(failing), float(self._score(self.similarity))

    def _score(self, similarity: Tensor) -> Tensor:
        """Scalar to ascend: linear far below the point of failing, level far above it."""
        unit, how = self.unit, self.how
        tr, ir = soft_margins(similarity, self.relevant, how.width * unit)
        width = how.softness * unit
        lost = (self.aim.tr * F.softplus(-tr / width)).sum()
        return -lost - (self.aim.ir * F.softplus(-ir / width)).sum()

    def _move(self, step: int, vanished: list[Vanished]) -> Tensor:
        """Every image one step on, chunk by chunk, each against the others as last seen."""
        how, ball, moved = self.how, self.how.ball, []
        falls = (1 + math.cos(math.pi * step / max(how.n_steps, 1))) / 2
        size = ball.eps * (how.last_step + (how.first_step - how.last_step) * falls)
        for rows, counts in zip(self.parts, vanished, strict=True):
            leaf = self.point[rows].requires_grad_(True)
            with torch.enable_grad():
                own = self.encoder.encode_image(leaf) @ self.text.T
                score = self._score(self.similarity.index_copy(0, rows, own))
                (gradient,) = torch.autograd.grad(score, leaf)
            self.similarity[rows] = own.detach()
            gradient, stays = counts.check(gradient)
            self.velocity[rows] = how.momentum * self.velocity[rows] + _at_mean_1(gradient)
            direction = ball.direction(self.velocity[rows]).masked_fill(stays, 0)
            moved.append(ball.project(self.point[rows] + size * direction, self.clean[rows]))
        return torch.cat(moved)


def _at_mean_1(gradient: Tensor) -> Tensor:
    """(B, 3, H, W) with a mean magnitude of 1 per image, as in MI-FGSM; zeros stay zeros."""
    tiny = torch.finfo(gradient.dtype).tiny
    scaled = gradient / largest(gradient).clamp_min(tiny)
    return scaled / scaled.abs().flatten(1).mean(1).clamp_min(tiny).view(-1, 1, 1, 1)
