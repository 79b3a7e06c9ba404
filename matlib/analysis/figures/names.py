"""Names beside points, where they cover neither each other nor anything drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

_PLACES = [(0, 14, "center"), (0, -22, "center")]
_PLACES += [(x, y, "left" if x > 0 else "right") for y in (9, -18, -4) for x in (13, -13)]
_PLACES += [(x, y, "left" if x > 0 else "right") for y in (24, -34) for x in (6, -6)]
_PLACES += [(0, y, "center") for y in (38, -46, 54, -62)]
_PLACES += [(x, y, "left" if x > 0 else "right") for y in (46, -54, 70, -78) for x in (16, -16)]

_FAR = 24
"""Pixels above or below from which on a line ties a name to its point."""

_OVER_A_LINE = 0.1
"""Cost of a name on a line; on another name or mark it is 1."""

_NEARER_ANOTHER = 0.5
"""Cost of a name that lies nearer to another point than to its own."""


def place_names(
    figure: Figure,
    axis: Axes,
    points: np.ndarray,
    names: Sequence[str],
    taken: Sequence[Bbox] = (),
) -> None:
    """Write the name of each point at the first place around it that is free.

    Args:
        figure: with everything else drawn already.
        axis: where the points are.
        points: (P, 2), in data coordinates.
        names: P names.
        taken: further boxes to keep free, in pixels; points, lines and texts of the axis are.
    """
    figure.draw_without_rendering()
    spots = axis.transData.transform(points)
    marks = [Bbox.from_bounds(x - 9, y - 9, 18, 18) for x, y in spots]
    lines = [line.get_window_extent() for line in axis.lines]
    full = [*taken, *(text.get_window_extent() for text in axis.texts)]
    for i, (point, spot, name) in enumerate(zip(points, spots, names, strict=True)):
        tried = [
            axis.annotate(name, spot, (dx, dy), xycoords="figure pixels", fontsize=11, ha=ha,
                          textcoords="offset pixels")
            for dx, dy, ha in _PLACES
        ]  # fmt: skip
        # a margin, because text is a little wider once it is drawn at print resolution
        boxes = [text.get_window_extent().padded(12, 2) for text in tried]
        others = full + marks[:i] + marks[i + 1 :]  # every place keeps clear of its own point
        covered = [sum(bool(box.overlaps(other)) for other in others) for box in boxes]
        is_outside = [box.x0 < axis.bbox.x0 or box.x1 > axis.bbox.x1 for box in boxes]
        crossed = [sum(bool(box.overlaps(line)) for line in lines) for box in boxes]
        cost = [
            n + _OVER_A_LINE * m + _NEARER_ANOTHER * (_nearest(box, spots) != i) + len(others) * out
            for box, n, m, out in zip(boxes, covered, crossed, is_outside, strict=True)
        ]
        best = cost.index(min(cost))
        full.append(boxes[best])
        for text in tried:
            text.remove()
        dx, dy, ha = _PLACES[best]
        is_far = abs(dy) > _FAR
        axis.annotate(
            name, point, (dx * 0.72, dy * 0.72), ha=ha, fontsize=11, textcoords="offset points",
            arrowprops={"arrowstyle": "-", "lw": 0.8, "shrinkB": 7} if is_far else None,
        )  # fmt: skip


def _nearest(box: Bbox, spots: np.ndarray) -> int:
    """Which point is nearest to a box, both in pixels."""
    x = np.clip(spots[:, 0], box.x0, box.x1) - spots[:, 0]
    y = np.clip(spots[:, 1], box.y0, box.y1) - spots[:, 1]
    return int(np.hypot(x, y).argmin())
