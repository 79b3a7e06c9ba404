"""Where images come from: held in memory, decoded from files, or made when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from matlib.launcher import n_processes

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
    """Threads that read images: the usable cores, shared with the other processes of torchrun."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = (usable or 1) // n_processes("LOCAL_WORLD_SIZE")
    return max(1, min(MOST_READERS, share))
