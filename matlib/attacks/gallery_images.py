"""Ascent of all images of a gallery together, against queries of both directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.apgd import checkpoints
from matlib.attacks.ascent import AttackReport, Vanished, checked
from matlib.attacks.balls import Ball, Norm, check_eps, largest
from matlib.attacks.gallery import Gallery
from matlib.attacks.margins import Aim, margins, soft_margins, soft_worth, unit_of
from matlib.attacks.scoring import images_per_forward
from matlib.models.dual_encoder import DualEncoder, frozen

Choose = Callable[[Tensor, float], Tensor]
"""(N, D) embeddings of the images as they are, softness of "failing" in cosines -> (M, D) unit
embeddings of the captions that are chosen for them."""


@dataclass(frozen=True)
class JointAscent:
    """The image step of the gallery attacker.

    All images ascend one score of the whole gallery: the worth of its queries, each counted
    softly by its margin. So an image moves away from its own captions as a query, and as the
    right answer of theirs; and towards foreign captions as the wrong answer of theirs. The counts
    begin soft and end sharp (an annealing): at first every query near to failing pulls, at last
    those do that may still be won. Of all points on the way the one at which most queries fail
    is kept, the first one included.

    Attributes:
        eps_255: radius of the ball in 1/255 of the pixel range, as in `PGD`.
        n_steps: gradient steps.
        norm: `linf` or `l2`.
        momentum: share of the velocity that is kept.
        first_step, last_step: of the ball's radius; between them the step falls by a cosine, anew
            each time that words are chosen.
        schedule: `cosine`, or APGD's (`matlib.attacks.apgd`): steps of twice the radius, halved
            for the whole gallery, with a return to the best point, where progress stalls.
        width: softness of "highest" among the answers, in units of the model's margins.
        softness: of "failing", in the same unit.
        sharpening: both at the last step, as a share of what they are at the first.
        n_sweeps: times that words are chosen anew on the way, where they may be.
    """

    eps_255: float
    n_steps: int = 20
    norm: Norm = "linf"
    momentum: float = 0.9
    first_step: float = 0.5
    last_step: float = 0.01
    width: float = 0.12
    softness: float = 0.25
    sharpening: float = 0.3
    n_sweeps: int = 4
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
        if not (0 < self.sharpening <= 1 and self.n_sweeps >= 1):
            raise ValueError(
                "expected 0 < sharpening <= 1 and n_sweeps >= 1; "
                f"got {self.sharpening} and {self.n_sweeps}"
            )

    def narrowed(self) -> JointAscent:
        """The same, as sharp from the first step on as it ends: for points that an ascent found."""
        sharp = self.sharpening
        return replace(self, width=sharp * self.width, softness=sharp * self.softness, sharpening=1)

    def sharpness(self, step: int) -> float:
        """Share of `width` and of `softness` that is left at a step: it falls geometrically.

        APGD's schedule compares scores of different steps, so there it stays in the middle.
        """
        done = 0.5 if self.schedule == "apgd" else step / max(self.n_steps - 1, 1)
        return self.sharpening**done

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
        choose: Choose | None = None,
        report: AttackReport | None = None,
    ) -> Tensor:
        """Pixels (N, 3, H, W) within the ball, at which as many queries fail as at any met.

        Args:
            point: float (N, 3, H, W), where to begin, within the ball.
            text: (M, D) unit embeddings of the captions as they are now.
            choose: asked for them anew `n_sweeps` times on the way, at the first step too; points
                are then compared from the last time on.
            report: counts the gradients that vanish.

        Raises:
            ValueError: pixels outside [0, 1], an encoder in training mode.
        """
        clean = checked(encoder, gallery.pixels, self.eps_255, self.norm)
        with frozen(encoder):
            run = _Run(self, encoder, gallery, clean, text, aim.to(text), choose)
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
        choose: Choose | None,
    ) -> None:
        self.how, self.encoder, self.clean, self.text, self.aim = how, encoder, clean, text, aim
        self.choose = choose
        self.relevant = gallery.relevant.to(clean.device)
        size = gallery.chunk or images_per_forward(clean, device=clean.device)
        self.parts = torch.arange(len(clean), device=clean.device).split(size)
        self.vanished = [Vanished(len(rows), clean.device) for rows in self.parts]
        self.unit, self.sharpness = 0.0, 1.0

    def ascend(self, point: Tensor, report: AttackReport | None) -> Tensor:
        how, ball = self.how, self.how.ball
        velocity, best, kept = torch.zeros_like(point), (-math.inf, -math.inf), point
        every = max(-(-how.n_steps // how.n_sweeps) if self.choose else how.n_steps, 1)
        size: _Falling | _Halving = _Falling(how, every)
        if how.schedule == "apgd":
            size = _Halving(how.n_steps)
        for step in range(how.n_steps):
            self.sharpness = how.sharpness(step)
            asks = self.choose is not None and step % every == 0
            gradient, stays, value = self._look(point, asks=asks)
            if asks:
                velocity = torch.zeros_like(point)
            if step == 0 or asks or value >= best:
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
            if value >= best:
                kept = point
        for each in self.vanished:
            each.tell(report)
        return kept

    def _features(self, point: Tensor) -> Tensor:
        return torch.cat([self.encoder.encode_image(point[rows]) for rows in self.parts])  # (N, D)

    def _look(self, point: Tensor, *, asks: bool) -> tuple[Tensor, Tensor, tuple[float, float]]:
        """Slope of the score in every image, which images stay, and what the point is worth."""
        leaf = point.detach().requires_grad_(True)
        at_once = len(self.parts) == 1
        with torch.set_grad_enabled(at_once):
            features = self._features(leaf)
        seen = features.detach().requires_grad_(True)
        if not self.unit:
            self.unit = unit_of(*margins(features.detach() @ self.text.T, self.relevant))
        if asks and self.choose is not None:
            softness = self.how.softness * self.sharpness * self.unit
            self.text = self.choose(features.detach(), softness)  # (M, D)
        with torch.enable_grad():
            value, score = self._value(seen @ self.text.T)
            (slope,) = torch.autograd.grad(score, seen)  # (N, D)
            if at_once:
                parts = [torch.autograd.grad(features, leaf, slope)[0]]  # [(N, 3, H, W)]
            else:
                parts = [self._carried(point[rows], slope[rows]) for rows in self.parts]
        gradients = [c.check(part) for c, part in zip(self.vanished, parts, strict=True)]
        return torch.cat(gradients), torch.cat([c.stays for c in self.vanished]), value

    def _carried(self, pixels: Tensor, slope: Tensor) -> Tensor:
        """The slope in embeddings through the encoder, to the pixels."""
        leaf = pixels.detach().requires_grad_(True)
        return torch.autograd.grad(self.encoder.encode_image(leaf), leaf, slope)[0]

    def _value(self, similarity: Tensor) -> tuple[tuple[float, float], Tensor]:
        """By what points are compared, and the score to ascend.

        First of all by the worth of the failing queries. Of equal points APGD's schedule takes
        the one of the higher score; else the later one, by the sharper count.
        """
        failing = self.aim.failing(*margins(similarity.detach(), self.relevant))
        unit = self.sharpness * self.unit
        tr, ir = soft_margins(similarity, self.relevant, self.how.width * unit)  # (N,), (M,)
        width = self.how.softness * unit
        score = (self.aim.tr * soft_worth(tr / width)).sum()  # ()
        score = score + (self.aim.ir * soft_worth(ir / width)).sum()
        is_apgd = self.how.schedule == "apgd"
        return (float(failing), float(score.detach()) if is_apgd else 0.0), score


class _Falling:
    """A step that falls by a cosine, as a share of the radius; anew after `every` steps."""

    def __init__(self, how: JointAscent, every: int) -> None:
        self.how, self.every = how, every

    def stalls(self, step: int, value: tuple[float, float], best: tuple[float, float]) -> bool:
        return False

    def at(self, step: int) -> float:
        falls = (1 + math.cos(math.pi * (step % self.every) / self.every)) / 2
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
