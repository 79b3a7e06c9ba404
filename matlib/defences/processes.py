"""What the loss of a batch split over processes needs: the embeddings of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, distributed as dist


class Processes(Protocol):
    """The processes that share a batch, each with equally many of its pairs.

    Row i of process r is row r * B + i of a gathered batch.
    """

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def gather(self, features: Tensor) -> Tensor:
        """(B, D) -> (count * B, D), in the order of ranks.

        The gradient that reaches own rows is summed over the processes. Where each process
        computes the same loss of all rows, that is `count` times the loss's gradient; averaging
        the weights' gradients over processes makes it the gradient on one process.
        """
        ...

    def gather_fixed(self, features: Tensor) -> Tensor:
        """Like `gather`, with the others' rows as constants; own rows keep their gradient."""
        ...


@dataclass(frozen=True)
class OneProcess:
    """All rows are own rows."""

    rank: int = 0
    count: int = 1

    def gather(self, features: Tensor) -> Tensor:
        return features

    def gather_fixed(self, features: Tensor) -> Tensor:
        return features


ONE_PROCESS = OneProcess()


class _Gather(torch.autograd.Function):
    """All rows; backward, the sum over processes of the gradient in own rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return torch.cat(_exchange(own))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


@dataclass(frozen=True)
class DistributedProcesses:
    """The processes of torch's default group, which must exist."""

    rank: int
    count: int

    def gather(self, features: Tensor) -> Tensor:
        return _Gather.apply(features)

    def gather_fixed(self, features: Tensor) -> Tensor:
        parts = _exchange(features.detach())
        parts[self.rank] = features
        return torch.cat(parts)


def current_processes() -> Processes:
    """The processes of torch's default group; one where there is no group."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return ONE_PROCESS
    return DistributedProcesses(dist.get_rank(), dist.get_world_size())


def _exchange(own: Tensor) -> list[Tensor]:
    own = own.detach().contiguous()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return parts
