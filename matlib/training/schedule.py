"""How long, how fast, in which arithmetic, and with which average of the weights to train."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Precision = Literal["no", "fp16", "bf16"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        n_steps: optimiser steps.
        batch_size: pairs per optimiser step, over all processes and micro-batches.
        lr: peak learning rate of AdamW's one-cycle schedule.
        weight_decay: on matrices only, not on gains, biases and the scale (as open_clip does).
            Source of the default: PyTorch's own for AdamW; CLIP's is 0.2.
        warmup: share of the steps until the peak. Source of the default: ours; CLIP warms up
            for 2,000 of its steps.
        checkpoint_every: steps between checkpoints; changes no number.
        micro_batches: parts a batch is computed in, one after the other, to save memory. A
            pair's negatives are those of its part, so 2 parts of 64 are not 1 of 128.
        mixed_precision: arithmetic of the encoders; losses and weights stay as they are.
        ema_decay: 0: the final weights are the last ones. Else they are the exponential moving
            average with this decay (see `averaging`). Source of the default: ours.
        head_lr: peak learning rate of the heads (`TrainableEncoder.heads`), which pretrained
            towers have fresh ones under; None: as of all weights.
    """

    n_steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01
    warmup: float = 0.1
    checkpoint_every: int = 50
    micro_batches: int = 1
    mixed_precision: Precision = "no"
    ema_decay: float = 0.0
    head_lr: float | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError(
                "the contrastive loss needs at least 2 pairs per batch; "
                f"got batch_size {self.batch_size}"
            )
        if not 0 < self.lr <= 1:
            raise ValueError(f"expected a learning rate in (0, 1]; got {self.lr}")
        if self.head_lr is not None and not 0 < self.head_lr <= 1:
            raise ValueError(f"expected a head_lr in (0, 1], or none; got {self.head_lr}")
        if self.n_steps < 1:
            raise ValueError(f"expected at least one step; got {self.n_steps}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"expected a weight decay of 0 or more; got {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps in [0, 1); got {self.warmup}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"expected ema_decay in [0, 1), 0 for none; got {self.ema_decay}")
        if self.checkpoint_every < 1:
            raise ValueError(f"expected checkpoint_every of 1 or more; got {self.checkpoint_every}")
        if self.mixed_precision not in get_args(Precision):
            raise ValueError(
                f"mixed_precision is no, fp16 or bf16; got {self.mixed_precision!r} (in YAML, "
                'write "no" with quotes)'
            )
        if self.micro_batches < 1 or self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into {self.micro_batches} "
                "micro_batches of equal size"
            )
        if self.micro_batch_size < 2:
            raise ValueError(
                f"{self.micro_batches} micro_batches of a batch of {self.batch_size} leave "
                "1 pair each; the contrastive loss needs at least 2"
            )

    @property
    def micro_batch_size(self) -> int:
        """Pairs that are each other's negatives, over all processes."""
        return self.batch_size // self.micro_batches

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0: linear warm-up, then half a cosine to 0."""
        done = (step + 1) / self.n_steps
        if done < self.warmup:
            return self.lr * (done / self.warmup)
        way = (done - self.warmup) / (1 - self.warmup)
        return self.lr * (0.5 * (1 + math.cos(math.pi * way)))


def make_optimiser(
    learning: Sequence[nn.Parameter], schedule: Schedule, heads: Sequence[nn.Parameter] = ()
) -> torch.optim.AdamW:
    """AdamW with CLIP's betas (Radford et al. 2021, table 19), in one fused kernel.

    Each group's `times` is its learning rate in those of the schedule.

    Args:
        heads: those of `learning` that have a learning rate of their own.
    """
    apart = {id(p) for p in heads} if schedule.head_lr is not None else set()
    times = (schedule.head_lr or 0.0) / schedule.lr
    parts = [(p for p in learning if id(p) not in apart), (p for p in learning if id(p) in apart)]
    groups: list[dict[str, Any]] = []
    for part, factor in zip(map(list, parts), (1.0, times), strict=True):
        decays = {"weight_decay": schedule.weight_decay, "times": factor}
        groups.append({"params": [p for p in part if p.ndim >= 2], **decays})
        groups.append({"params": [p for p in part if p.ndim < 2], **decays, "weight_decay": 0.0})
    return torch.optim.AdamW(
        [group for group in groups if group["params"] or group["times"] == 1.0],
        lr=schedule.lr,
        betas=(0.9, 0.98),
        fused=True,
    )


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
