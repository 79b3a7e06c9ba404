"""How all figures look: sizes, fonts, colours, and the names that a reader sees, kept apart."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from matlib.analysis.as_text import drawable
from matlib.augmentations.table import TECHNIQUES
from matlib.evaluation.suite import ATTACKS

P = ParamSpec("P")

WIDTH, DPI = 8, 100
"""Inches, and dots per inch: together the text column of a notebook."""

STYLE: Any = {
    "figure.dpi": DPI,
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 12,
    "legend.fontsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
}

TEXT: Any = {
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
}
"""Captions and names are text: a dollar in them begins no formula."""

# Okabe & Ito 2008, told apart with any colour vision
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#767676"
INDIGO = "#332288"  # of Tol 2021: beside the sky blue of image-only AT a light blue was lost

_DEFENCES: dict[str, tuple[str, str]] = {
    "base": ("undefended", "#4D4D4D"),
    "clean": ("clean fine-tuning", "#AAAAAA"),
    "image-at": ("image-only AT", SKY),
    "text-at": ("text-only AT", PURPLE),
    "text-at-valid": ("text-only AT, true words", "#E3BAD2"),
    "tecoa": ("TeCoA", ORANGE),
    "image-at-tower": ("image-only AT, image tower", "#A9D5F0"),
    "fare": ("FARE", YELLOW),
    "pmg-aft": ("PMG-AFT", "#B8860B"),
    "mmcoa": ("MMCoA", GREEN),
    "leaf": ("LEAF", "#8C6BB1"),
    "fare+leaf": ("FARE + LEAF", "#882255"),
    "image-at+random": ("image-only AT, random words", "#7F9FB5"),
    "clean+random": ("random words", "#C8C8C8"),
    "image-at+random-valid": ("image-only AT, random true words", "#4F6F85"),
    "mmcoa-valid": ("MMCoA, true words", "#66BFA5"),
    "fare+leaf-valid": ("FARE + LEAF, true words", "#B56A80"),
    "advflyp": ("AdvFLYP", "#A0522D"),
    "mava": ("MAVA", "#708238"),
    "mat": ("MAT", INDIGO),
    "mat-valid": ("MAT, true words", BLUE),
    "mat+": ("MAT+", VERMILLION),
    "mat+set": ("MAT+, set-level attack", "#E0885A"),
}

_SIDES = {"image": SKY, "words": PURPLE, "both": BLUE}

_PLUS_COLOURS = (VERMILLION, GREEN, YELLOW)

_WORDS = {
    "clean": "no attack",
    **{name: attack.shown.label or name for name, attack in ATTACKS.items()},
    "worst": "worst of all",
    "bert_true": "a true word",
    "typo": "a typo",
    "bert_free": "any word",
    "bert_similar": "a similar word",
    "true_known": "true words, known in training",
    "true_held_out": "true words, held out",
    "typo_held_out": "typos, held-out rule",
    **{name: technique.shown.label or name for name, technique in TECHNIQUES.items()},
}


@contextmanager
def drawing(settings: Any) -> Iterator[None]:
    """Under matplotlib's `settings`, whatever the caller's are; a box for what the font lacks."""
    with plt.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """The function drawing in the common style; where it has nothing to draw, see `nothing`."""

    @wraps(draw)
    def drawn(*arguments: P.args, **keywords: P.kwargs) -> Figure:
        with drawing({**STYLE, **TEXT}):
            figure = draw(*arguments, **keywords)
            for axes in figure.axes:  # those that share a scale make their labels late else
                axes.xaxis.get_major_ticks()
                axes.yaxis.get_major_ticks()
            return figure

    return drawn


def nothing(sentence: str) -> Figure:
    """What a drawing function gives for an empty table: a figure without axes, which says why.

    `show` then shows the sentence, and `save_figure` writes no file.
    """
    figure = Figure(figsize=(WIDTH, 0.5))
    figure.text(0, 0.5, sentence)
    return figure


def label_of(name: str, kind: str = "row") -> str:
    """The words for a row of the study, an attack, a threat or a technique.

    Args:
        name: as in the tables, e.g. `mat+.captions`, `worst`, `bert_true`.
        kind: `row` for models; anything else for attacks, threats and techniques.
    """
    if kind != "row":
        return _shown(_WORDS.get(name, name))
    defence, _, technique = name.partition(".")
    label = _DEFENCES.get(defence, (defence, ""))[0]
    return _shown(f"{label} {_WORDS.get(technique, technique)}".strip())


def _shown(label: str) -> str:
    """A name as it can be drawn; matplotlib leaves out of a legend what begins with `_`."""
    label = drawable(label)
    return f" {label}" if label.startswith("_") else label


def colour_of(name: str, rows: list[str] | None = None) -> str:
    """One colour per defence and per kind of attack, the same in every figure.

    Args:
        name: a row of the study, or an attack.
        rows: all rows of the figure, so that several kinds of MAT+ differ.
    """
    defence = name.partition(".")[0]
    if defence == "mat+" and rows is not None:
        plus = [row for row in rows if row.startswith("mat+")]
        return _PLUS_COLOURS[plus.index(name) % len(_PLUS_COLOURS)]
    if name in ATTACKS:
        return _SIDES[ATTACKS[name].sides]
    return VERMILLION if name == "worst" else _DEFENCES.get(defence, ("", GREY))[1]


def panels(n_columns: int, height: float, **keywords: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the common width with `n_columns` panels beside each other."""
    figure, axes = plt.subplots(1, n_columns, figsize=(WIDTH, height), squeeze=False, **keywords)
    return figure, list(axes[0])


@dataclass(frozen=True, repr=False)
class ShownFigure:
    """A picture at the end of a notebook's cell, as Jupyter asks for it; a script ignores it.

    Attributes:
        data: of a PNG.
        alt: the same in words.
    """

    data: bytes
    alt: str

    def __repr__(self) -> str:
        return f"<figure: {self.alt}>"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        encoded = base64.b64encode(self.data).decode()
        return {"image/png": encoded}, {"image/png": {"alt": self.alt}}


@dataclass(frozen=True, repr=False)
class Note:
    """A sentence at the end of a notebook's cell, where a figure or a table would be empty."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


def show(figure: Figure) -> ShownFigure | Note:
    """The figure for the end of a notebook's cell, as a small PNG with its text alternative.

    The figure is closed. One that holds nothing is shown as the sentence that says so.
    """
    if not figure.axes:
        return Note(in_words(figure))
    return ShownFigure(_png(figure, DPI), in_words(figure))


def table_or_note(
    table: pd.DataFrame, note: str = "no rows of this kind here"
) -> pd.DataFrame | Note:
    """The table for the end of a notebook's cell; where it has no row, the note."""
    return table if len(table) else Note(note)


MAX_WORDS = 60
"""Of a text alternative; what is longer is read in the table beside the figure."""


def in_words(figure: Figure) -> str:
    """What a figure says in letters, for who does not see it: titles, axes, names, numbers.

    >>> in_words(robustness_bars(...))
    'Recall left. a true word; mean of TR@1 and IR@1, %. undefended; MAT. 2; 5'
    """
    heads = [text.get_text() for text in figure.texts]
    axes = [axis for axis in figure.axes if axis.get_visible()]
    heads += [words for axis in axes for words in (axis.get_title(), axis.get_xlabel(),
                                                   axis.get_ylabel())]  # fmt: skip
    names = [tick.get_text() for axis in axes for tick in axis.get_yticklabels()]
    inside = [text.get_text() for axis in axes for text in axis.texts]
    parts = ["; ".join(dict.fromkeys(" ".join(t.split()) for t in part if t.strip()))
             for part in (heads, names, inside)]  # fmt: skip
    words = ". ".join(filter(None, parts)).split()
    return " ".join(words[:MAX_WORDS]) + (" …" if len(words) > MAX_WORDS else "")


def save_figure(figure: Figure, path: Path, dpi: int = 2 * DPI) -> ShownFigure | Note:
    """Write a figure as PNG, making its folder, and show it as `show` does.

    The file names no software version and no time, so equal figures are equal files. Of a figure
    that holds nothing there is none.

    Args:
        figure: closed afterwards.
        path: of the PNG.
        dpi: of the file.
    """
    if not figure.axes:
        return show(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _png(figure, dpi, close=False)
    if not path.is_file() or path.read_bytes() != content:  # the disk may be only read
        path.write_bytes(content)
    return show(figure)


def _png(figure: Figure, dpi: int, *, close: bool = True) -> bytes:
    """The figure with a palette of 256 colours, a fifth of the bytes of the full one.

    Maximum coverage keeps the colours of small things (an orange heart on grey stone), which
    a median cut gives up.
    """
    full, small = io.BytesIO(), io.BytesIO()
    with drawing(TEXT):
        figure.savefig(full, dpi=dpi, facecolor="white", format="png")
    if close:
        plt.close(figure)
    pixels = PIL.Image.open(full).convert("RGB")
    pixels.quantize(
        256, PIL.Image.Quantize.MAXCOVERAGE, kmeans=3, dither=PIL.Image.Dither.NONE
    ).save(small, "PNG", optimize=True)
    return small.getvalue()


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
