"""Two processes as two threads of one, which meet at every gathering.

Threads share the global random state: models are built before the threads start.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class _Gather(torch.autograd.Function):
    """All rows; backward, the sum over processes of the gradient in own rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, processes: TwoProcesses) -> Tensor:
        ctx.processes = processes
        return torch.cat(processes.exchange(own.detach()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        processes = ctx.processes
        total = torch.stack(processes.exchange(gradient)).sum(0)
        return total.chunk(processes.count)[processes.rank], None


@dataclass(frozen=True)
class TwoProcesses:
    """`Processes` of one of two threads."""

    rank: int
    barrier: Barrier
    slots: list[Tensor | None]
    count: int = 2

    def exchange(self, own: Tensor) -> list[Tensor]:
        self.slots[self.rank] = own
        self.barrier.wait(20)
        both = [part for part in self.slots if part is not None]
        self.barrier.wait(20)  # nobody overwrites what another has not read
        return both

    def gather(self, features: Tensor) -> Tensor:
        return _Gather.apply(features, self)  # type: ignore[no-any-return]

    def gather_fixed(self, features: Tensor) -> Tensor:
        parts = self.exchange(features.detach())
        parts[self.rank] = features
        return torch.cat(parts)


def on_two(work: Callable[[TwoProcesses], T]) -> tuple[T, T]:
    """What `work` returns on either process."""
    barrier, slots = Barrier(2), [None, None]
    processes = [TwoProcesses(rank, barrier, slots) for rank in range(2)]  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, processes)
    return first, second
