"""Noise of images, drawn where their pixels lie: the same on every device and in any batch.

A number follows from its image's seed and its place in the image's stream (counter-based: Salmon
et al. 2011), by operations on integers and by products that IEEE 754 rounds in one way. So a CPU
and a GPU draw the same bits, nothing but a seed per image travels between them, and no image's
noise depends on the images beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_TABLE_BITS = 16


class Noise:
    """Random numbers for a batch, each image from a stream of its own.

    The streams are SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014): output i of seed s is a mix of s + (i + 1) * gamma alone.

    Args:
        seeds: int64 (B,), one per image, on any device.
    """

    def __init__(self, seeds: Tensor) -> None:
        self.seeds = seeds
        self._n_drawn = 0

    @classmethod
    def like(cls, generators: Sequence[torch.Generator]) -> Noise:
        """Streams with the seeds that CPU generators were given, whatever these drew since."""
        return cls(torch.tensor([own.initial_seed() for own in generators], dtype=torch.int64))

    def uniform(self, like: Tensor) -> Tensor:
        """Multiples of 2^-24 in [0, 1), shaped like a batch, in its dtype and on its device.

        Args:
            like: float (B, ...).
        """
        found = self._bits(like, 24) * torch.tensor(2.0**-24, dtype=_exact(like))
        return found.to(like.dtype).view_as(like)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers, shaped like a batch, in its dtype and on its device.

        Looked up among the 65,536 quantiles (k + 1/2) / 65,536, the largest of them 4.32:
        logarithms and cosines of another device have other last digits.

        Args:
            like: float (B, ...).
        """
        found = _quantiles(like.device)[self._bits(like, _TABLE_BITS)]
        return found.to(like.dtype).view_as(like)

    def _bits(self, like: Tensor, n_bits: int) -> Tensor:
        """int64 (B, values of an image) in [0, 2^n_bits): the upper bits of the next outputs.

        The mix ends with x ^ (x >> 31), which leaves the upper 31 bits as they are.
        """
        if len(self.seeds) != len(like):
            raise ValueError(
                f"expected one seed per image; got {len(self.seeds)} for {len(like)} images"
            )
        self.seeds = self.seeds.to(like.device)
        begin, n = self._n_drawn + 1, like[0].numel()
        self._n_drawn += n
        place = torch.arange(begin, begin + n, device=like.device)
        x = torch.add(self.seeds[:, None], place, alpha=_signed(_GAMMA))  # (B, n), modulo 2^64
        for shift, factor in _MIX:
            low = (x >> shift).bitwise_and_(2 ** (64 - shift) - 1)  # `>>` copies the sign
            x.bitwise_xor_(low).mul_(_signed(factor))
        return x.bitwise_right_shift_(64 - n_bits).bitwise_and_(2**n_bits - 1)


ImageGenerators = torch.Generator | Noise
"""A CPU generator, which gives every image of a batch a seed in order, or the streams."""


def noise_of(generator: ImageGenerators, batch: Tensor) -> Noise:
    """The streams of a batch's images, with their seeds on its device.

    Args:
        generator: drawn from once, if it is one.
        batch: (B, ...).
    """
    if isinstance(generator, Noise):
        return generator
    return Noise(seeds_of_images(len(batch), generator).to(batch.device))


def seeds_of_images(n: int, generator: torch.Generator) -> Tensor:
    """int64 (n,): a seed for each image, drawn in order."""
    return torch.randint(2**62, (n,), generator=generator)


def _signed(number: int) -> int:
    """The number below 2^63 in size that equals it modulo 2^64."""
    return number - 2**64 if number >= 2**63 else number


def _exact(like: Tensor) -> torch.dtype:
    """A dtype that holds 24 bits."""
    return torch.float64 if like.dtype == torch.float64 else torch.float32


@cache
def _quantiles(device: torch.device) -> Tensor:
    """float32 (65,536,) on a device, in steps of 2^-20: the last digits of no library matter."""
    n = 2**_TABLE_BITS
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    exact = torch.special.ndtri(places)  # symmetric, so that the mean is zero
    return ((exact * 2**20).round() / 2**20).float().to(device)
