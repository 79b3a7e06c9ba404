"""Hugging Face accelerate for one training run, without a trace in the process after it."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from matlib.training.processes import Processes, current_processes
from matlib.training.schedule import Schedule

if TYPE_CHECKING:
    from accelerate import Accelerator


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
