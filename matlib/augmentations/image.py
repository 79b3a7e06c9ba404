"""Image augmentations: from each 1:1 pair, further images for the same caption."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torchvision.transforms import v2

from matlib.data.pairs import ImageTextPairs, OneToMany

N_MAGNITUDES = 31  # torchvision's scale, that of the paper


def randaugment(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    *,
    n_operations: int = 2,
    magnitude: int = 9,
) -> OneToMany:
    """Images after random shears, shifts, rotations and colour changes.

    torchvision's RandAugment (Cubuk et al. 2020, *RandAugment: Practical Automated Data
    Augmentation with a Reduced Search Space*) with its own defaults, drawn afresh for each
    variant of each image. torchvision draws from torch's global CPU generator; its state is
    seeded from `generator` for the call and put back afterwards.

    Some operations make a caption wrong ("red", "left of"): colours are changed by solarising
    and images are rotated, never mirrored. Alignment is to be measured, not assumed.

    Args:
        pairs: N images with their captions.
        n_variants: images added to each original, 0 or more.
        generator: CPU generator; same generator, same bytes.
        n_operations: operations in a row on each image, 0 or more.
        magnitude: strength, 0 (least) to 30.

    Raises:
        ValueError: a parameter outside its range.
    """
    if n_variants < 0 or n_operations < 0:
        raise ValueError(
            f"n_variants and n_operations must be 0 or more; got {n_variants}, {n_operations}"
        )
    if not 0 <= magnitude < N_MAGNITUDES:
        raise ValueError(f"magnitude must be in 0 to {N_MAGNITUDES - 1}; got {magnitude}")
    originals = OneToMany.from_pairs(pairs)
    augment = v2.RandAugment(n_operations, magnitude, N_MAGNITUDES)
    with _global_cpu_generator(generator):
        sets = [
            torch.stack([image, *(augment(image) for _ in range(n_variants))])
            for image in originals.images[:, 0]
        ]
    return OneToMany("randaugment", originals.captions, torch.stack(sets))


@contextmanager
def _global_cpu_generator(generator: torch.Generator) -> Iterator[None]:
    """torch's global CPU generator, seeded from `generator` inside and restored after.

    `torch.manual_seed` would reseed the accelerators' generators as well, which
    `fork_rng(devices=[])` would then not restore.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    before = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        torch.set_rng_state(before)
