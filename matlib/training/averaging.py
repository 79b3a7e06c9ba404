"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Averages:
    """Averages of named weights: a <- d a + (1 - d) w after each step.

    d grows as (1 + t) / (10 + t) up to `decay`, so that a short run does not end in the
    weights that it began with (TensorFlow's `ExponentialMovingAverage` with `num_updates`):
    0.999^250 = 0.78 of them would be left after 250 steps.

    Args:
        learning: the weights that move, by name; averages begin as copies of them.
        decay: in (0, 1).
    """

    def __init__(self, learning: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._learning = dict(learning)
        self._averages = {name: p.detach().clone() for name, p in learning.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the optimiser's step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [p.detach() for p in self._learning.values()]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """The averages by the names of their weights."""
        return dict(self._averages)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averages that `state` gave."""
        for name, average in self._averages.items():
            average.copy_(state[name])

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The averages in the place of the weights inside the block, the weights after it."""
        last = {name: p.detach().clone() for name, p in self._learning.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._learning.items():
                    parameter.copy_(last[name])

    @torch.no_grad()
    def apply(self) -> None:
        """Put the averages in the place of the weights."""
        for name, parameter in self._learning.items():
            parameter.copy_(self._averages[name])
