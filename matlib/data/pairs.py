"""Image-text pairs: the one currency between data, attacks, training and evaluation.

The relation is one-to-many in both directions: an image has any number of captions
(COCO has images with six), and a caption may be true of several images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor


class ImageSource(Protocol):
    """A list of images of one size, held as bytes and handed out in batches."""

    def __len__(self) -> int: ...

    def load(self, indices: Sequence[int] | Tensor) -> Tensor:
        """uint8 tensor (B, 3, H, W) of the images at `indices`."""
        ...


@dataclass(frozen=True)
class ImageTensor:
    """Images in memory: `data` is uint8 (N, 3, H, W)."""

    data: Tensor

    def __post_init__(self) -> None:
        if self.data.dtype != torch.uint8 or self.data.ndim != 4 or self.data.shape[1] != 3:
            raise ValueError(
                "images are expected as uint8 (N, 3, H, W); "
                f"got {self.data.dtype} {tuple(self.data.shape)}"
            )

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def load(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.data[torch.as_tensor(indices, dtype=torch.long)]


@dataclass(frozen=True)
class ImageFiles:
    """Images on disk, decoded on demand by `decode(path) -> uint8 (3, H, W)`."""

    paths: tuple[Path, ...]
    decode: Callable[[Path], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, indices: Sequence[int] | Tensor) -> Tensor:
        wanted = torch.as_tensor(indices, dtype=torch.long).tolist()
        return torch.stack([self.decode(self.paths[i]) for i in wanted])


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

    def subset(self, images: Sequence[int] | Tensor) -> ImageTextPairs:
        """The given images (in the given order) with all their captions."""
        kept = torch.as_tensor(images, dtype=torch.long)
        per_image = [(self.image_of == i).nonzero().flatten() for i in kept.tolist()]
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
        for i in range(len(self)):
            own = (self.image_of == i).nonzero().flatten()
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
        images: uint8 (N, R, 3, H, W), R >= 1 renderings each; entry 0 is the original.
    """

    technique: str
    captions: tuple[tuple[str, ...], ...]
    images: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 5:
            raise ValueError(
                "images are expected as uint8 (N, R, 3, H, W); "
                f"got {self.images.dtype} {tuple(self.images.shape)}"
            )
        if len(self.captions) != self.images.shape[0]:
            raise ValueError(
                f"{len(self.captions)} caption sets for {self.images.shape[0]} image sets"
            )
        if any(len(c) == 0 for c in self.captions):
            raise ValueError("every original needs at least one caption (its own)")

    def __len__(self) -> int:
        return len(self.captions)

    @classmethod
    def from_pairs(cls, pairs: ImageTextPairs) -> OneToMany:
        """Every image with all the captions that were written for it."""
        own: list[list[str]] = [[] for _ in range(len(pairs))]
        for caption, image in zip(pairs.captions, pairs.image_of.tolist(), strict=True):
            own[image].append(caption)
        images = pairs.images.load(range(len(pairs)))
        return cls("none", tuple(map(tuple, own)), images[:, None])
