"""PGD on an accelerator: images per second by precision, and the share of the peak reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.load import Load
from benchmarks.timing import repeated
from matlib.attacks.objectives import kl_from_image
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.models.dual_encoder import frozen
from matlib.models.open_clip import OpenClipEncoder


def bench_accelerator(
    encoder: OpenClipEncoder, batch: int, n_repeats: int, *, n_steps: int = 10, side: int = 8192
) -> dict[str, Any]:
    """PGD on a whole batch in single precision and in bf16, with and without channels-last.

    Args:
        encoder: on the accelerator, in evaluation mode.
        batch: images attacked at once.
        side: of the square matrices whose product is taken as the peak.

    Returns:
        images per second; floating-point operations of a step per image; measured peaks in
        TFLOP/s; and the share of them that PGD reaches.
    """
    device, size = encoder.device, encoder.image_size
    pixels = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(device)
    flops = step_flops(encoder, pixels[:1])
    found: dict[str, Any] = {
        "pgd_batch": batch,
        "pgd_flops_per_image_and_step": flops,
        "pgd_images_per_second": {},
        "matmul_peak_tflops": {},
        "share_of_matmul_peak": {},
    }
    for name in ("float32", "bf16", "bf16_channels_last"):
        is_bf16 = name != "float32"
        seen = pixels.contiguous(memory_format=torch.channels_last) if "last" in name else pixels
        with precision(device, is_bf16):
            time = repeated(lambda x=seen: _pgd(encoder, x, n_steps), device, n_repeats)  # type: ignore[misc]
        peak = matmul_peak_tflops(device, torch.bfloat16 if is_bf16 else torch.float32, side)
        found["pgd_images_per_second"][name] = batch / time
        found["matmul_peak_tflops"][name] = peak
        found["share_of_matmul_peak"][name] = flops * batch * n_steps / time / (peak * 1e12)
    return found


def bf16_captions_equal(load: Load) -> float:
    """Share of the adversarial captions that are the same under bf16 autocast."""
    chosen = []
    for is_bf16 in (False, True):
        with precision(load.encoder.device, is_bf16):
            chosen.append(WordSubstitution()(load.encoder, load.captions, load.table))
    return sum(a == b for a, b in zip(*chosen, strict=True)) / len(load.captions)


def matmul_peak_tflops(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Highest measured rate of a square matrix product, 10 products in a row."""
    a = torch.randn(side, side, device=device, dtype=dtype)

    def products() -> None:
        for _ in range(10):
            a @ a

    return 10 * 2 * side**3 / repeated(products, device, 3) / 1e12


def step_flops(encoder: OpenClipEncoder, pixels: Tensor) -> float:
    """Operations of one gradient step per image: forward, and backward to the pixels only."""
    counter = FlopCounterMode(display=False)
    with counter:
        _pgd(encoder, pixels, 1)
    # `_pgd` embeds the clean image as well: one forward too many
    clean = FlopCounterMode(display=False)
    with clean, torch.no_grad():
        encoder.encode_image(pixels)
    return (counter.get_total_flops() - clean.get_total_flops()) / len(pixels)


def _pgd(encoder: OpenClipEncoder, pixels: Tensor, n_steps: int) -> Tensor:
    with torch.no_grad(), frozen(encoder):
        objective = kl_from_image(encoder.encode_image(pixels))
    generator = torch.Generator().manual_seed(0)
    return PGD(2.0, n_steps)(encoder, pixels, objective, generator=generator)


@contextmanager
def precision(device: torch.device, is_bf16: bool) -> Iterator[None]:
    """Single precision, or bf16 where autocast allows it."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16):
        yield
