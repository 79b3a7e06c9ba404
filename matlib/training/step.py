"""One optimiser step: attack, loss, gradient, update; with Hugging Face accelerate around it."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from matlib.data.pairs import OneToMany
from matlib.defences.batch import Batch, Draw, own_rows
from matlib.defences.defence import Defence
from matlib.defences.inner_attack import Candidates, InnerAttack, sample_generators, seed_layers
from matlib.defences.processes import Processes, current_processes
from matlib.models.dual_encoder import DualEncoder, TrainableEncoder, frozen, parameters_of
from matlib.training.schedule import Averages, Schedule, make_optimiser
from matlib.training.seen import LossModule, PreciseEncoder, SeenEncoder
from matlib.training.selection import BestWeights, HeldOutRecall, Validation

if TYPE_CHECKING:
    from accelerate import Accelerator

MAX_LOGIT_SCALE = math.log(100)  # CLIP (Radford et al. 2021), section 2.5


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became NaN or infinite; the message names step and what was kept."""


@dataclass
class Clock:
    """Seconds of a step, by part; on a GPU marks lie in its queue, for which nothing waits."""

    device: torch.device
    _marks: dict[str, list[tuple[Any, Any]]] = field(default_factory=dict)

    def now(self) -> Any:
        """A mark: a time, or an event of the GPU's queue."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def add(self, part: str, began: Any) -> None:
        """What was asked since a mark belongs to a part."""
        self._marks.setdefault(part, []).append((began, self.now()))

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reading; on a GPU once the queue was waited for."""
        marks, self._marks = self._marks, {}
        return {part: sum(map(self._between, own)) for part, own in marks.items()}

    def _between(self, marks: tuple[Any, Any]) -> float:
        began, ended = marks
        if self.device.type != "cuda":
            return float(ended - began)
        return float(began.elapsed_time(ended)) / 1000  # from milliseconds

    def timed(self, attack: Any, part: str) -> Any:
        """The same attack, whose time is added to a part."""
        return _Timed(attack, self, part)


class _Timed:
    def __init__(self, attack: Any, clock: Clock, part: str) -> None:
        self._attack, self._clock, self._part = attack, clock, part

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._attack, name)
        return partial(self._run, found) if callable(found) else found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self._attack, *args, **kwargs)

    def _run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began = self._clock.now()
        found = call(*args, **kwargs)
        self._clock.add(self._part, began)
        return found


class Stepper:
    """What a run needs for its steps, and the state that it changes.

    Attributes:
        encoder: the model itself, never wrapped.
        optimiser: AdamW over the learning weights.
        averages: of these weights; None where the schedule has none.
        best: these weights at the best measurement on held-out pairs.
        spread: largest minus smallest similarity of the last batch; NaN if unknown.
    """

    def __init__(
        self,
        encoder: TrainableEncoder,
        how: Defence,
        schedule: Schedule,
        seed: int,
        accelerator: Accelerator,
        processes: Processes,
        inner: InnerAttack | None,
        candidates: Candidates,
        reference: DualEncoder | None,
        clean_recall_every: int,
    ) -> None:
        self.encoder, self.spread = encoder, math.nan
        self._how, self._schedule, self._seed = how, schedule, seed
        self._accelerator, self._processes = accelerator, processes
        self._candidates, self._clean_recall_every = candidates, clean_recall_every
        self._clock = Clock(encoder.device)
        self._scales = parameters_of(encoder, "scale")
        # SigLIP's begins above CLIP's bound, and stays where it is unless it learns
        self._largest_scale = max(
            [MAX_LOGIT_SCALE, *(float(s.detach().max()) for s in self._scales)]
        )
        self._attacks = how.attacks_image or how.attacks_text
        self._inner = None if inner is None else how.budget(inner)
        if reference is None and how.needs_reference:
            reference = copy.deepcopy(encoder)
        self._reference = reference
        self._learn()
        # A float64 model gets float64 pixels; a half-precision one float32, which PGD needs.
        is_double = next(encoder.parameters()).dtype == torch.float64
        self._dtype = torch.float64 if is_double else torch.float32

    def _timed(self, inner: InnerAttack) -> InnerAttack:
        return replace(
            inner,
            image=self._clock.timed(inner.image, "image"),
            text=self._clock.timed(inner.text, "text"),
            characters=self._clock.timed(inner.characters, "text"),
        )

    def _learn(self) -> None:
        """Only the defence's towers learn; the loss is wrapped for several processes."""
        encoder, how = self.encoder, self._how
        encoder.requires_grad_(False)
        towers = learning_towers(encoder, how)
        self._learning = [p for name in towers for p in learning_part(encoder, how, name)]
        for parameter in self._learning:
            parameter.requires_grad_(True)
        heads = heads_of(encoder, self._schedule)
        self.optimiser = make_optimiser(self._learning, self._schedule, heads)
        names = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
        decay = self._schedule.ema_decay
        has_precision = self._schedule.mixed_precision != "no"
        self._autocast = self._accelerator.autocast if has_precision else nullcontext
        self._attacked = PreciseEncoder(encoder, self._autocast) if has_precision else encoder
        self._loss = LossModule(encoder, how, self._reference, self._processes, self._autocast)
        self._module, self._prepared = self._accelerator.prepare(
            self._loss, self.optimiser, device_placement=[self._processes.count > 1, True]
        )
        self.averages = Averages(names, decay) if decay else None
        self.best = BestWeights({**names, **dict(encoder.named_buffers())})
        set_modes(encoder, how)

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """fp16's scaler of the loss."""
        return self._accelerator.scaler

    def step(
        self, step: int, draw: Draw, data: OneToMany, restore: Callable[[Stepper], str]
    ) -> dict[str, float]:
        """One optimiser step; returns the row of the history.

        Args:
            draw: the pairs of all processes.
            restore: puts the last good weights back and says so, should this step fail.

        Raises:
            NonFiniteLossError: NaN or infinite loss or gradient.
        """
        began, n_parts = time.perf_counter(), self._schedule.micro_batches
        rate, parts = self._schedule.lr_at(step), list[dict[str, Tensor]]()
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["times"]
        self._prepared.zero_grad(set_to_none=True)
        seed_layers(self._seed, step, self._processes.rank, self.encoder.device)
        for part in range(n_parts):
            clean = draw.take(data, self._own(part), self.encoder.device, self._dtype)
            before = self._clock.now()
            attacked = self._attack(step, clean)
            self._clock.add("attack", before)
            is_last = part == n_parts - 1
            with nullcontext() if is_last else self._accelerator.no_sync(self._module):
                loss = self._module(clean, attacked)
                self._accelerator.backward(loss)
            parts.append({"loss": loss.detach(), **self._measure(step, clean)})
        found = self._update(step, parts, restore)
        self.spread = found.get("spread", math.nan)
        spent = self._clock.read()  # the losses were read: all marks are passed
        return {
            "step": step,
            "loss": found["loss"],
            "lr": rate,
            "seconds": time.perf_counter() - began,
            "attack_seconds": spent.get("attack", 0.0),
            "text_attack_seconds": spent.get("text", 0.0),
            "image_attack_seconds": spent.get("image", 0.0),
            "clean_recall": found.get("clean_recall", math.nan),
            "robust_recall": found.get("robust_recall", math.nan),
        }

    def finish(self) -> None:
        """After the last step: the best weights or the averages become the weights."""
        if self.best.kept:
            self.best.apply()
        elif self.averages is not None:
            self.averages.apply()

    def measured(self, validation: Validation) -> HeldOutRecall:
        """Recall on held-out pairs of what training would end with now."""
        shown = nullcontext() if self.averages is None else self.averages.shown()
        with shown:
            with frozen(self.encoder):
                found = validation.measure(self.encoder)
            if validation.keep_best:
                self.best.offer(found.robust)
        return found

    def _own(self, part: int) -> slice:
        """This process's rows of a micro-batch, among those of the whole batch."""
        return own_rows(self._schedule.micro_batch_size, part, self._processes)

    def _attack(self, step: int, clean: Batch) -> Batch:
        if self._inner is None or not self._attacks:
            return clean
        generators = sample_generators(self._seed, step, clean.index)
        inner = self._timed(self._inner.at((step + 1) / self._schedule.n_steps))
        found = self._how.attack(
            self._attacked, clean, inner, self._candidates, generators,
            self._reference, self._processes,
        )  # fmt: skip
        # The same object where nothing was attacked: that is how `SeenEncoder` knows it.
        return found if self._how.attacks_text else replace(found, captions=clean.captions)

    def _measure(self, step: int, clean: Batch) -> dict[str, Tensor]:
        """What the batch tells, see `SeenEncoder.measures`."""
        seen = self._loss.seen
        assert seen is not None, "the loss was computed"
        found = seen.measures(self._processes, self._attacks)
        every = self._clean_recall_every
        if every and step % every == 0 and "clean_recall" not in found:
            again = SeenEncoder(self.encoder, self._autocast, clean, clean)
            with torch.no_grad(), frozen(self.encoder):
                again.encode_image(clean.pixels)
                again.encode_text(clean.captions)
            found |= {"clean_recall": again.measures(self._processes, False)["clean_recall"]}
        return found

    def _update(
        self, step: int, parts: list[dict[str, Tensor]], restore: Callable[[Stepper], str]
    ) -> dict[str, float]:
        """Move the weights; everything that is read from the device is read here, at once.

        Returns:
            means of the scalars of the parts.
        """
        scaler = self.scaler
        if scaler is not None:
            self._accelerator.unscale_gradients(self._prepared)
        norm = torch.nn.utils.clip_grad_norm_(self._learning, 1.0)
        *told, size = torch.stack([v for part in parts for v in part.values()] + [norm]).tolist()
        n = len(parts[0])
        found = {name: sum(told[i::n]) / len(parts) for i, name in enumerate(parts[0])}
        # A scaler meets infinite gradients on its way to a good scale, and skips such steps.
        for name, value in (("loss", found["loss"]), ("gradient's norm", size)):
            if not math.isfinite(value) and (name == "loss" or scaler is None):
                raise NonFiniteLossError(
                    f"the {name} is {value} at step {step}; {restore(self)}. "
                    "Lower the learning rate or eps."
                )
        self._prepared.step()
        with torch.no_grad():
            for scale in self._scales:
                scale.clamp_(0, self._largest_scale)
        if self.averages is not None:
            self.averages.update(step)
        return found


@contextmanager
def accelerated(device: torch.device, schedule: Schedule) -> Iterator[Accelerator]:
    """An `Accelerator` for the block.

    accelerate keeps its precision and its device in states that the whole process shares and
    that refuse a second setting. They are set aside for the block and put back after it, so
    that two trainings of one notebook may differ, and a caller's own Accelerator stays as it
    was. A process group that it opens stays open for the next training.

    accelerate also reads settings from ACCELERATE_* variables, some of which (steps of gradient
    accumulation, precision, compilation) beat its arguments and change the weights. They are
    set aside too: the schedule alone says how a model is trained.

    Args:
        device: where the encoder is; on a CPU an idle GPU is left alone.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states = [kind._shared_state for kind in (AcceleratorState, GradientState, PartialState)]
    before = [dict(state) for state in states]
    for state in states:
        state.clear()
    try:
        with _without_settings():
            yield Accelerator(
                cpu=device.type == "cpu",
                mixed_precision=schedule.mixed_precision,
                gradient_accumulation_steps=schedule.micro_batches,
            )
    finally:
        for state, old in zip(states, before, strict=True):
            state.clear()
            state.update(old)


@contextmanager
def _without_settings(variables: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """No ACCELERATE_* variable in the block; what was set is there again after it."""
    before = {name: variables[name] for name in variables if name.startswith("ACCELERATE_")}
    for name in before:
        del variables[name]
    try:
        yield
    finally:
        for name in [name for name in variables if name.startswith("ACCELERATE_")]:
            del variables[name]  # accelerate sets some itself
        variables.update(before)


def agreed_processes(accelerator: Accelerator) -> Processes:
    """The processes that accelerate and torch both see.

    Raises:
        ValueError: a process group that accelerate does not know of, whose processes would
            train apart.
    """
    processes = current_processes()
    if processes.count != accelerator.num_processes:
        raise ValueError(
            f"torch.distributed has {processes.count} processes, accelerate sees "
            f"{accelerator.num_processes}: start with torchrun or accelerate launch, which set "
            "RANK, LOCAL_RANK and WORLD_SIZE"
        )
    return processes


def learning_towers(encoder: TrainableEncoder, how: Defence) -> tuple[str, ...]:
    """The towers that a defence trains; the fusion of a model that has one learns with its text."""
    also = "fusion" in encoder.towers() and "text" in how.towers
    return (*how.towers, *(["fusion"] if also else []))


def learning_part(encoder: TrainableEncoder, how: Defence, name: str) -> list[nn.Parameter]:
    """Parameters of one tower that a defence trains.

    Raises:
        ValueError: the model has no such tower.
    """
    try:
        parameters = parameters_of(encoder, name)
    except ValueError as error:
        raise ValueError(
            f"{how.name} trains the part {name!r}, which this model has not: {error}"
        ) from error
    if not parameters:
        raise ValueError(f"{how.name} trains the part {name!r}, which has no weights here")
    return parameters


def heads_of(encoder: TrainableEncoder, schedule: Schedule) -> list[nn.Parameter]:
    """The heads that a schedule speaks of; none where it speaks of none.

    Raises:
        ValueError: the model has none.
    """
    found = [] if schedule.head_lr is None else encoder.heads()
    if schedule.head_lr is not None and not found:
        raise ValueError("head_lr is about heads, and this model has none")
    return found


def set_modes(encoder: TrainableEncoder, how: Defence) -> None:
    """Training mode where weights learn: a tower that does not keeps its batch statistics too."""
    encoder.train()
    for name, parts in encoder.towers().items():
        for part in parts if name not in learning_towers(encoder, how) else ():
            if isinstance(part, nn.Module):
                part.eval()
