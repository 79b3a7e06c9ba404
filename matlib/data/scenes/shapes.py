"""Outlines of the shapes, and their signed distances tabulated once.

A shape lives in a square of side 2 around the origin (x right, y down). Its table holds the
signed distance (negative inside, in units of its radius) on a grid over [-REACH, REACH]².
Rendering is then a look-up, the same for every shape.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from matlib.data.scenes.lexicon import SHAPES

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
