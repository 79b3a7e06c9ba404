"""Randomness of training, keyed by what it is for: no state to save, none shared between pairs."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor


def key(*parts: int | str) -> int:
    """A 63-bit seed from the given parts; other parts give an unrelated one."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


def sample_generators(seed: int, step: int, index: Tensor) -> list[torch.Generator]:
    """One CPU generator per pair of a step.

    Seeded by the run, the step and the pair's row in the training set, so that a pair's noise
    depends neither on its neighbours nor on how the batch is split over processes.

    Args:
        index: int64 (B,).
    """
    return [torch.Generator().manual_seed(key(seed, "pair", step, row)) for row in index.tolist()]


def seed_layers(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed the global generators that layers with dropout draw from, before a step's update.

    Dropout offers no generator of its own. Seeded anew at each step, a resumed run draws what
    the uninterrupted one drew. Call it inside `torch.random.fork_rng`.
    """
    own = key(seed, "layers", step, rank)
    torch.random.default_generator.manual_seed(own)
    if device.type == "cuda":
        torch.cuda.manual_seed(own)
