"""Image augmentations: from each 1:1 pair, further images for the same caption.

Made from its own image (RandAugment, AugMix, crop, flip and jitter), or those of captions that say
nearly the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchvision.transforms import v2

from matlib.augmentations.variants import with_images
from matlib.data.pairs import ImageSource, ImageTextPairs, OneToMany

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


MIN_SIMILARITY = 0.5
"""Cosine of tf-idf vectors of words from which two captions count as nearly the same."""


def similar_images(
    pairs: ImageTextPairs, n_variants: int, *, min_similarity: float = MIN_SIMILARITY
) -> OneToMany:
    """Each caption with the images of the captions nearest to it (N:1).

    People's captions of different photographs often say nearly the same; the photographs are
    then further images of one caption, which exist already. Near is a high cosine of tf-idf
    vectors of words (scikit-learn). Where too few captions are near enough, the original
    image stands in, so that every pair has the same number of images.

    Args:
        pairs: N images with one caption each.
        n_variants: images added to each original, 0 or more.
        min_similarity: cosine in [0, 1].

    Raises:
        ValueError: more than one caption per image, a parameter outside its range, or captions
            without words.
    """
    if n_variants < 0 or not 0.0 <= min_similarity <= 1.0:
        raise ValueError(
            "expected 0 variants or more and a similarity in [0, 1]; got "
            f"{n_variants}, {min_similarity}"
        )
    if pairs.n_captions != len(pairs):
        raise ValueError(f"expected one caption per image; got {pairs.n_captions}")
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(pairs.captions)
    n_asked = min(n_variants + 1, len(pairs))
    near = NearestNeighbors(n_neighbors=n_asked, metric="cosine").fit(vectors)
    distances, neighbours = near.kneighbors(vectors)
    chosen = []
    for i, (gaps, others) in enumerate(zip(distances, neighbours, strict=True)):
        fit = [int(j) for gap, j in zip(gaps, others, strict=True)
               if j != i and 1 - gap >= min_similarity]  # fmt: skip
        chosen.append((fit + [i] * n_variants)[:n_variants])
    index = torch.tensor(chosen, dtype=torch.long).view(len(pairs), n_variants)
    images = pairs.images.load(range(len(pairs)))
    return with_images(pairs, images[index], "similar-images")
