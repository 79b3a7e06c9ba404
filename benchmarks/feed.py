"""Samples per second that reach a training step: decoded from files, and from memory."""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import repeated
from matlib.data.images import decode_image
from matlib.data.pairs import ImageFiles, OneToMany, Originals
from matlib.defences.batch import draw_batches, read_ahead

CPU = torch.device("cpu")
FLICKR = (500, 375)
"""Width and height of most photographs of Flickr30k, which take 65 kB each here as there."""


def bench_feed(
    n_images: int = 256, batch: int = 64, size: int = 224, n_repeats: int = 3
) -> dict[str, Any]:
    """Float pixels per second on the CPU, while nothing else is computed.

    Returns:
        samples per second with decoding, by the number of reading threads (0: in the step
        itself), and from bytes in memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = tuple(_photograph(Path(folder) / f"{i}.jpg", i) for i in range(n_images))
        files = ImageFiles(paths, partial(decode_image, size=size))
        lazy = OneToMany("bench", tuple(("a",) for _ in paths), Originals(files))
        decoding = {str(n): _rate(lazy, batch, n, n_repeats) for n in (0, 1, 2)}
        held = _rate(lazy.held(2**40), batch, 0, n_repeats)
    return {"feed_samples_per_second": {"decoding_by_threads": decoding, "in_memory": held}}


def _rate(data: OneToMany, batch: int, n_threads: int, n_repeats: int) -> float:
    n_batches = len(data) // batch

    def epoch() -> None:
        draws = islice(draw_batches(data, batch, torch.Generator().manual_seed(0)), n_batches)
        rows = slice(0, batch)
        with read_ahead(draws, data, [rows], CPU, n_threads) as fed:
            for draw in fed:
                draw.take(data, rows, CPU, torch.float32)

    return n_batches * batch / repeated(epoch, CPU, n_repeats)


def _photograph(path: Path, seed: int) -> Path:
    """A JPEG with the size of a photograph in pixels and in bytes: blurred shapes and noise."""
    drawn = np.random.default_rng(seed)
    shapes = Image.fromarray(drawn.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    pixels = np.asarray(shapes.resize(FLICKR, Image.Resampling.BICUBIC)).astype(np.int64)
    noisy = (pixels + drawn.integers(-12, 13, pixels.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(path, quality=90)
    return path
