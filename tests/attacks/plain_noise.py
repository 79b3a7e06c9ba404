"""An image's stream written plainly: SplitMix64 as its authors print it, in numpy's uint64."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor


class PlainStream:
    def __init__(self, seed: int) -> None:
        self.state = np.array([seed % 2**64], np.uint64)

    def next64(self, n: int) -> np.ndarray:
        z = self.state + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self.state = z[-1:]
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.from_numpy((self.next64(prod(shape)) >> np.uint64(40)) / 2**24).view(*shape)

    def normal(self, shape: Sequence[int]) -> Tensor:
        places = ((self.next64(prod(shape)) >> np.uint64(48)) + 0.5) / 2**16
        return torch.from_numpy((norm.ppf(places) * 2**20).round() / 2**20).view(*shape)


def plain_streams(n: int, generator: torch.Generator) -> list[PlainStream]:
    """Of `n` images whose seeds a generator gives in order."""
    return [PlainStream(int(torch.randint(2**62, (), generator=generator))) for _ in range(n)]
