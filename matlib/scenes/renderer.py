"""Rendering of scenes: anti-aliased objects on soft backgrounds, with dials for nuisance.

Everything is drawn on crops around the objects, many scenes at once. The viewpoint moves
objects analytically, so that nothing is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from matlib.scenes.lexicon import SIZES
from matlib.scenes.scene import MAX_OBJECTS, RADII, Scene, scene_arrays
from matlib.scenes.shapes import (
    N_PLATES,
    REACH,
    TABLE_SIZE,
    distance_tables,
    paint,
    plates,
    shifted_palette,
)

CHUNK = 128  # scenes drawn together; fixed, because it orders the random draws


@dataclass(frozen=True)
class Style:
    """How renderings of one scene vary. Strengths: 0 is off, 1 the default, 2 twice as much.

    Attributes:
        jitter: position of every object, uniform within ± 1.2 / 64 of the image's side.
        viewpoint: rotation of the whole scene (± 5°), zoom (± 5 %) and shift (± 1 / 64).
        lighting: linear gradient of brightness in a random direction (± 16 %) and overall
            brightness (± 8 %).
        texture: phase (whole period) and tilt (± 20°) of patterns, and the background's plate.
        colour: shift of every object's colour (standard deviation 5 / 255 per channel).
        noise: Gaussian noise per pixel and channel (standard deviation 4 / 255).
        occlusion: probability (0.35 × strength) of a grey bar of 2.5 × 28 / 64 over the picture.
        palette_shift: in [0, 1], how far all colours move towards another palette (a fixed
            rotation of hue by 40° at 1, greyish light): a shift of the distribution.
    """

    jitter: float = 1.0
    viewpoint: float = 1.0
    lighting: float = 1.0
    texture: float = 1.0
    colour: float = 1.0
    noise: float = 1.0
    occlusion: float = 1.0
    palette_shift: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            if not 0.0 <= getattr(self, item.name) <= 4.0:
                raise ValueError(
                    f"style.{item.name} is a strength in [0, 4]; got {getattr(self, item.name)}"
                )


def even_style(strength: float) -> Style:
    """A style in which every nuisance has the same strength."""
    return Style(*[strength] * 7)


PLAIN_STYLE = even_style(0)
_RADII = torch.tensor([RADII[size] for size in SIZES])


def render(
    scenes: Sequence[Scene],
    generator: torch.Generator | int,
    *,
    size: int = 64,
    style: Style | None = None,
) -> Tensor:
    """One rendering of each scene (repeat a scene for several).

    Args:
        scenes: N scenes.
        generator: CPU generator or int seed; same seed, same bytes.
        size: side of the image in pixels, at least 16.
        style: strengths of the nuisance; all 1 by default.

    Returns:
        uint8 (N, 3, size, size).
    """
    return render_with_boxes(scenes, generator, size=size, style=style)[0]


def render_with_boxes(
    scenes: Sequence[Scene],
    generator: torch.Generator | int,
    *,
    size: int = 64,
    style: Style | None = None,
) -> tuple[Tensor, Tensor]:
    """The same renderings, and where their objects lie in them.

    Returns:
        images as of `render`, and float32 (N, 3, 4): the smallest box (left, top, right, bottom)
        around the drawn pixels of each object, in fractions of the side; NaN for objects that
        the scene has not.
    """
    if size < 16:
        raise ValueError(f"size is at least 16 pixels; got {size}")
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    style = style or Style()
    out = torch.empty(len(scenes), 3, size, size, dtype=torch.uint8)
    boxes = torch.full((len(scenes), MAX_OBJECTS, 4), torch.nan)
    with _one_thread():
        for start in range(0, len(scenes), CHUNK):
            chunk, part = scenes[start : start + CHUNK], slice(start, start + CHUNK)
            out[part] = _render_chunk(chunk, generator, size, style, boxes[part])
    return out, boxes


@contextmanager
def _one_thread() -> Iterator[None]:
    """Many small operations: waiting for a second thread costs more than it brings."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform in [-1, 1)."""
    return 2 * torch.rand(*shape, generator=generator) - 1


def _render_chunk(
    scenes: Sequence[Scene], generator: torch.Generator, size: int, style: Style, boxes: Tensor
) -> Tensor:
    """uint8 images of up to `CHUNK` scenes; writes where their objects lie into `boxes`."""
    arrays = scene_arrays(scenes)
    n = len(scenes)
    canvas = _background(torch.from_numpy(arrays.backgrounds), generator, size, style)
    angle = math.radians(5) * style.viewpoint * _uniform(generator, n)
    zoom = 1 + 0.05 * style.viewpoint * _uniform(generator, n)
    shift = style.viewpoint / 64 * _uniform(generator, n, 1, 2)
    centres = torch.from_numpy(arrays.positions).float()
    centres = centres + 1.2 / 64 * style.jitter * _uniform(generator, n, 3, 2)
    centres = _view(centres - 0.5, angle, zoom) + 0.5 + shift
    present = torch.from_numpy(arrays.present)
    attributes = torch.from_numpy(arrays.attributes)
    looks = _looks(generator, n, style)
    for k in range(present.shape[1]):
        rows = present[:, k].nonzero().flatten()
        if len(rows):
            placed = _Placed(rows, centres[rows, k], angle[rows], zoom[rows])
            look = [x[rows, k] for x in looks]
            boxes[rows, k] = _draw(canvas, placed, attributes[rows, k], look, size) / size
    canvas = shifted_palette(canvas, style.palette_shift)
    canvas = _occluded(canvas, generator, style.occlusion)
    canvas = _lit(canvas, generator, style.lighting)
    if style.noise > 0:
        canvas += (4 / 255 * style.noise) * torch.randn(canvas.shape, generator=generator)
    return canvas.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _background(which: Tensor, generator: torch.Generator, size: int, style: Style) -> Tensor:
    """float32 (N, 3, size, size): a plate of each background, rolled and mirrored."""
    n = len(which)
    pick = torch.randint(N_PLATES, (n,), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5
    roll = torch.randint(size, (n,), generator=generator)
    if style.texture == 0:
        pick, mirrored, roll = (torch.zeros_like(x) for x in (pick, mirrored, roll))
    canvas = plates(size)[which, pick]
    columns = (torch.arange(size) + roll[:, None]) % size
    columns = torch.where(mirrored[:, None], size - 1 - columns, columns)
    return canvas.gather(3, columns[:, None, None, :].expand(n, 3, size, size))


def _view(points: Tensor, angle: Tensor, zoom: Tensor) -> Tensor:
    """points (N, K, 2) turned by `angle` and scaled by `zoom`, both (N,)."""
    cos, sin = (zoom * angle.cos())[:, None], (zoom * angle.sin())[:, None]
    x, y = points[..., 0], points[..., 1]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def _looks(generator: torch.Generator, n: int, style: Style) -> tuple[Tensor, Tensor, Tensor]:
    """Per object: pattern phase (n, 3, 2) in periods, tilt (n, 3) in radians, colour (n, 3, 3)."""
    phase = 0.5 * min(style.texture, 1.0) * _uniform(generator, n, 3, 2)
    tilt = math.radians(20) * style.texture * _uniform(generator, n, 3)
    colour = 5 / 255 * style.colour * torch.randn(n, 3, 3, generator=generator)
    return phase, tilt, colour


@dataclass(frozen=True)
class _Placed:
    """Where B objects go: image rows (B,), centres (B, 2) as fractions, angle and zoom (B,)."""

    rows: Tensor
    centres: Tensor
    angle: Tensor
    zoom: Tensor


def _draw(
    canvas: Tensor, placed: _Placed, attributes: Tensor, looks: list[Tensor], size: int
) -> Tensor:
    """Paint one object into each of B images of `canvas`, with outline and soft shadow.

    Returns:
        (B, 4): first and last column and line of each object, in pixels, the last ones excluded.
    """
    radius = _RADII[attributes[:, 3]] * placed.zoom * size  # pixels
    crop = min(size, 2 * math.ceil(float(_RADII.max()) * 1.32 * size) + 2)
    corner = (placed.centres * size - crop / 2).round().long().clamp(0, size - crop)  # (x, y)
    steps = torch.arange(crop)
    columns, lines = corner[:, :1] + steps, corner[:, 1:] + steps  # (B, crop)
    x = (columns + 0.5 - placed.centres[:, :1] * size)[:, None, :]
    y = (lines + 0.5 - placed.centres[:, 1:] * size)[:, :, None]
    cos = (placed.angle.cos() / radius)[:, None, None]
    sin = (placed.angle.sin() / radius)[:, None, None]
    u, v = cos * x + sin * y, cos * y - sin * x  # (B, crop, crop), units of the radius
    scale = radius[:, None, None]
    distance = _look_up(attributes[:, 0], u, v) * scale  # pixels
    unit = size / 64
    lift = 1.3 * unit / radius[:, None, None]
    shade = _look_up(attributes[:, 0], u - 0.6 * lift, v - lift) * scale
    index = (placed.rows[:, None, None], lines[:, :, None], columns[:, None, :])
    patch = canvas.permute(0, 2, 3, 1)[index]  # (B, crop, crop, 3)
    patch = patch * (1 - 0.30 * (0.5 - shade / (3.5 * unit)).clamp(0, 1))[..., None]
    fill, edge = paint(attributes, looks, u, v, scale)
    inside = (0.5 - distance)[..., None].clamp(0, 1)
    core = (0.5 - (distance + 1.1 * unit))[..., None].clamp(0, 1)
    patch = patch + inside * (edge[:, None, None, :] - patch)
    patch = patch + core * (fill - patch)
    canvas.permute(0, 2, 3, 1)[index] = patch
    drawn = inside[..., 0] > 0  # (B, crop, crop)
    ends = [_ends(drawn.any(axis)) + corner[:, axis - 1, None] for axis in (1, 2)]  # x, y
    return torch.stack(ends, 2).flatten(1)  # (B, 2, 2): first x and y, then last x and y


def _ends(marked: Tensor) -> Tensor:
    """bool (B, n) -> int64 (B, 2): the first marked place, and the one behind the last."""
    n = marked.shape[1]
    first, last = marked.int().argmax(1), n - marked.flip(1).int().argmax(1)
    return torch.stack([first, last], 1)


def _look_up(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance in radii at (u, v), each (B, crop, crop), for shapes (B,)."""
    half = TABLE_SIZE / (2 * REACH)
    column = ((u + REACH) * half).long().clamp_(0, TABLE_SIZE - 1)
    line = ((v + REACH) * half).long().clamp_(0, TABLE_SIZE - 1)
    flat = (shape[:, None, None] * TABLE_SIZE + line) * TABLE_SIZE + column
    return distance_tables().flatten()[flat]


def _occluded(canvas: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """A thin, short bar across some of the pictures, at any angle."""
    n, size = canvas.shape[0], canvas.shape[-1]
    has_bar = torch.rand(n, generator=generator) < 0.35 * strength
    angle = math.pi * torch.rand(n, generator=generator)
    centre = 0.3 * size * _uniform(generator, n, 2)
    grey = 0.25 + 0.5 * torch.rand(n, generator=generator)
    rows = has_bar.nonzero().flatten()
    axis = torch.arange(size) + 0.5 - size / 2
    x = axis - centre[rows, 0][:, None, None]
    y = axis[:, None] - centre[rows, 1][:, None, None]
    cos, sin = angle[rows].cos()[:, None, None], angle[rows].sin()[:, None, None]
    outside = torch.maximum(
        (cos * x + sin * y).abs() - 1.25 * size / 64, (cos * y - sin * x).abs() - 14 * size / 64
    )
    cover = (0.5 - outside).clamp(0, 1)[:, None]
    canvas[rows] += cover * (grey[rows][:, None, None, None] - canvas[rows])
    return canvas


def _lit(canvas: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Multiply by a linear gradient of light."""
    n, size = canvas.shape[0], canvas.shape[-1]
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    slope = 0.16 * strength * torch.rand(n, generator=generator)
    level = 1 + 0.08 * strength * _uniform(generator, n)
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    x = (slope * angle.cos())[:, None, None] * axis
    y = (slope * angle.sin())[:, None, None] * axis[:, None]
    return canvas.mul_((level[:, None, None] + x + y)[:, None])
