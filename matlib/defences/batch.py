"""What one training step sees, and the order in which a run sees the data.

Images of coming batches are read while the present one is trained on (`read_ahead`). Threads, not
processes: decoders leave Python's lock, nothing is copied between processes, and a process with
a GPU need not fork. What is read follows from the draws alone, whichever thread is first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matlib.data.pairs import OneToMany, n_readers
from matlib.defences.processes import Processes


@dataclass(frozen=True)
class Batch:
    """Pairs of one step on one process.

    Attributes:
        pixels: float (B, 3, H, W) in [0, 1]; image i belongs to caption i.
        captions: B captions.
        index: int64 (B,), row of each pair's original in the training set; noise is keyed by it.
        families: per image all the captions that it has, the one of its pair among them; clean.
            Empty where an image has its pair's caption alone.
    """

    pixels: Tensor
    captions: Sequence[str]
    index: Tensor
    families: tuple[tuple[str, ...], ...] = ()


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
        families = tuple(data.captions[i] for i in index.tolist())
        pixels = images.to(device, non_blocking=True) / torch.tensor(255, dtype=dtype)
        return Batch(pixels, captions, index, families)


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


N_AHEAD = 2
"""Batches that are read ahead: one is on its way while another is ready. Source: ours."""


@contextmanager
def read_ahead(
    draws: Iterator[Draw],
    data: OneToMany,
    parts: Sequence[slice],
    device: torch.device,
    n_threads: int | None = None,
) -> Iterator[Iterator[Draw]]:
    """The same draws, whose images are read ahead where that is of use.

    Images in memory are gathered ahead for a GPU only, into pinned memory, which is copied
    while the GPU computes; on a CPU gathering takes less than handing over.

    Args:
        parts: the rows of each draw that this process trains on, by micro-batch.
        n_threads: 0: nothing is read ahead; by default `n_readers()`.
    """
    if n_threads is None:
        n_threads = n_readers()
    is_held = isinstance(data.images, Tensor)
    if n_threads == 0 or (is_held and device.type != "cuda"):
        yield draws
        return
    pool = ThreadPoolExecutor(1 if is_held else n_threads, thread_name_prefix="images")
    reader = _Reader(data, parts, pool, pin=device.type == "cuda")
    try:
        yield reader.ahead(draws)
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Reader:
    data: OneToMany
    parts: Sequence[slice]
    pool: ThreadPoolExecutor
    pin: bool

    def ahead(self, draws: Iterator[Draw]) -> Iterator[Draw]:
        waiting: deque[Draw] = deque()
        for draw in draws:
            waiting.append(self._begun(draw))
            if len(waiting) > N_AHEAD:
                yield waiting.popleft()
        yield from waiting

    def _begun(self, draw: Draw) -> Draw:
        if isinstance(self.data.images, Tensor):
            coming = {_key(rows): self._gather(draw, rows) for rows in self.parts}
        else:
            coming = {_key(rows): self._decode(draw, rows) for rows in self.parts}

        def read(rows: slice) -> Tensor:
            images, pending = coming.pop(_key(rows))  # once: then the step alone holds it
            for each in pending:
                each.result()  # what a decoder raised is raised here
            return images

        return replace(draw, read=read)

    def _gather(self, draw: Draw, rows: slice) -> tuple[Tensor, list[Future[None]]]:
        images, data = self._empty(draw.index[rows]), self.data.images
        assert isinstance(data, Tensor)

        def work() -> None:
            images.copy_(data[draw.index[rows], draw.rendering[rows]])

        return images, [self.pool.submit(work)]

    def _decode(self, draw: Draw, rows: slice) -> tuple[Tensor, list[Future[None]]]:
        images, data = self._empty(draw.index[rows]), self.data.images
        assert not isinstance(data, Tensor)

        def work(place: int, image: int, rendering: int) -> None:
            images[place] = data.one(image, rendering)

        pairs = zip(draw.index[rows].tolist(), draw.rendering[rows].tolist(), strict=True)
        return images, [self.pool.submit(work, i, *pair) for i, pair in enumerate(pairs)]

    def _empty(self, index: Tensor) -> Tensor:
        shape = (len(index), *self.data.images.shape[2:])
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin)


def _key(rows: slice) -> tuple[int, int]:
    return rows.start, rows.stop
