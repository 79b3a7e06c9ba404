"""Projected gradient ascent on pixels (Madry et al. 2018), in L-infinity or L2 balls."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

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
from matlib.attacks.budgets import check_count, check_positive
from matlib.attacks.noise import ImageGenerators, Noise, noise_of
from matlib.attacks.objectives import ImageObjective
from matlib.models.dual_encoder import DualEncoder, frozen


@dataclass(frozen=True)
class PGD:
    """Steepest ascent, projected to the ball and to [0, 1] after every step.

    Attributes:
        eps_255: radius of the ball in 1/255 of the pixel range; for `norm="l2"` the Euclidean
            length over the whole image in that unit (0.5 in pixel units is 127.5), at most
            64 * sqrt(3 * H * W).
        n_steps: gradient steps.
        step_255: step in 1/255; by default 1.25 * eps / n_steps as in Co-Attack's code
            (0.25/255 at eps 2/255 and 10 steps), at least eps / 4 so that few steps suffice.
        start: `uniform` in the ball (SGA; Madry et al.), `positive` in [0, eps] (Co-Attack's
            code, although its paper describes the ball; L-infinity only), or `none`.
        norm: `linf` (step by the sign) or `l2` (step by the gradient at length 1).
        momentum: mu in velocity = mu * velocity + direction(gradient); the step is along
            direction(velocity), its sign or itself at length 1. FARE's code: 0.9.
        renormalise_velocity: keep direction(velocity) instead of the velocity, as FARE's code
            does. For L-infinity this undoes the momentum: the kept entries are +1 or -1, and
            sign(0.9 * (+-1) + sign(g)) = sign(g) wherever g is not 0. So the default
            accumulates, as momentum is meant: 0.9 * 1.9 - 1 = 0.71 still goes the old way.
        n_restarts: runs in all, each from a start of its own, drawn in order from the same
            streams; per image the final point with the highest score is kept (the earlier of
            two equal ones). One run scores nothing afterwards.
        n_averaged: the mean of so many last points of a run is its final point (MAVA); it lies in
            the ball, which is convex.
    """

    eps_255: float
    n_steps: int = 10
    step_255: float | None = None
    start: Start = "uniform"
    norm: Norm = "linf"
    momentum: float = 0.0
    renormalise_velocity: bool = False
    n_restarts: int = 1
    n_averaged: int = 1

    def __post_init__(self) -> None:
        check_eps(self.eps_255, self.norm)
        check_start(self.start, self.norm, self.n_restarts)
        check_count("n_steps", self.n_steps)
        check_count("n_averaged", self.n_averaged, 1)
        if self.step_255 is not None:
            check_positive("step_255", self.step_255, " in 1/255 of the pixel range")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1]; got {self.momentum}")

    @property
    def step(self) -> float:
        """Step in pixel units [0, 1]."""
        if self.step_255 is not None:
            return self.step_255 / 255
        return max(1.25 * self.eps_255 / max(self.n_steps, 1), self.eps_255 / 4) / 255

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
        in_range: bool = False,
    ) -> Tensor:
        """Adversarial pixels, same shape, within eps of `pixels` and within [0, 1].

        Args:
            encoder: the attacked model, in evaluation mode; its weights, `.grad` and mode stay
                untouched.
            pixels: float (B, 3, H, W) in [0, 1].
            objective: score per image of the batch to ascend. Restarts need one whose score of
                an image depends on that image alone.
            generator: CPU generator that gives each image a seed for its start (and the views'
                noise), or the images' streams: draws do not depend on the images beside it.
            views: extra differentiable views; scores of all views are added (SGA).
            report: counts the gradients that vanish.
            in_range: the caller knows that the pixels lie in [0, 1]: a GPU is not asked for it.

        Raises:
            ValueError: pixels that are not float (B, 3, H, W) in [0, 1], no image, an encoder
                in training mode, an objective of another batch, not one stream per image.
        """
        clean = checked(encoder, pixels, self.eps_255, self.norm, in_range)
        if self.eps_255 == 0 or self.n_steps == 0:
            return clean.clone()
        vanished = Vanished(len(clean), clean.device)
        with frozen(encoder):
            run = encoder, clean, objective, noise_of(generator, clean), views
            best = self._run(*run, vanished)
            if self.n_restarts > 1:
                best = self._restart(best, *run, vanished)
        vanished.tell(report)
        return best

    def _run(
        self,
        encoder: DualEncoder,
        clean: Tensor,
        objective: ImageObjective,
        noise: Noise,
        views: Views | None,
        vanished: Vanished,
    ) -> Tensor:
        """One ascent from a fresh start to its final point."""
        ball, project = self.ball, self.ball.onto(clean)
        point = project(clean + ball.draw(clean, self.start, noise))  # (B, 3, H, W)
        velocity: Tensor | None = None
        last: deque[Tensor] = deque(maxlen=self.n_averaged)
        for _ in range(self.n_steps):
            _, gradient = score_and_gradient(encoder, point, objective, noise, views)
            gradient = vanished.check(gradient)
            direction = ball.direction(gradient)
            if self.momentum:
                velocity = direction if velocity is None else self.momentum * velocity + direction
                direction = ball.direction(velocity)
                velocity = direction if self.renormalise_velocity else velocity
                direction = direction.masked_fill(vanished.stays, 0)
            point = project(point + self.step * direction)
            last.append(point)
        return point if self.n_averaged == 1 else torch.stack(tuple(last)).mean(0)

    def _restart(
        self,
        first: Tensor,
        encoder: DualEncoder,
        clean: Tensor,
        objective: ImageObjective,
        noise: Noise,
        views: Views | None,
        vanished: Vanished,
    ) -> Tensor:
        """The best final point per image of `first` and of n_restarts - 1 further runs."""

        @torch.no_grad()
        def scored(point: Tensor) -> tuple[Tensor, Tensor]:
            scores = score_of(encoder, point, objective, noise, views)  # (B,)
            return point, lowest_if_nan(scores)

        point, score = scored(first)
        for _ in range(self.n_restarts - 1):
            found = scored(self._run(encoder, clean, objective, noise, views, vanished))
            point, score = take_better(found[1] > score, found, (point, score))
        return point
