"""Basic image augmentations: crop, flip and jitter, and AugMix's mixing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from matlib.augmentations.image import global_cpu_generator
from matlib.data.pairs import ImageTextPairs, OneToMany


def crop_flip_jitter(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    *,
    strength: float = 1.0,
    flip: bool = True,
) -> OneToMany:
    """Images cropped, mirrored and with changed colours.

    torchvision's RandomResizedCrop (at least 1 - 0.4 x strength of the area), a mirror image
    in every second case, and ColorJitter (brightness, contrast and saturation 0.4 x strength,
    hue 0.1 x strength): the usual recipe of contrastive learning (Chen et al. 2020, SimCLR),
    weaker, because captions name colours. Mirroring makes "left of" wrong; that is to be
    measured, not assumed away.

    Args:
        pairs: N images with their captions.
        n_variants: images added to each original, 0 or more.
        generator: CPU generator; same generator, same bytes.
        strength: 0 (copies, apart from mirroring) to 2.
        flip: whether images may be mirrored.

    Raises:
        ValueError: a parameter outside its range.
    """
    if not 0.0 <= strength <= 2.0:
        raise ValueError(f"strength is in [0, 2]; got {strength}")
    size = list(pairs.images.load([0]).shape[-2:])
    light, hue = 0.4 * strength, 0.1 * strength
    steps: list[Callable[[Tensor], Tensor]] = []
    if strength > 0:
        steps.append(v2.RandomResizedCrop(size, (1 - 0.4 * strength, 1.0), antialias=True))
        steps.append(v2.ColorJitter(light, light, light, hue))
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    return _augmented(pairs, n_variants, generator, v2.Compose([*steps, v2.Identity()]),
                      "crop-flip-jitter")  # fmt: skip


def augmix(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    *,
    severity: int = 3,
) -> OneToMany:
    """Images mixed from several chains of operations and the original.

    torchvision's AugMix (Hendrycks et al. 2020) with its own defaults: three chains of up to
    three operations, Dirichlet weights.

    Args:
        pairs: N images with their captions.
        n_variants: images added to each original, 0 or more.
        generator: CPU generator; same generator, same bytes.
        severity: of the operations, 1 to 10; 0 gives copies.

    Raises:
        ValueError: a parameter outside its range.
    """
    if not 0 <= severity <= 10:
        raise ValueError(f"severity is in 0 to 10; got {severity}")
    mix = v2.AugMix(severity) if severity else v2.Identity()
    return _augmented(pairs, n_variants, generator, mix, "augmix")


def _augmented(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    augment: Callable[[Tensor], Tensor],
    technique: str,
) -> OneToMany:
    """torchvision draws from torch's global generator, which is seeded and put back."""
    if n_variants < 0:
        raise ValueError(f"n_variants must be 0 or more; got {n_variants}")
    originals = OneToMany.from_pairs(pairs)
    with global_cpu_generator(generator):
        sets = [
            torch.stack([image, *(augment(image) for _ in range(n_variants))])
            for image in originals.all_images()[:, 0]
        ]
    return OneToMany(technique, originals.captions, torch.stack(sets))
