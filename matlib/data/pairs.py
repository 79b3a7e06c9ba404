"""Image-text pairs: the one currency between data, attacks, training and evaluation.

The relation is one-to-many in both directions: an image has any number of captions
(COCO has images with six), and a caption may be true of several images. Images are held in
memory, decoded from files, or made when asked for, within a budget of memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from matlib.launcher import n_processes


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


MOST_READERS = 16
"""More threads than this wait for Python's lock instead of decoding."""


class ImageSource(Protocol):
    """A list of images of one size, handed out in batches of bytes."""

    def __len__(self) -> int: ...

    def load(self, indices: Sequence[int] | Tensor) -> Tensor:
        """uint8 tensor (B, 3, H, W) of the images at `indices`."""
        ...

    @property
    def origin(self) -> str:
        """Digest of what decides every byte; the same in memory and on disk."""
        ...


class VariantImages(Protocol):
    """R images of each of N originals, each made when it is asked for; number 0 is the original.

    `one` is called from several threads at once.
    """

    @property
    def shape(self) -> torch.Size:
        """(N, R, 3, H, W)."""
        ...

    @property
    def origin(self) -> str:
        """Digest of what decides every byte."""
        ...

    def one(self, image: int, rendering: int) -> Tensor:
        """uint8 (3, H, W): the same bytes at every call."""
        ...


@dataclass(frozen=True)
class ImageTensor:
    """Images in memory.

    Attributes:
        data: uint8 (N, 3, H, W).
        made_from: the files that were decoded; they stand for the bytes in `origin`, so that a
            run may go on where fewer images fit into memory.
    """

    data: Tensor
    made_from: ImageFiles | None = None

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

    @property
    def origin(self) -> str:
        return digest_of(self.data) if self.made_from is None else self.made_from.origin


@dataclass(frozen=True)
class ImageFiles:
    """Images on disk, decoded on demand by `decode(path) -> uint8 (3, H, W)`, in threads."""

    paths: tuple[Path, ...]
    decode: Callable[[Path], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, indices: Sequence[int] | Tensor) -> Tensor:
        wanted = [self.paths[i] for i in torch.as_tensor(indices, dtype=torch.long).tolist()]
        if len(wanted) < 2:
            return torch.stack([self.decode(path) for path in wanted])
        with ThreadPoolExecutor(min(n_readers(), len(wanted))) as pool:
            return torch.stack(list(pool.map(self.decode, wanted)))

    @cached_property
    def origin(self) -> str:
        """Of the names and sizes of the files and of how they are decoded, not of their bytes."""
        how = self.decode
        name = how.func.__qualname__ if isinstance(how, partial) else how.__qualname__
        options = sorted(how.keywords.items()) if isinstance(how, partial) else []
        digest = blake2b(f"{name}{options}".encode(), digest_size=8)
        for path in self.paths:
            digest.update(f"{path.parent.name}/{path.name}:{path.stat().st_size};".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Originals:
    """One image of each: those of a source, as they are."""

    source: ImageSource

    @cached_property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.source), 1, *self.source.load([0]).shape[1:]))

    @property
    def origin(self) -> str:
        return self.source.origin

    def one(self, image: int, rendering: int) -> Tensor:
        if rendering != 0:
            raise IndexError(f"there is one image of each, number 0; got {rendering}")
        return self.source.load([image])[0]


def take(images: Tensor | VariantImages, index: Tensor, rendering: Tensor) -> Tensor:
    """uint8 (B, 3, H, W): rendering `rendering[b]` of original `index[b]`, both int64 (B,)."""
    if isinstance(images, Tensor):
        return images[index, rendering]
    pairs = zip(index.tolist(), rendering.tolist(), strict=True)
    return torch.stack([images.one(i, r) for i, r in pairs])


def in_memory(images: Tensor | VariantImages) -> Tensor:
    """uint8 (N, R, 3, H, W): every image at once; read in threads where they are not there yet."""
    if isinstance(images, Tensor):
        return images
    n, n_renderings, *_ = images.shape
    data = torch.empty(images.shape, dtype=torch.uint8)

    def read(place: tuple[int, int]) -> None:
        data[place] = images.one(*place)

    with ThreadPoolExecutor(n_readers()) as pool:
        for _ in pool.map(read, ((i, r) for i in range(n) for r in range(n_renderings))):
            pass
    return data


def digest_of(data: Tensor) -> str:
    """Of a tensor's bytes."""
    flat = data.detach().cpu().contiguous().flatten().view(torch.uint8)
    return blake2b(flat.numpy().data, digest_size=8).hexdigest()


def n_readers() -> int:
    """Threads that read images: the usable cores, shared with the workers started beside it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = (usable or 1) // n_processes("LOCAL_WORLD_SIZE")
    return max(1, min(MOST_READERS, share))


GIBIBYTE = 2**30
BUDGET_VARIABLE = "MATLIB_IMAGE_GIB"
SHARE = 0.5
"""Of the memory that is free. The rest is for models, activations and the system's file cache,
from which images that do not fit are read again and again. Source: ours."""


def image_budget() -> int:
    """Bytes that images held in memory may take in this process.

    `MATLIB_IMAGE_GIB` where it is set (0: decode everything when it is needed); else half of
    what is free, shared with the workers that were started beside it.

    Raises:
        ValueError: the variable is no number of 0 or more; LOCAL_WORLD_SIZE is no count.
    """
    asked = os.environ.get(BUDGET_VARIABLE, "")
    if asked:
        try:
            gibibytes = float(asked)
        except ValueError:
            gibibytes = -1.0
        if not 0 <= gibibytes < float("inf"):
            raise ValueError(f"{BUDGET_VARIABLE} is a number of GiB, 0 or more; got {asked!r}")
        return int(gibibytes * GIBIBYTE)
    return int(SHARE * free_memory() / n_processes("LOCAL_WORLD_SIZE"))


def free_memory() -> int:
    """Bytes this process could still take: of the machine, or of its container if that is less."""
    return min(_free_on_machine(), _free_in_container())


def _free_on_machine() -> int:
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:  # elsewhere half of what there is: what is free is not told everywhere
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 * GIBIBYTE


def _free_in_container(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Limit less use of cgroup v2; without a limit, more than any machine has.

    Its use counts the file cache, which is given back on demand and is taken off.
    """
    try:
        limit, used = (
            (group / f"memory.{name}").read_text(encoding="utf-8") for name in ("max", "current")
        )
        lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 2**62
    if limit.strip() == "max":
        return 2**62
    cache = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return max(0, int(limit) - int(used) + cache)
