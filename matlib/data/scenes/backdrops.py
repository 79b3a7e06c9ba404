"""Backgrounds: a small bank of soft, recognisable plates per background, made once."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.data.scenes.lexicon import BACKGROUNDS

N_PLATES = 12
# colours at the top and at the bottom of the image, in 1/255
GRADIENTS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "sand": ((238, 220, 184), (222, 194, 148)),
    "grass": ((186, 212, 150), (142, 184, 116)),
    "sky": ((176, 212, 242), (222, 238, 250)),
    "stone": ((176, 178, 184), (146, 149, 157)),
    "dusk": ((168, 142, 190), (244, 186, 164)),
    "night": ((22, 26, 58), (48, 54, 98)),
}


def _clouds(size: int, cells: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Smooth noise (N_PLATES, 1, size, size) of about unit range; `cells` along (y, x)."""
    coarse = torch.randn(N_PLATES, 1, *cells, generator=generator)
    padded = F.pad(coarse, (1, 1, 1, 1), mode="circular")
    # The circular pad keeps left and right edges alike, so that a plate can be rolled.
    smooth = F.interpolate(
        padded,
        size=(size * (cells[0] + 2) // cells[0], size * (cells[1] + 2) // cells[1]),
        mode="bicubic",
        align_corners=False,
    )
    top, left = size // cells[0], size // cells[1]
    return smooth[:, :, top : top + size, left : left + size]


def _stars(size: int, generator: torch.Generator) -> Tensor:
    plates = torch.zeros(N_PLATES, 1, size * size)
    n_stars = max(4, size * size // 160)
    where = torch.randint(size * size, (N_PLATES, 1, n_stars), generator=generator)
    plates.scatter_(2, where, torch.rand(N_PLATES, 1, n_stars, generator=generator))
    return plates.reshape(N_PLATES, 1, size, size)


def _detail(name: str, size: int, generator: torch.Generator) -> Tensor:
    """What makes a background itself: (N_PLATES, 1, size, size) to add, in [0, 1] units."""
    if name == "sand":  # ripples
        y = torch.arange(size).view(1, 1, size, 1) / size
        bend = _clouds(size, (2, 3), generator)
        return 0.035 * torch.sin(55 * y + 2.2 * bend) + 0.012 * _clouds(size, (24, 24), generator)
    if name == "grass":  # upright blades
        return 0.055 * _clouds(size, (8, 32), generator)
    if name == "sky":  # a few clouds
        return 0.11 * _clouds(size, (4, 2), generator).clamp(0, 1)
    if name == "stone":  # mottled
        return 0.035 * _clouds(size, (16, 16), generator) + 0.03 * _clouds(size, (4, 4), generator)
    if name == "dusk":  # long bands of cloud
        return 0.05 * _clouds(size, (10, 1), generator)
    return 0.55 * _stars(size, generator)


@lru_cache(maxsize=8)
def plates(size: int) -> Tensor:
    """float32 (n_backgrounds, N_PLATES, 3, size, size) in [0, 1]; order of `BACKGROUNDS`."""
    generator = torch.Generator().manual_seed(20_240_531)
    weight = torch.linspace(0, 1, size).view(1, size, 1)
    made = []
    for name in BACKGROUNDS:
        top, bottom = (torch.tensor(c).view(3, 1, 1) / 255 for c in GRADIENTS[name])
        gradient = top * (1 - weight) + bottom * weight  # (3, size, 1)
        made.append((gradient + _detail(name, size, generator)).clamp(0, 1))
    return torch.stack(made)
