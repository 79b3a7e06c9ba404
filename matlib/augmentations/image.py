"""Image augmentations: from each 1:1 pair, further images for the same caption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from matlib.data.image_sources import ImageSource
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
    _check_magnitude(magnitude)
    originals = OneToMany.from_pairs(pairs)
    augment = v2.RandAugment(n_operations, magnitude, N_MAGNITUDES)
    with global_cpu_generator(generator):
        sets = [
            torch.stack([image, *(augment(image) for _ in range(n_variants))])
            for image in originals.all_images()[:, 0]
        ]
    return OneToMany("randaugment", originals.captions, torch.stack(sets))


@contextmanager
def global_cpu_generator(generator: torch.Generator) -> Iterator[None]:
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


@dataclass(frozen=True)
class RandAugmented:
    """The images of a source with RandAugment's variants of each, made when asked for.

    The bytes of a variant follow from (seed, image, rendering) alone, so nothing has to be kept:
    five variants of COCO's training images at 224 px would fill 85 GB. The draws are not those
    of `randaugment`, which takes one generator for a whole set.

    Attributes:
        source: N images.
        n_renderings: R >= 1 images of each; number 0 is the original.
        seed: 0 or more.
        n_operations, magnitude: as in `randaugment`.

    Raises:
        ValueError: a parameter outside its range.
    """

    source: ImageSource
    n_renderings: int
    seed: int
    n_operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        if self.n_renderings < 1 or self.n_operations < 0 or not 0 <= self.seed < 2**31:
            raise ValueError(
                "expected 1 rendering or more, 0 operations or more, a seed below 2**31; got "
                f"{self.n_renderings}, {self.n_operations}, {self.seed}"
            )
        _check_magnitude(self.magnitude)

    @cached_property
    def shape(self) -> torch.Size:
        """(N, R, 3, H, W)."""
        return torch.Size((len(self.source), self.n_renderings, *self.source.load([0]).shape[1:]))

    @property
    def origin(self) -> str:
        """Digest of the source with how it is augmented."""
        how = (self.n_renderings, self.seed, self.n_operations, self.magnitude)
        return f"{self.source.origin} randaugment {how}"

    def one(self, image: int, rendering: int) -> Tensor:
        """uint8 (3, H, W)."""
        original = self.source.load([image])[0]
        if rendering == 0:
            return original
        # torch mixes the seed's bits: neighbouring seeds give unrelated draws
        number = (self.seed * len(self.source) + image) * self.n_renderings + rendering
        generator = torch.Generator().manual_seed(number)
        found: Tensor = _Drawing(generator, self.n_operations, self.magnitude)(original)
        return found


class _Drawing(v2.RandAugment):
    """RandAugment that draws from a generator of its own: threads share the global one."""

    def __init__(self, generator: torch.Generator, n_operations: int, magnitude: int) -> None:
        super().__init__(n_operations, magnitude, N_MAGNITUDES)
        self._generator = generator

    def _get_random_item(self, dct: dict[str, Any]) -> tuple[str, tuple[Callable[..., Any], bool]]:
        names = list(dct)
        name = names[int(torch.randint(len(names), (), generator=self._generator))]
        magnitudes, is_signed = dct[name]
        flips = is_signed and bool(torch.rand((), generator=self._generator) <= 0.5)
        # the sign is drawn here, so that `forward` draws nothing
        return name, ((lambda *size: -magnitudes(*size)) if flips else magnitudes, False)


def _check_magnitude(magnitude: int) -> None:
    if not 0 <= magnitude < N_MAGNITUDES:
        raise ValueError(f"magnitude must be in 0 to {N_MAGNITUDES - 1}; got {magnitude}")
