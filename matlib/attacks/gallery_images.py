"""Ascent of all images of a gallery together, against queries of both directions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.apgd import checkpoints
from matlib.attacks.ascent import AttackReport, Vanished, checked
from matlib.attacks.balls import Ball, Norm, check_eps, largest
from matlib.attacks.gallery import Gallery
from matlib.attacks.margins import Aim, margins, soft_margins, unit_of
from matlib.attacks.scoring import images_per_forward
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
        schedule: `cosine`, or APGD's (`matlib.attacks.apgd`): steps of twice the radius, halved
            for the whole gallery, with a return to the best point, where progress stalls.
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
    schedule: Literal["cosine", "apgd"] = "cosine"

    def __post_init__(self) -> None:
        check_eps(self.eps_255, self.norm)
        if self.n_steps < 0 or not 0 <= self.momentum <= 1:
            raise ValueError(
                "expected n_steps >= 0 and momentum in [0, 1]; "
                f"got {self.n_steps} and {self.momentum}"
            )
        if self.schedule not in ("cosine", "apgd"):
            raise ValueError(f"schedule must be 'cosine' or 'apgd'; got {self.schedule!r}")
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
            run = _Run(self, encoder, gallery, clean, text, aim.to(text))
            return run.ascend(point.to(clean), report)


class _Run:
    """One ascent.

    The score needs the whole gallery, a forward holds a chunk of it: so its slope in the
    embeddings is taken first, of all images at once, and then carried through the encoder chunk
    by chunk. Where all images fit into one forward that forward serves both.
    """

    def __init__(
        self,
        how: JointAscent,
        encoder: DualEncoder,
        gallery: Gallery,
        clean: Tensor,
        text: Tensor,
        aim: Aim,
    ) -> None:
        self.how, self.encoder, self.clean, self.text, self.aim = how, encoder, clean, text, aim
        self.relevant = gallery.relevant.to(clean.device)
        size = gallery.chunk or images_per_forward(clean, device=clean.device)
        self.parts = torch.arange(len(clean), device=clean.device).split(size)
        self.vanished = [Vanished(len(rows), clean.device) for rows in self.parts]
        self.unit = 1.0

    def ascend(self, point: Tensor, report: AttackReport | None) -> Tensor:
        how, ball = self.how, self.how.ball
        velocity, best, kept = torch.zeros_like(point), (-math.inf, -math.inf), point
        size: _Falling | _Halving = _Falling(how)
        if how.schedule == "apgd":
            size = _Halving(how.n_steps)
        for step in range(how.n_steps):
            gradient, stays, value = self._look(point, first=step == 0)
            if step == 0 or value > best:
                best, kept, there = value, point, (gradient, stays)
            if size.stalls(step, value, best):
                point, velocity = kept, torch.zeros_like(point)
                gradient, stays = there
            velocity = how.momentum * velocity + _at_mean_1(gradient)  # (N, 3, H, W)
            direction = ball.direction(velocity).masked_fill(stays, 0)
            point = ball.project(point + ball.eps * size.at(step) * direction, self.clean)
        if how.n_steps:
            with torch.no_grad():
                value, _ = self._value(self._features(point) @ self.text.T)
            best, kept = max((best, kept), (value, point), key=lambda each: each[0])
        for each in self.vanished:
            each.tell(report)
        return kept

    def _features(self, point: Tensor) -> Tensor:
        return torch.cat([self.encoder.encode_image(point[rows]) for rows in self.parts])  # (N, D)

    def _look(self, point: Tensor, *, first: bool) -> tuple[Tensor, Tensor, tuple[float, float]]:
        """Slope of the score in every image, which images stay, and what the point is worth."""
        leaf = point.detach().requires_grad_(True)
        at_once = len(self.parts) == 1
        with torch.set_grad_enabled(at_once):
            features = self._features(leaf)
        seen = features.detach().requires_grad_(True)
        with torch.enable_grad():
            similarity = seen @ self.text.T  # (N, M)
            if first:
                self.unit = unit_of(*margins(similarity.detach(), self.relevant))
            value, score = self._value(similarity)
            (slope,) = torch.autograd.grad(score, seen)  # (N, D)
            if at_once:
                parts = [torch.autograd.grad(features, leaf, slope)[0]]  # [(N, 3, H, W)]
            else:
                parts = [self._carried(point[rows], slope[rows]) for rows in self.parts]
        checked_parts = [c.check(part) for c, part in zip(self.vanished, parts, strict=True)]
        gradients, stays = zip(*checked_parts, strict=True)
        return torch.cat(gradients), torch.cat(stays), value

    def _carried(self, pixels: Tensor, slope: Tensor) -> Tensor:
        """The slope in embeddings through the encoder, to the pixels."""
        leaf = pixels.detach().requires_grad_(True)
        return torch.autograd.grad(self.encoder.encode_image(leaf), leaf, slope)[0]

    def _value(self, similarity: Tensor) -> tuple[tuple[float, float], Tensor]:
        """Worth of the failing queries, then where equal the score; and the score to ascend.

        The score is linear in a margin far below the point of failing, and level far above it.
        """
        failing = self.aim.failing(*margins(similarity.detach(), self.relevant))
        tr, ir = soft_margins(similarity, self.relevant, self.how.width * self.unit)  # (N,), (M,)
        width = self.how.softness * self.unit
        lost = (self.aim.tr * F.softplus(-tr / width)).sum()  # ()
        score = -lost - (self.aim.ir * F.softplus(-ir / width)).sum()
        return (float(failing), float(score.detach())), score


class _Falling:
    """A step that falls by a cosine, as a share of the radius."""

    def __init__(self, how: JointAscent) -> None:
        self.how = how

    def stalls(self, step: int, value: tuple[float, float], best: tuple[float, float]) -> bool:
        return False

    def at(self, step: int) -> float:
        falls = (1 + math.cos(math.pi * step / self.how.n_steps)) / 2
        return self.how.last_step + (self.how.first_step - self.how.last_step) * falls


class _Halving:
    """APGD's step (Croce & Hein 2020, Algorithm 1), one for the whole gallery.

    At a checkpoint it is halved if fewer than `rho` of the steps since the last one rose, or if
    it was not halved there and nothing better has been met since.
    """

    rho = 0.75

    def __init__(self, n_steps: int) -> None:
        self.share, self.checkpoints = 2.0, checkpoints(n_steps)
        self.rises, self.last, self.was_halved = 0, 0, True
        self.before: tuple[float, float] = (-math.inf, -math.inf)
        self.best_before = self.before

    def stalls(self, step: int, value: tuple[float, float], best: tuple[float, float]) -> bool:
        """Whether the ascent goes back to the best point; `value` is that after `step` steps."""
        self.rises += step > 0 and value[1] > self.before[1]
        self.before = value
        if step not in self.checkpoints:
            return False
        few = self.rises < self.rho * (step - self.last)
        no_better = not self.was_halved and best <= self.best_before
        self.was_halved = few or no_better
        self.rises, self.last, self.best_before = 0, step, best
        if self.was_halved:
            self.share, self.before = self.share / 2, best
        return self.was_halved

    def at(self, step: int) -> float:
        return self.share


def _at_mean_1(gradient: Tensor) -> Tensor:
    """(B, 3, H, W) with a mean magnitude of 1 per image, as in MI-FGSM; zeros stay zeros."""
    tiny = torch.finfo(gradient.dtype).tiny
    scaled = gradient / largest(gradient).clamp_min(tiny)
    return scaled / scaled.abs().flatten(1).mean(1).clamp_min(tiny).view(-1, 1, 1, 1)
