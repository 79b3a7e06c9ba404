"""Pictures: images beside their adversarial versions, their captions, their neighbours.

Tiles are placed to the pixel, so that a small image is enlarged by a whole factor and looks
as the model sees it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from matlib.analysis.as_text import drawable
from matlib.analysis.figures.sentences import marked_text
from matlib.analysis.figures.style import DPI, GREEN, WIDTH, label_of, nothing, styled

GAP = 6  # pixels between tiles
LINE = 20  # pixels per line of text
TEXT_LINES = 6  # of a text below a picture
_TOP = 6  # pixels above the first thing


@dataclass(frozen=True)
class Shelf:
    """What one caption finds before and after an attack.

    Attributes:
        caption, attacked_caption: the query before and after.
        before, after: float (k, 3, H, W) in [0, 1], the first images found, best first.
        is_right_before, is_right_after: k booleans, whether the caption is true of each.
    """

    caption: str
    attacked_caption: str
    before: Tensor
    after: Tensor
    is_right_before: tuple[bool, ...]
    is_right_after: tuple[bool, ...]


@styled
def captioned_pictures(pixels: Tensor, captions: Sequence[str], *, n_columns: int = 5) -> Figure:
    """Images in a grid with a caption under each.

    Args:
        pixels: float (N, 3, H, W) in [0, 1].
        captions: N strings.
        n_columns: images per line.

    Raises:
        ValueError: not one caption per image.
    """
    if len(pixels) != len(captions):
        raise ValueError(f"{len(pixels)} images need as many captions; got {len(captions)}")
    step = WIDTH * DPI // n_columns
    side = tile_side(pixels, step - 2 * GAP)
    wrapped = [textwrap.wrap(caption, step // 9) for caption in captions]
    cell = side + LINE * max(map(len, wrapped)) + 2 * GAP
    n_lines = -(-len(pixels) // n_columns)
    page = _Page(n_lines * cell)
    for i, (image, lines) in enumerate(zip(pixels, wrapped, strict=True)):
        left, top = i % n_columns * step, i // n_columns * cell
        page.tile(left + (step - side) // 2, top, side, image)
        page.text(left + step / 2, top + side + 4, "\n".join(lines), size=10, ha="center")
    return page.figure


@styled
def one_to_many_pictures(images: Tensor, captions: Sequence[str]) -> Figure:
    """One original with its variants: the images in a row, the captions below as a list.

    Args:
        images: float (R, 3, H, W) in [0, 1]; the first is the original.
        captions: the original caption, then the others.
    """
    step = WIDTH * DPI // max(len(images), 5)
    side = tile_side(images, step - 2 * GAP)
    lines = [line for caption in captions for line in textwrap.wrap(f"– {caption}", 95)]
    page = _Page(2 * LINE + side + (LINE + 2) * len(lines))
    for i, image in enumerate(images):
        page.text(i * step, 0, "original" if i == 0 else f"variant {i}", size=11)
        page.tile(i * step, LINE, side, image)
    for i, line in enumerate(lines):
        page.text(0, 1.5 * LINE + side + i * (LINE + 2), line, size=11)
    return page.figure


def amplification(eps_255: float) -> int:
    """Largest whole factor at which a difference of `eps_255` / 255 still fits around grey."""
    return max(1, int(127.5 / eps_255)) if eps_255 > 0 else 1


@styled
def adversarial_pictures(
    clean: Tensor, adversarial: Tensor, *, eps_255: float, attack: str
) -> Figure:
    """Clean, adversarial and amplified difference, one column per image.

    Args:
        clean, adversarial: float (N, 3, H, W) in [0, 1].
        eps_255: budget, which sets the factor of the difference (written beside it).
        attack: name of the attack, for the heading.

    Raises:
        ValueError: different shapes.
    """
    if clean.shape != adversarial.shape:
        raise ValueError(
            "expected as many clean as adversarial images of one size; got "
            f"{tuple(clean.shape)} and {tuple(adversarial.shape)}"
        )
    factor = amplification(eps_255)
    difference = (0.5 + factor * (adversarial - clean)).clamp(0, 1)
    margin = 112
    side = tile_side(clean, (WIDTH * DPI - margin) // max(len(clean), 6) - GAP)
    labels = ("clean", "adversarial", f"difference\n× {factor}")
    page = _Page(int(1.5 * LINE) + 3 * (side + GAP))
    heading = f"attack: {label_of(attack, 'attack')}; every pixel stays within {eps_255:g}/255"
    page.text(margin, 0, heading + "; grey in the difference: no change", size=11)
    for line, (label, images) in enumerate(
        zip(labels, (clean, adversarial, difference), strict=True)
    ):
        top = int(1.5 * LINE) + line * (side + GAP)
        page.text(margin - 8, top + side / 2, label, ha="right", va="center")
        for i, image in enumerate(images):
            page.tile(margin + i * (side + GAP), top, side, image)
    return page.figure


@dataclass(frozen=True)
class TaskPicture:
    """An image with what a model says of it.

    Attributes:
        pixels: float (3, H, W) in [0, 1].
        text: under it: a caption, or the phrase that was asked for.
        heat: (h, w), where the phrase was found; None for captions.
        box: (4,), where it is: left, top, right, bottom in fractions of the sides.
    """

    pixels: Tensor
    text: str
    heat: Tensor | None = None
    box: Tensor | None = None


@styled
def task_strip(lines: Mapping[str, Sequence[TaskPicture]]) -> Figure:
    """Lines of images, each with its text, over some the heat map (bright: hot) and the true box.

    Args:
        lines: label -> as many pictures as every other line has.

    Raises:
        ValueError: lines of different lengths.
    """
    if not lines:
        return nothing("no pictures: this study has no other tasks")
    if len({len(each) for each in lines.values()}) != 1:
        raise ValueError(f"lines of as many pictures each; got {[*map(len, lines.values())]}")
    margin, n = 130, len(next(iter(lines.values())))
    step = (WIDTH * DPI - margin) // n
    first = next(iter(lines.values()))[0].pixels
    side = tile_side(first[None], min(step - 2 * GAP, 160))
    # a writer that has not learnt to stop goes on for as long as it may
    lined = partial(textwrap.wrap, width=step // 8, max_lines=TEXT_LINES, placeholder=" …")
    wrapped = {label: [lined(each.text) for each in own] for label, own in lines.items()}
    block = side + LINE * max(len(own) for each in wrapped.values() for own in each) + 2 * GAP
    page = _Page(len(lines) * block)
    for i, (label, pictures) in enumerate(lines.items()):
        page.text(margin - 8, i * block + side / 2, label, ha="right", va="center")
        for j, picture in enumerate(pictures):
            left = margin + j * step
            axis = page.tile(left, i * block, side, picture.pixels)
            page.text(left, i * block + side + 4, "\n".join(wrapped[label][j]), size=10)
            _over(axis, picture)
    return page.figure


def _over(axis: Axes, picture: TaskPicture) -> None:
    size = picture.pixels.shape[-1]
    if picture.heat is not None:
        warm = picture.heat.clamp_min(0)
        fine = F.interpolate(warm[None, None], size=(size, size), mode="bilinear")[0, 0]
        axis.imshow(fine.numpy(), cmap="inferno", alpha=0.55, aspect="auto")
    if picture.box is not None:
        left, top, right, bottom = (size * picture.box - 0.5).tolist()
        corner, sides = (left, top), (right - left, bottom - top)
        axis.add_patch(Rectangle(corner, *sides, fill=False, color=GREEN, linewidth=2))


@styled
def retrieval_strip(shelves: Sequence[Shelf], *, n_gallery: int) -> Figure:
    """What captions find before and after the attack; right images are framed.

    Args:
        shelves: one per query caption, all with the same number of images.
        n_gallery: images that were searched.
    """
    if not shelves:
        return nothing("no query to draw here")
    k, margin = len(shelves[0].before), 70
    step = (WIDTH * DPI - margin) // max(k, 5)
    side = tile_side(shelves[0].before, step - 2 * GAP)
    block = LINE + side + 2 * GAP
    page = _Page(int(1.5 * LINE) + 2 * len(shelves) * block)
    heading = f"first {k} of {n_gallery} images, best first; framed: the caption is true of it"
    page.text(margin, 0, heading, size=11)
    for q, shelf in enumerate(shelves):
        marked = marked_text(shelf.caption, shelf.attacked_caption)
        for half, (label, text, images, is_right) in enumerate(
            (
                ("before", shelf.caption, shelf.before, shelf.is_right_before),
                ("after", marked, shelf.after, shelf.is_right_after),
            )
        ):
            top = int(1.5 * LINE) + (2 * q + half) * block
            page.text(margin, top, _in_a_line(text), size=11)
            page.text(margin - 8, top + LINE + side / 2, label, ha="right", va="center")
            for i, (image, right) in enumerate(zip(images, is_right, strict=True)):
                page.tile(margin + i * step, top + LINE, side, image, is_framed=right)
    return page.figure


def _in_a_line(text: str, n: int = 92) -> str:
    """The beginning of a text, cut between words if there are any."""
    line = " ".join(text.split())
    return line if len(line) <= n else line[: n - 1].rsplit(" ", 1)[0] + " …"


def tile_side(images: Tensor, room: int) -> int:
    """Side in pixels at which images (N, 3, H, W) are shown in `room` pixels.

    The largest whole multiple of their own side that fits, or `room` for larger ones.
    """
    own = int(images.shape[-1])
    return max(1, room // own) * own if own <= room else room


class _Page:
    """A figure of the common width on which things are placed in pixels from the top left."""

    def __init__(self, height: int) -> None:
        self.width, self.height = WIDTH * DPI, _TOP + height + GAP
        self.figure = plt.figure(figsize=(WIDTH, self.height / DPI), layout="none")

    def tile(
        self, left: float, top: float, side: int, image: Tensor, *, is_framed: bool = False
    ) -> Axes:
        """One float (3, H, W) image in [0, 1]."""
        bottom = self.height - _TOP - top - side
        axis = self.figure.add_axes(
            (left / self.width, bottom / self.height, side / self.width, side / self.height)
        )
        axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), aspect="auto")
        axis.set_xticks([])
        axis.set_yticks([])
        for edge in axis.spines.values():
            edge.set(visible=is_framed, color=GREEN, linewidth=4)
        return axis

    def text(
        self, left: float, top: float, text: str, *, size: int = 12, ha: str = "left",
        va: str = "top",
    ) -> None:  # fmt: skip
        x, y = left / self.width, 1 - (_TOP + top) / self.height
        self.figure.text(x, y, drawable(text), fontsize=size, ha=ha, va=va)
