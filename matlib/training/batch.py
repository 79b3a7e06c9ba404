"""What one training step sees, and the order in which a run sees the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from matlib.data.pairs import OneToMany
from matlib.training.processes import Processes


@dataclass(frozen=True)
class Batch:
    """Pairs of one step on one process.

    Attributes:
        pixels: float (B, 3, H, W) in [0, 1]; image i belongs to caption i.
        captions: B captions.
        index: int64 (B,), row of each pair's original in the training set; noise is keyed by it.
    """

    pixels: Tensor
    captions: list[str]
    index: Tensor


@dataclass(frozen=True)
class Draw:
    """The pairs of one step over all processes, before any image is read.

    Attributes:
        index: int64 (G,), rows of originals, no two the same.
        rendering: int64 (G,), which image of each original.
        caption: float32 (G,) in [0, 1): u draws caption number floor(u * how many there are).
        read: rows -> uint8 (B, 3, H, W), where the images are being read already.
    """

    index: Tensor
    rendering: Tensor
    caption: Tensor
    read: Callable[[slice], Tensor] | None = None

    def take(self, data: OneToMany, rows: slice, device: torch.device, dtype: torch.dtype) -> Batch:
        """The given rows of it, read: pixels travel as bytes and become numbers on the device."""
        index = self.index[rows]
        images = data.take(index, self.rendering[rows]) if self.read is None else self.read(rows)
        captions = [
            data.captions[i][int(u * len(data.captions[i]))]
            for i, u in zip(index.tolist(), self.caption[rows].tolist(), strict=True)
        ]
        return Batch(images.to(device, non_blocking=True).to(dtype) / 255, captions, index)


def own_rows(micro_batch_size: int, part: int, processes: Processes) -> slice:
    """A process's rows of one part of a batch, among those of the whole batch."""
    size = micro_batch_size // processes.count
    begin = part * micro_batch_size + processes.rank * size
    return slice(begin, begin + size)


def draw_batches(data: OneToMany, batch_size: int, generator: torch.Generator) -> Iterator[Draw]:
    """Endless batches of pairs.

    An epoch visits every original once (but for a last part smaller than a batch); each visit
    draws one of its captions and one of its images afresh. An original is never twice in a
    batch, where it would be its own negative. Nothing else draws from the generator, so that a
    resumed run finds its place by skipping the steps that are done: no image is read for that.

    Raises:
        ValueError: fewer originals than the batch.
    """
    n = len(data)
    if n < batch_size:
        raise ValueError(f"a batch of {batch_size} needs as many pairs; the data has {n}")
    while True:
        order = torch.randperm(n, generator=generator)
        for rows in order[: n - n % batch_size].split(batch_size):
            which = torch.randint(data.images.shape[1], rows.shape, generator=generator)
            yield Draw(rows, which, torch.rand(len(rows), generator=generator))
