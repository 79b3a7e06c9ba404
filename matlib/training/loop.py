"""The one training loop: pre-training and every defence run through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from matlib.data.pairs import OneToMany
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.checkpoint import load_weights, save_weights
from matlib.training.objectives import Candidates, Defence, InnerAttack, contrastive_loss

MAX_LOGIT_SCALE = math.log(100)  # CLIP (Radford et al. 2021), section 2.5


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message names the step and what was kept."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        n_steps: optimiser steps.
        batch_size: pairs per step.
        lr: peak learning rate of AdamW's one-cycle schedule.
        weight_decay: on matrices only, not on gains, biases and the scale.
        warmup: share of the steps until the peak.
        checkpoint_every: steps between copies of the last good weights.
    """

    n_steps: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01
    warmup: float = 0.1
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError(
                "the contrastive loss needs at least 2 pairs per batch; "
                f"got batch_size {self.batch_size}"
            )
        if not 0 < self.lr <= 1:
            raise ValueError(f"expected a learning rate in (0, 1]; got {self.lr}")
        if self.n_steps < 1:
            raise ValueError(f"expected at least one step; got {self.n_steps}")


@dataclass
class History:
    """One row per step: step, loss, learning rate, seconds, seconds in the inner attack."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, **row: float) -> None:
        self.rows.append(row)


def draw_batches(
    data: OneToMany, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, list[str]]]:
    """Endless batches of pairs: float (B, 3, H, W) in [0, 1] and B captions.

    An epoch visits every original once; each visit draws one of its captions and one of its
    images afresh. An original is never twice in a batch, where it would be its own negative.

    Raises:
        ValueError: fewer originals than the batch.
    """
    n = len(data)
    if n < batch_size:
        raise ValueError(f"a batch of {batch_size} needs as many pairs; the data has {n}")
    while True:
        order = torch.randperm(n, generator=generator)
        for rows in order[: n - n % batch_size].split(batch_size):
            which = torch.randint(data.images.shape[1], rows.shape, generator=generator)
            draws = torch.rand(len(rows), generator=generator).tolist()
            captions = [
                data.captions[i][int(u * len(data.captions[i]))]
                for i, u in zip(rows.tolist(), draws, strict=True)
            ]
            yield data.images[rows, which].float() / 255, captions


def train(
    encoder: OpenClipEncoder,
    data: OneToMany,
    how: Defence,
    schedule: Schedule,
    *,
    seed: int,
    inner: InnerAttack | None = None,
    candidates: Candidates | None = None,
    keep_in: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> History:
    """Fine-tune (or pre-train) `encoder` in place.

    Args:
        data: originals with their variants; a 1:1 set is `OneToMany.from_pairs(pairs)`.
        how: which inputs are attacked, which loss, which tower learns.
        inner: the attack; needed when `how` attacks anything.
        candidates: allowed edits of every caption in `data`; needed when text is attacked.
        keep_in: folder for the last good weights (`last_good.safetensors`), removed at the end.
        on_step: called with (step, loss).

    Raises:
        NonFiniteLossError: NaN or infinite loss; the last good weights are in `encoder`.
        ValueError: an attack without its budget, or fewer pairs than a batch.
    """
    if (how.attacks_image or how.attacks_text) and inner is None:
        raise ValueError(f"{how.name} attacks its inputs: pass the inner attack")
    if how.attacks_text and candidates is None:
        raise ValueError(f"{how.name} attacks captions: pass their candidate edits")
    generator = torch.Generator().manual_seed(seed)
    learning = _unfreeze(encoder, how.towers)
    optimiser, plan = _optimiser(learning, schedule)
    batches = draw_batches(data, schedule.batch_size, generator)
    history, encoder_mode = History(), encoder.training
    for step in range(schedule.n_steps):
        began = time.perf_counter()
        pixels, captions = next(batches)
        pixels = pixels.to(encoder.device)
        encoder.eval()
        if inner is not None:
            pixels, captions = inner(encoder, pixels, captions, candidates or {}, how, generator)
        attacked = time.perf_counter()
        encoder.train()
        image, text = encoder.encode_image(pixels), encoder.encode_text(captions)
        loss = contrastive_loss(image, text, encoder.logit_scale, how)
        _stop_if_not_finite(encoder, float(loss.detach()), step, keep_in)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        plan.step()
        _clamp_scale(encoder)
        if keep_in is not None and step % schedule.checkpoint_every == 0:
            save_weights(encoder, keep_in / "last_good.safetensors")
        history.add(
            step=step,
            loss=float(loss.detach()),
            lr=float(plan.get_last_lr()[0]),
            seconds=time.perf_counter() - began,
            attack_seconds=attacked - began,
        )
        if on_step is not None:
            on_step(step, float(loss.detach()))
    encoder.train(encoder_mode)
    encoder.requires_grad_(True)
    if keep_in is not None:
        (keep_in / "last_good.safetensors").unlink(missing_ok=True)
    return history


def _unfreeze(encoder: OpenClipEncoder, towers: tuple[str, ...]) -> list[nn.Parameter]:
    encoder.requires_grad_(False)
    learning = [p for name in towers for p in encoder.tower(name)]
    for parameter in learning:
        parameter.requires_grad_(True)
    return learning


def _optimiser(
    learning: list[nn.Parameter], schedule: Schedule
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    matrices = [p for p in learning if p.ndim >= 2]
    others = [p for p in learning if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": schedule.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=schedule.lr,
        betas=(0.9, 0.98),
        fused=True,
    )

    def factor(step: int) -> float:
        done = (step + 1) / schedule.n_steps
        if done < schedule.warmup:
            return done / schedule.warmup
        return 0.5 * (1 + math.cos(math.pi * (done - schedule.warmup) / (1 - schedule.warmup)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _clamp_scale(encoder: OpenClipEncoder) -> None:
    with torch.no_grad():
        for scale in encoder.tower("scale"):
            scale.clamp_(0, MAX_LOGIT_SCALE)


def _stop_if_not_finite(
    encoder: OpenClipEncoder, loss: float, step: int, keep_in: Path | None
) -> None:
    if math.isfinite(loss):
        return
    kept = "no checkpoint had been kept"
    if keep_in is not None and (keep_in / "last_good.safetensors").exists():
        load_weights(encoder, keep_in / "last_good.safetensors")
        kept = "the last good weights were restored and stay in last_good.safetensors"
    raise NonFiniteLossError(
        f"the loss is {loss} at step {step}; {kept}. Lower the learning rate or eps."
    )
