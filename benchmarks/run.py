"""`make bench`: everything measured side by side in one run, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.accelerator import bench_accelerator, bf16_captions_equal
from benchmarks.feed import bench_feed
from benchmarks.image import bench_images
from benchmarks.load import demo_shape, scenes_load
from benchmarks.machine import describe_machine
from benchmarks.memory import TOY, bench_memory
from benchmarks.step import StepSize, bench_step
from benchmarks.strength import StrengthSize, bench_strength, draw_front
from benchmarks.text import bench_text
from matlib.files import write_durably
from matlib.models import opening
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.small import SmallModel, build_small_clip
from matlib.progress import Progress


@dataclass(frozen=True)
class BenchSize:
    """How much is measured.

    Attributes:
        n_images, captions_per_image: of the text attack.
        n_attacked_images: of the image attacks.
        n_steps: of the image attacks.
        n_repeats: runs of each contender; medians are reported.
        chunks, n_captions: of the memory measurement.
        shape: of the model; the demo profile's by default.
        pgd_batch, peak_side: on an accelerator.
        step: of MAT's step; the demo profile's by default.
        feed: photographs, and how many make a batch.
        strength: of the strength-time front.
    """

    n_images: int = 32
    captions_per_image: int = 5
    n_attacked_images: int = 32
    n_steps: int = 10
    n_repeats: int = 5
    chunks: tuple[int, ...] = (64, 256, 1024)
    n_captions: tuple[int, ...] = (500, 5000)
    shape: SmallModel | None = None
    pgd_batch: int = 256
    peak_side: int = 8192
    step: StepSize | None = None
    feed: tuple[int, int] = (256, 64)
    strength: StrengthSize = field(default_factory=StrengthSize)


TOY_SIZE = BenchSize(
    n_images=16,
    captions_per_image=1,
    n_attacked_images=16,
    n_steps=2,
    n_repeats=1,
    chunks=(8,),
    n_captions=(8,),
    shape=TOY,
    pgd_batch=2,
    peak_side=64,
    step=StepSize(batch=4, image_steps=1, max_edits=2, n_steps=2),
    feed=(4, 2),
    strength=StrengthSize(
        n_images=4,
        captions_per_image=2,
        n_train=8,
        n_steps=2,
        pgd_steps=2,
        joint_steps=(2,),
        shape=TOY,
    ),
)


def bench(size: BenchSize | None = None) -> dict[str, Any]:
    """Measure; equal outputs are checked before any time is taken.

    Raises:
        UnequalOutputs: the contenders did not find the same.
    """
    size = size or BenchSize()
    torch.set_flush_denormal(True)
    found: dict[str, Any] = {"machine": describe_machine()}
    load = scenes_load(size.n_images, size.captions_per_image, size.shape)
    n_attacked = min(size.n_attacked_images, size.n_images)
    with Progress("bench", 7) as progress:
        found["model"] = _about(load.encoder)
        found["n_captions"], found["n_images"] = len(load.captions), n_attacked
        found["n_repeats"] = size.n_repeats
        found |= bench_text(load, size.n_repeats)
        progress.advance(1, "text")
        found |= bench_images(load.first(n_attacked), size.n_repeats, size.n_steps)
        progress.advance(1, "images")
        found["text_peak_memory_mib"] = bench_memory(
            size.chunks, size.n_captions, toy=size.shape is not None
        )
        progress.advance(1, "memory")
        step = size.step or StepSize.demo()
        found |= bench_step(scenes_load(2 * step.batch, 1, size.shape), step)
        found["mat_step_vit_b_16"] = _large_step(size, "cpu", StepSize.paper())
        progress.advance(1, "step")
        found |= bench_feed(*size.feed, n_repeats=min(size.n_repeats, 3))
        progress.advance(1, "feed")
        found["strength"] = bench_strength(size.strength)
        progress.advance(1, "strength")
        if torch.cuda.is_available():
            encoder = (
                opening.open_named("ViT-B-16", None, "cuda") if size.shape is None else load.encoder
            )
            found["accelerator"] = {
                "model": _about(encoder),
                **bench_accelerator(encoder, size.pgd_batch, size.n_repeats, side=size.peak_side),
                "bf16_captions_equal": bf16_captions_equal(load),
                **_large_step(size, "cuda", StepSize.demo(precision="bf16")),
            }
        progress.advance(1, "accelerator")
    return found


def _large_step(size: BenchSize, device: str, step: StepSize) -> dict[str, Any]:
    """MAT's step on ViT-B/16, the paper's model, with random weights; at toy size, on the toy."""
    if size.shape is not None:
        return bench_step(scenes_load(8, 1, size.shape), size.step or StepSize.demo())
    encoder = opening.open_named("ViT-B-16", None, device)
    load = scenes_load(2 * step.batch, 1, replace(demo_shape(), image_size=encoder.image_size))
    return bench_step(replace(load, encoder=encoder), step)


def toy_accelerator() -> dict[str, Any]:
    """The accelerator's measurement at toy size on whatever device there is, for tests."""
    encoder = build_small_clip(TOY, 0).eval()
    return bench_accelerator(encoder, 2, 1, n_steps=2, side=64)


def write_bench(path: Path, size: BenchSize | None = None) -> dict[str, Any]:
    """Measure, write the JSON whole, print the table."""
    found = rounded(bench(size))
    write_found(path, found)
    if "strength" in found:
        draw_front(found["strength"], path.with_name("strength.png"))
    print(table(found))
    return found


def write_found(path: Path, found: dict[str, Any]) -> None:
    """Write measurements as JSON, whole, four significant digits each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, json.dumps(rounded(found), indent=1) + "\n")


def table(found: dict[str, Any]) -> str:
    """The measurements, one a line."""
    rows = list(_flat(found))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _flat(found: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in found.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, f"{value:g}" if isinstance(value, float) else str(value)


def rounded(value: Any) -> Any:
    """Four significant digits: a measurement has no more."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _about(encoder: OpenClipEncoder) -> dict[str, Any]:
    counts = {name: sum(p.numel() for p in encoder.tower(name)) for name in ("image", "text")}
    return {"image_size": encoder.image_size, "n_parameters": counts}
