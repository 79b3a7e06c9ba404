"""How many images go through a model at once, and draws that do not depend on it."""

from __future__ import annotations

import torch
from torch import Tensor

CPU_BYTES = 2**25
"""Pixels of one forward on a CPU. glibc takes blocks above 32 MiB from the system and gives them
back each time: SGA's step at 224 px met 2.9 million page faults with 128 images at 5 views, and
took 1.4 times as long as with 8 to 32."""

GPU_BYTES = 2**26
"""Pixels of one forward on a GPU: at 224 px 111 images, views counted."""


def images_per_forward(pixels: Tensor, n_views: int = 1, device: torch.device | None = None) -> int:
    """Images, each in `n_views` views, whose pixels fit into the bound; at least one.

    Args:
        pixels: (N, 3, H, W).
        device: where the forward runs; that of the pixels by default.
    """
    where = (pixels.device if device is None else device).type
    bound = CPU_BYTES if where == "cpu" else GPU_BYTES
    per_image = max(1, pixels[:1].numel() * pixels.element_size() * n_views)
    return max(1, bound // per_image)


def seeds_of_images(n: int, generator: torch.Generator) -> Tensor:
    """int64 (n,): a seed for each image, drawn in order."""
    return torch.randint(2**62, (n,), generator=generator)


def with_seeds(seeds: Tensor) -> list[torch.Generator]:
    """A CPU generator per seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
