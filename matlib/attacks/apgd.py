"""Auto-PGD (Croce & Hein 2020, arXiv 2003.01690, Algorithm 1): no step size to choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.ascent import (
    AttackReport,
    Vanished,
    Views,
    check_start,
    checked,
    lowest_if_nan,
    score_and_gradient,
    score_of,
    take_better,
)
from matlib.attacks.balls import Ball, Norm, Start, check_eps
from matlib.attacks.budgets import check_count
from matlib.attacks.noise import ImageGenerators, Noise, noise_of
from matlib.attacks.objectives import ImageObjective
from matlib.models.dual_encoder import DualEncoder, frozen

StepRule = Literal["paper", "released"]


def checkpoints(n_steps: int, rule: StepRule = "paper") -> list[int]:
    """Steps (1 to n_steps) after which the step size may be halved.

    `paper`: ceil(p_j * n_steps) with p_1 = 0.22 and gaps of p shrinking by 0.03 from 0.22 down
    to 0.06. `released`: periods int(0.22 n), then each int(0.03 n) shorter, down to int(0.06 n),
    none below 1. At 100 steps both are 22, 41, 57, 70, 80, 87, 93, 99; at 10 steps the paper
    has 3, 5, 6, 7, 8, 9, 10 and the code 2, 3, 4, ..., 10.
    """
    found: list[int] = []
    if rule == "released":
        period, done = max(22 * n_steps // 100, 1), 0
        while (done := done + period) <= n_steps:
            found.append(done)
            period = max(period - max(3 * n_steps // 100, 1), 6 * n_steps // 100, 1)
        return found
    before, share = 0, 22  # in hundredths: exact, so that ceil() meets no rounding
    while share <= 100:
        found.append(-(-share * n_steps // 100))
        before, share = share, share + max(share - before - 3, 6)
    return sorted(set(found))


@dataclass(frozen=True)
class APGD:
    """Ascent with momentum that halves its step, per image, when progress stalls.

    It begins with steps of 2 * eps. At checkpoints an image's step is halved, and the image
    goes back to its best point, if (1) fewer than `rho` of the steps since the last checkpoint
    rose, or (2) the step was not halved at the last checkpoint and the best score has not risen
    since. The best point is returned. The score of an image must depend on that image alone
    (a sum over the batch, of one term per image): see `ImageObjective`.

    A run evaluates n_steps gradients and n_steps + 1 scores. With random views the scores are
    those under the noise drawn at each step.

    Attributes:
        eps_255: radius of the ball in 1/255 of the pixel range, as in `PGD`.
        n_steps: gradient steps (paper: 100).
        start: `uniform` in the ball, `positive` (L-infinity only) or `none`. The released code
            stretches its draw until it touches the sphere; at 224 px the largest of 150,528
            uniform draws is within 1e-4 of it anyway.
        norm: `linf` or `l2`.
        momentum: alpha, the weight of the gradient step against the last move.
        rho: share of rising steps that keeps the step size.
        rule: where the released code leaves the paper. `paper` (default): checkpoints as in
            `checkpoints`; (1) rises < rho * steps; after a return to the best point the next
            step is compared with the best score, the point it starts from. `released`: its
            own checkpoints; rises <= rho * steps; the next step is compared with the score of
            the point that was left, which is lower, so that falls pass as rises; the first
            step counts as a rise (it is compared with the zeros of an array, and a
            cross-entropy is above zero); (2) cannot hold at the first checkpoint.
        n_restarts: runs in all; per image the best point of all runs is kept.
    """

    eps_255: float
    n_steps: int = 100
    start: Start = "uniform"
    norm: Norm = "linf"
    momentum: float = 0.75
    rho: float = 0.75
    rule: StepRule = "paper"
    n_restarts: int = 1

    def __post_init__(self) -> None:
        check_eps(self.eps_255, self.norm)
        check_start(self.start, self.norm, self.n_restarts)
        check_count("n_steps", self.n_steps)
        if not (0 < self.momentum <= 1 and 0 <= self.rho <= 1):
            raise ValueError(
                f"momentum must be in (0, 1] and rho in [0, 1]; got {self.momentum}, {self.rho}"
            )
        if self.rule not in ("paper", "released"):
            raise ValueError(f"rule must be 'paper' or 'released'; got {self.rule!r}")

    @property
    def ball(self) -> Ball:
        """The allowed perturbations, in pixel units."""
        return Ball(self.eps_255 / 255, self.norm)

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
        """Adversarial pixels, same shape, within eps of `pixels` and within [0, 1].

        Args and Raises: as `matlib.attacks.pgd.PGD`.
        """
        clean = checked(encoder, pixels, self.eps_255, self.norm)
        if self.eps_255 == 0 or self.n_steps == 0:
            return clean.clone()
        run = encoder, clean, objective, noise_of(generator, clean), views
        vanished = Vanished(len(clean), clean.device)
        with frozen(encoder):
            point, score = self._run(*run, vanished)
            for _ in range(self.n_restarts - 1):
                found = self._run(*run, vanished)
                point, score = take_better(found[1] > score, found, (point, score))
        vanished.tell(report)
        return point

    def _run(
        self,
        encoder: DualEncoder,
        clean: Tensor,
        objective: ImageObjective,
        noise: Noise,
        views: Views | None,
        vanished: Vanished,
    ) -> tuple[Tensor, Tensor]:
        """One ascent: the best point of every image and its score."""
        seen = objective, noise, views
        point = self.ball.project(clean + self.ball.draw(clean, self.start, noise), clean)
        track = _Track(point, *score_and_gradient(encoder, point, *seen), self)
        last, halvings = 0, checkpoints(self.n_steps, self.rule)
        for done in range(1, self.n_steps):
            point = track.move(clean, vanished, done == 1)
            track.arrive(point, *score_and_gradient(encoder, point, *seen), done == 1)
            if done in halvings:
                track.adapt(done - last)
                last = done
        point = track.move(clean, vanished, self.n_steps == 1)
        with torch.no_grad():  # nobody needs the gradient at the last point
            score = score_of(encoder, point, *seen)
        track.arrive(point, score, track.gradient, self.n_steps == 1)
        return track.best[0], track.best[2]


class _Track:
    """Where every image of one run is and has been; all tensors have B rows."""

    def __init__(self, point: Tensor, score: Tensor, gradient: Tensor, attack: APGD) -> None:
        self.attack = attack
        self.point, self.gradient = point, gradient
        self.score = lowest_if_nan(score)
        self.before = point
        self.best: tuple[Tensor, ...] = point, gradient, self.score
        self.step = point.new_full((len(point),), 2 * attack.ball.eps)  # (B,)
        self.rises = torch.zeros_like(score, dtype=torch.int64)  # since the last checkpoint
        # At the last checkpoint. In the code nothing equals what was "before" the first one.
        self.step_before = self.step if attack.rule == "paper" else torch.zeros_like(self.step)
        self.best_before = self.score

    def move(self, clean: Tensor, vanished: Vanished, is_first: bool) -> Tensor:
        """The next point: a gradient step, averaged with the last move (Algorithm 1, line 7)."""
        ball, alpha = self.attack.ball, self.attack.momentum
        gradient = vanished.check(self.gradient)
        step = self.step.view(-1, 1, 1, 1)  # (B, 1, 1, 1)
        there = ball.project(self.point + step * ball.direction(gradient), clean)
        if not is_first:
            last_move = self.point - self.before
            moved = self.point + alpha * (there - self.point) + (1 - alpha) * last_move
            there = ball.project(moved, clean)
        return torch.where(vanished.stays, self.point, there)

    def arrive(self, point: Tensor, score: Tensor, gradient: Tensor, is_first: bool) -> None:
        """Note the score at the new point, and whether it is a rise or the best so far."""
        score = lowest_if_nan(score)
        rose = score > self.score
        if is_first and self.attack.rule == "released":
            rose = torch.ones_like(rose)
        self.rises = self.rises + rose
        found = point, gradient, score
        self.best = take_better(score > self.best[2], found, self.best)
        self.before, self.point, self.gradient, self.score = self.point, point, gradient, score

    def adapt(self, n_steps: int) -> None:
        """At a checkpoint, `n_steps` after the last: halve and go back where progress stalls."""
        needed = self.attack.rho * n_steps
        is_paper = self.attack.rule == "paper"
        few_rises = self.rises < needed if is_paper else self.rises <= needed  # (B,)
        no_better = (self.step == self.step_before) & (self.best[2] == self.best_before)
        stalls = few_rises | no_better
        self.step_before, self.best_before = self.step, self.best[2]
        self.step = torch.where(stalls, self.step / 2, self.step)
        here = self.point, self.gradient, self.score
        self.point, self.gradient, score = take_better(stalls, self.best, here)
        self.score = score if is_paper else self.score
        self.rises = torch.zeros_like(self.rises)
