"""How scenes look: outlines of shapes, colours and patterns of objects, plates of backgrounds.

A shape lives in a square of side 2 around the origin (x right, y down). Its table holds the
signed distance (negative inside, in units of its radius) on a grid over [-REACH, REACH]².
Rendering is then a look-up, the same for every shape. Plates are a small bank of soft,
recognisable backgrounds, made once.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.scenes.lexicon import BACKGROUNDS, COLOURS, SHAPES

TABLE_SIZE = 192
REACH = 2.0

Points = list[tuple[float, float]]


def _polar(radii: list[float], turn: float = 0.0) -> Points:
    n = len(radii)
    angles = [2 * math.pi * i / n + math.radians(turn) - math.pi / 2 for i in range(n)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart() -> Points:
    turns = [2 * math.pi * i / 64 for i in range(64)]
    return [
        (
            math.sin(t) ** 3 * 0.98,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15.5
            - 0.1,
        )
        for t in turns
    ]


def _moon() -> Points:
    outer = [(math.cos(a), math.sin(a)) for a in _arc(50, 310)]
    inner = [(0.5 + 0.8 * math.cos(a), 0.8 * math.sin(a)) for a in _arc(280, 80)]
    return [(1.06 * x + 0.12, 1.06 * y) for x, y in outer + inner]


def _arc(start: float, end: float, n: int = 28) -> list[float]:
    return [math.radians(start + (end - start) * i / (n - 1)) for i in range(n)]


_T = 0.34  # half the width of the cross's bars
OUTLINES: dict[str, Points] = {
    "circle": _polar([0.92] * 48),
    "square": _polar([1.16] * 4, 45),
    "triangle": [(0.0, -0.95), (1.0, 0.8), (-1.0, 0.8)],
    "diamond": [(0.0, -1.14), (0.84, 0.0), (0.0, 1.14), (-0.84, 0.0)],
    "hexagon": _polar([1.0] * 6, 30),
    "star": _polar([1.1, 0.48] * 5),
    "cross": [
        (-_T, -1.0), (_T, -1.0), (_T, -_T), (1.0, -_T), (1.0, _T), (_T, _T),
        (_T, 1.0), (-_T, 1.0), (-_T, _T), (-1.0, _T), (-1.0, -_T), (-_T, -_T),
    ],
    "ring": _polar([0.7] * 48),  # the middle of the band; see `_distance`
    "heart": _heart(),
    "moon": _moon(),
    "arrow": [
        (1.08, 0.0), (0.14, -0.92), (0.14, -0.36), (-1.0, -0.36),
        (-1.0, 0.36), (0.14, 0.36), (0.14, 0.92),
    ],
    "bolt": [
        (0.42, -1.15), (-0.92, 0.26), (-0.16, 0.26), (-0.42, 1.15), (0.92, -0.38), (0.12, -0.38),
    ],
}  # fmt: skip
RING_HALF_WIDTH = 0.29


def polygon_distance(points: Tensor, outline: Tensor) -> Tensor:
    """Signed distance (P,) of points (P, 2) to a closed polygon (V, 2), negative inside."""
    start, end = outline, outline.roll(-1, 0)
    edge = end - start  # (V, 2)
    offset = points[:, None] - start  # (P, V, 2)
    along = ((offset * edge).sum(-1) / (edge * edge).sum(-1)).clamp(0, 1)
    distance = (offset - along[..., None] * edge).norm(dim=-1).amin(1)
    above_start = points[:, None, 1] >= start[:, 1]
    above_end = points[:, None, 1] >= end[:, 1]
    side = edge[:, 0] * offset[..., 1] - edge[:, 1] * offset[..., 0]
    crossing = (above_start & ~above_end & (side > 0)) | (~above_start & above_end & (side < 0))
    return torch.where(crossing.sum(1) % 2 == 1, -distance, distance)


@lru_cache(maxsize=1)
def distance_tables() -> Tensor:
    """float32 (n_shapes, TABLE_SIZE, TABLE_SIZE), rows along y, in the order of `SHAPES`."""
    axis = (torch.arange(TABLE_SIZE) + 0.5) / TABLE_SIZE * 2 * REACH - REACH
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x, y], -1).reshape(-1, 2)
    tables = []
    for shape in SHAPES:
        distance = polygon_distance(points, torch.tensor(OUTLINES[shape]))
        if shape == "ring":
            distance = distance.abs() - RING_HALF_WIDTH
        tables.append(distance.reshape(TABLE_SIZE, TABLE_SIZE))
    return torch.stack(tables)


PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (212, 46, 52),
    "orange": (243, 137, 32),
    "yellow": (250, 218, 62),
    "green": (52, 142, 72),
    "cyan": (60, 198, 206),
    "blue": (44, 84, 196),
    "purple": (126, 62, 172),
    "pink": (245, 138, 188),
    "white": (250, 249, 245),
    "black": (34, 34, 40),
}
# The second tone of striped, dotted and checkered objects.
ACCENTS: dict[str, tuple[int, int, int]] = {
    "red": (255, 176, 170),
    "orange": (176, 78, 8),
    "yellow": (214, 152, 20),
    "green": (158, 216, 160),
    "cyan": (14, 118, 134),
    "blue": (150, 184, 250),
    "purple": (214, 172, 240),
    "pink": (200, 56, 122),
    "white": (176, 178, 190),
    "black": (140, 140, 152),
}
_BASE = torch.tensor([PALETTE[c] for c in COLOURS]) / 255
_ACCENT = torch.tensor([ACCENTS[c] for c in COLOURS]) / 255
_IS_BLACK = torch.tensor([c == "black" for c in COLOURS])
_LUMA = torch.tensor([0.299, 0.587, 0.114])


def paint(
    attributes: Tensor, looks: list[Tensor], u: Tensor, v: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Fill colour (B, crop, crop, 3) with the object's pattern, and outline colour (B, 3)."""
    phase, tilt, jitter = looks
    base = _BASE[attributes[:, 1]] + jitter
    accent = _ACCENT[attributes[:, 1]] + jitter
    black = _IS_BLACK[attributes[:, 1], None]
    edge = torch.where(black, base + 0.3, 0.45 * base)
    amount = _pattern(attributes[:, 2], phase, tilt, u, v, scale)
    fill = base[:, None, None, :] + amount[..., None] * (accent - base)[:, None, None, :]
    return fill, edge


def _pattern(
    texture: Tensor, phase: Tensor, tilt: Tensor, u: Tensor, v: Tensor, scale: Tensor
) -> Tensor:
    """Share of the accent colour in [0, 1], (B, crop, crop); order plain, striped, dotted, …"""
    turn = tilt + torch.where(texture == 1, math.radians(35.0), 0.0)
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    period = torch.tensor([1.0, 0.62, 0.66, 0.86])[texture][:, None, None]  # radii
    a = (cos * u + sin * v) / period + phase[:, :1, None]
    b = (cos * v - sin * u) / period + phase[:, 1:, None]
    ca, cb = (2 * math.pi * a).cos(), (2 * math.pi * b).cos()
    sharp = period * scale / math.pi  # anti-aliasing: about one pixel from 0 to 1
    striped = (0.5 + 0.5 * sharp * ca).clamp(0, 1)
    dotted = (0.5 + 0.5 * sharp * (ca + cb - 0.55)).clamp(0, 1)
    checkered = (0.5 + sharp * ca * cb).clamp(0, 1)
    amount = torch.zeros_like(striped)
    for index, pattern in ((1, striped), (2, dotted), (3, checkered)):
        amount = torch.where((texture == index)[:, None, None], pattern, amount)
    return amount


def shifted_palette(canvas: Tensor, amount: float) -> Tensor:
    """Colours turned about the grey axis by 40° × amount and a third less saturated at 1."""
    if amount == 0:
        return canvas
    turn = math.radians(40) * amount
    grey = torch.full((3, 3), 1 / 3)
    axis = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rotation = math.cos(turn) * torch.eye(3) + (1 - math.cos(turn)) * grey + math.sin(turn) * axis
    luma = _LUMA.expand(3, 3)
    mix = rotation @ (torch.eye(3) + amount / 3 * (luma - torch.eye(3)))
    return torch.einsum("ij,njhw->nihw", mix, canvas).clamp_(0, 1)


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
