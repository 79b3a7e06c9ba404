"""Image-text pairs: the one currency between data, attacks, training and evaluation.

The relation is one-to-many in both directions: an image has any number of captions
(COCO has images with six), and a caption may be true of several images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from matlib.data.image_sources import (
    ImageSource,
    ImageTensor,
    Originals,
    VariantImages,
    digest_of,
    in_memory,
    take,
)


@dataclass(frozen=True)
class ImageTextPairs:
    """N images and M captions of one split.

    Attributes:
        name: data set, e.g. `scenes`, `flickr8k`.
        split: `train`, `val` or `test`.
        images: N images.
        captions: M strings; an empty string is allowed (and attacks leave it alone).
        image_of: int64 (M,), the image each caption was written for.
        image_ids: N stable identifiers (file names, scene keys).
        relevant: bool (N, M), True where caption m is true of image n. None means that
            each caption counts for its own image only (all real data).
        notes: facts about the data that a reader of its results must know.
    """

    name: str
    split: str
    images: ImageSource
    captions: tuple[str, ...]
    image_of: Tensor
    image_ids: tuple[str, ...]
    relevant: Tensor | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        n, m = len(self.images), len(self.captions)
        if n == 0 or m == 0:
            raise ValueError(f"{self.name}/{self.split}: no data ({n} images, {m} captions)")
        if self.image_of.shape != (m,) or self.image_of.dtype != torch.long:
            raise ValueError(
                f"image_of must be int64 ({m},), one entry per caption; "
                f"got {self.image_of.dtype} {tuple(self.image_of.shape)}"
            )
        if int(self.image_of.min()) < 0 or int(self.image_of.max()) >= n:
            raise ValueError(f"image_of points outside the {n} images")
        without = n - int(self.image_of.unique().numel())
        if without:
            raise ValueError(f"{self.name}/{self.split}: {without} images have no caption")
        if len(self.image_ids) != n:
            raise ValueError(f"{n} images but {len(self.image_ids)} image_ids")
        if self.relevant is not None and self.relevant.shape != (n, m):
            raise ValueError(f"relevant must be ({n}, {m}); got {tuple(self.relevant.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_captions(self) -> int:
        return len(self.captions)

    def pixels(self, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """float32 (B, 3, H, W) in [0, 1] of the images at `indices` (all by default)."""
        wanted = range(len(self)) if indices is None else indices
        return self.images.load(wanted).float() / 255.0

    def relevance(self) -> Tensor:
        """bool (N, M): `relevant`, or each caption for its own image."""
        if self.relevant is not None:
            return self.relevant
        own = torch.zeros(len(self), self.n_captions, dtype=torch.bool)
        own[self.image_of, torch.arange(self.n_captions)] = True
        return own

    def captions_of(self) -> tuple[Tensor, ...]:
        """Per image the int64 indices of its captions, in ascending order."""
        order = self.image_of.argsort(stable=True)
        return order.split(self.image_of.bincount(minlength=len(self)).tolist())

    def subset(self, images: Sequence[int] | Tensor) -> ImageTextPairs:
        """The given images (in the given order) with all their captions."""
        kept = torch.as_tensor(images, dtype=torch.long)
        every = self.captions_of()
        per_image = [every[i] for i in kept.tolist()]
        columns = torch.cat(per_image)
        new_index = torch.repeat_interleave(
            torch.arange(len(kept)), torch.tensor([len(c) for c in per_image])
        )
        return replace(
            self,
            images=ImageTensor(self.images.load(kept)),
            captions=tuple(self.captions[j] for j in columns.tolist()),
            image_of=new_index,
            image_ids=tuple(self.image_ids[i] for i in kept.tolist()),
            relevant=None if self.relevant is None else self.relevant[kept][:, columns],
        )

    def one_to_one(self, generator: torch.Generator) -> ImageTextPairs:
        """One caption per image, drawn at random: the paper's deterministic 1:1 setting."""
        chosen = []
        for own in self.captions_of():
            pick = torch.randint(len(own), (1,), generator=generator)
            chosen.append(int(own[pick]))
        columns = torch.tensor(chosen)
        return replace(
            self,
            captions=tuple(self.captions[j] for j in chosen),
            image_of=torch.arange(len(self)),
            relevant=None if self.relevant is None else self.relevant[:, columns],
        )


@dataclass(frozen=True)
class OneToMany:
    """Variants of N original 1:1 pairs; the original is always among them.

    Attributes:
        technique: what made the variants, e.g. `captions`, `randaugment`.
        captions: N tuples of at least one caption each; entry 0 is the original.
        images: uint8 (N, R, 3, H, W), R >= 1 renderings each; entry 0 is the original. Either
            all of them in memory, or what makes each when it is asked for.
        made_from: what made images that are in memory; it then stands for them in `origin`.
    """

    technique: str
    captions: tuple[tuple[str, ...], ...]
    images: Tensor | VariantImages
    made_from: VariantImages | None = None

    def __post_init__(self) -> None:
        dtype = self.images.dtype if isinstance(self.images, Tensor) else torch.uint8
        if dtype != torch.uint8 or len(self.images.shape) != 5:
            raise ValueError(
                "images are expected as uint8 (N, R, 3, H, W); "
                f"got {dtype} {tuple(self.images.shape)}"
            )
        if len(self.captions) != self.images.shape[0]:
            raise ValueError(
                f"{len(self.captions)} caption sets for {self.images.shape[0]} image sets"
            )
        if any(len(c) == 0 for c in self.captions):
            raise ValueError("every original needs at least one caption (its own)")

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def origin(self) -> str:
        """Digest of what decides every byte of the images, wherever they are."""
        if not isinstance(self.images, Tensor):
            return self.images.origin
        return digest_of(self.images) if self.made_from is None else self.made_from.origin

    def take(self, index: Tensor, rendering: Tensor) -> Tensor:
        """uint8 (B, 3, H, W): image `rendering[b]` of original `index[b]`, both int64 (B,)."""
        return take(self.images, index, rendering)

    def all_images(self) -> Tensor:
        """uint8 (N, R, 3, H, W), in memory; for sets that are known to be small."""
        return in_memory(self.images)

    def held(self, budget_bytes: int) -> OneToMany:
        """The same with its images in memory if they fit there; the bytes are the same."""
        if isinstance(self.images, Tensor) or self.images.shape.numel() > budget_bytes:
            return self
        return replace(self, images=in_memory(self.images), made_from=self.images)

    @classmethod
    def from_pairs(cls, pairs: ImageTextPairs) -> OneToMany:
        """Every image with all the captions that were written for it; no file is read."""
        own: list[list[str]] = [[] for _ in range(len(pairs))]
        for caption, image in zip(pairs.captions, pairs.image_of.tolist(), strict=True):
            own[image].append(caption)
        captions, source = tuple(map(tuple, own)), pairs.images
        if not isinstance(source, ImageTensor):
            return cls("none", captions, Originals(source))
        made_from = None if source.made_from is None else Originals(source.made_from)
        return cls("none", captions, source.data[:, None], made_from)
