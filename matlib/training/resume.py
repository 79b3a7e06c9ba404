"""Checkpoints of a run: when they are written, what is in them, how a run goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matlib.models.checkpoints import check_architecture
from matlib.training.checkpoint import Checkpoint, last_checkpoint, write_checkpoint
from matlib.training.identity import check_identity
from matlib.training.log import History
from matlib.training.schedule import Schedule
from matlib.training.step import Stepper


@dataclass
class Keeper:
    """Keeps a run's last two checkpoints in a folder, and finds them again.

    Attributes:
        folder: None: nothing is kept.
        identity: what the run is (`run_identity`).
        is_first: whether this process writes; all of them read.
        damaged: what was wrong with checkpoints that `resume` passed over.
    """

    folder: Path | None
    identity: Mapping[str, Any]
    is_first: bool = True
    damaged: list[str] = field(default_factory=list)

    def resume(self, stepper: Stepper) -> History:
        """Bring a run to where its last whole checkpoint was; else it is at its beginning.

        Raises:
            ValueError: a checkpoint of another architecture or another run.
        """
        if self.folder is None:
            return History()
        found, damaged = last_checkpoint(self.folder)
        begin = "the beginning" if found is None else found.path.name
        self.damaged = [f"{text}: training goes on from {begin}" for text in damaged]
        if found is None:
            return History()
        weights = _part(found, "weights")
        check_architecture(weights, stepper.encoder.state_dict(), f"{self.folder}")
        check_identity(found.state["identity"], self.identity, self.folder)
        stepper.encoder.load_state_dict(weights)
        _load_moments(stepper, _part(found, "moments"))
        if stepper.averages is not None:
            stepper.averages.load(_part(found, "averages"))
        if stepper.scaler is not None:
            stepper.scaler.load_state_dict(found.state["scaler"])
        history = History(**found.state["history"])
        robust = max((m["held_out"] for m in history.held_out), default=-math.inf)
        stepper.best.load(_part(found, "best"), robust)
        return history

    def keep(self, step: int, schedule: Schedule, stepper: Stepper, history: History) -> None:
        """Write a checkpoint after a step, where it is due: the first, then every so often."""
        if self.folder is None or not self.is_first or step % schedule.checkpoint_every:
            return
        averages = {} if stepper.averages is None else stepper.averages.state()
        tensors = {
            **_named("weights", stepper.encoder.state_dict()),
            **_named("averages", averages),
            **_named("moments", _moments(stepper)),
            **_named("best", stepper.best.kept),
        }
        scaler = None if stepper.scaler is None else stepper.scaler.state_dict()
        state = {"identity": dict(self.identity), "history": asdict(history), "scaler": scaler}
        write_checkpoint(self.folder, step + 1, tensors, state)

    def restore_last_good(self, stepper: Stepper) -> str:
        """Put the last checkpoint's weights back; says what was done."""
        found = None if self.folder is None else last_checkpoint(self.folder)[0]
        if found is None:
            return "no checkpoint had been kept"
        stepper.encoder.load_state_dict({**_part(found, "weights"), **_part(found, "averages")})
        return f"the last good weights were restored and stay in {found.path}"


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _part(found: Checkpoint, prefix: str) -> dict[str, Tensor]:
    begin = f"{prefix}/"
    return {k.removeprefix(begin): v for k, v in found.tensors.items() if k.startswith(begin)}


def _parameters(stepper: Stepper) -> list[torch.nn.Parameter]:
    return [p for group in stepper.optimiser.param_groups for p in group["params"]]


def _moments(stepper: Stepper) -> dict[str, Tensor]:
    """The optimiser's state by the number of the weight: `12/exp_avg`."""
    return {
        f"{i}/{name}": value
        for i, parameter in enumerate(_parameters(stepper))
        for name, value in stepper.optimiser.state[parameter].items()
    }


def _load_moments(stepper: Stepper, moments: Mapping[str, Tensor]) -> None:
    parameters = _parameters(stepper)
    for key, value in moments.items():
        number, name = key.split("/")
        parameter = parameters[int(number)]
        stepper.optimiser.state[parameter][name] = value.to(parameter.device)
