"""Colours and patterns of the objects."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matlib.data.scenes.lexicon import COLOURS

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
