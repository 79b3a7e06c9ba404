"""The checkpoint that is kept: the last, or the best on held-out pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from matlib.models.dual_encoder import TrainableEncoder


class HeldOutRecall(NamedTuple):
    """Recall on held-out pairs, each in [0, 1]; NaN where it was not measured."""

    robust: float
    clean: float = math.nan


@dataclass(frozen=True)
class Validation:
    """Measurements on held-out pairs beside training.

    Attributes:
        measure: gives the recall of the frozen encoder in evaluation mode (with averaged
            weights where the run averages). Every process calls it and must get the same.
        every: steps between measurements.
        keep_best: whether training ends with the weights of the best robust recall (the first
            of equals) instead of the last ones: early stopping, without which adversarial
            training over-fits (Rice et al. 2020).
        identity: what `measure` depends on, so that no other run continues a checkpoint.
    """

    measure: Callable[[TrainableEncoder], HeldOutRecall]
    every: int = 100
    keep_best: bool = False
    identity: str = ""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"expected 1 step or more between measurements; got {self.every}")


@dataclass
class BestWeights:
    """The learning weights at the best measurement so far.

    Attributes:
        learning: the weights and statistics that move, by name.
        robust: the best robust recall; -inf before the first.
        kept: copies of the weights at that time; empty before it.
    """

    learning: Mapping[str, Tensor]
    robust: float = -math.inf
    kept: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, robust: float) -> None:
        """Keep the weights as they are now, if they are better than those kept."""
        if robust > self.robust:
            self.robust = robust
            self.kept = {name: p.detach().clone() for name, p in self.learning.items()}

    def load(self, kept: Mapping[str, Tensor], robust: float) -> None:
        """Go on from weights that a checkpoint held."""
        if kept:
            self.robust = robust
            self.kept = {name: kept[name].to(p.device) for name, p in self.learning.items()}

    @torch.no_grad()
    def apply(self) -> None:
        """Put the kept weights in the place of the last ones."""
        for name, value in self.kept.items():
            self.learning[name].copy_(value)
