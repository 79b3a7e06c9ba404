"""Timing two ways of doing one thing, so that their ratio survives a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Paired:
    """Seconds of two contenders, measured in turns.

    Attributes:
        ours, peer: seconds per run, `ours[i]` right before `peer[i]`.
    """

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """Median over the turns of peer / ours: both of a turn met the same machine."""
        return median(b / a for a, b in zip(self.ours, self.peer, strict=True))

    def rates(self, n: int) -> dict[str, float]:
        """Things per second by the median run, `n` things in a run."""
        return {"ours": n / median(self.ours), "peer": n / median(self.peer)}


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of one call, the device's queue included."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def in_turns(
    ours: Callable[[], object],
    peer: Callable[[], object],
    device: torch.device,
    n_repeats: int,
) -> Paired:
    """Run both `n_repeats` times in turns, after one run of ours that warms up.

    Raises:
        ValueError: no repeat.
    """
    if n_repeats < 1:
        raise ValueError(f"expected 1 repeat or more; got {n_repeats}")
    seconds(ours, device)
    turns = [(seconds(ours, device), seconds(peer, device)) for _ in range(n_repeats)]
    return Paired(tuple(a for a, _ in turns), tuple(b for _, b in turns))


def repeated(call: Callable[[], object], device: torch.device, n_repeats: int) -> float:
    """Median seconds of `n_repeats` runs, after one that warms up."""
    seconds(call, device)
    return median(seconds(call, device) for _ in range(n_repeats))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
