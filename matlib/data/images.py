"""Image files to pixels: one way, for whatever a folder of photographs may hold.

Source of both geometries: open_clip's preprocessing, `Resize` and `CenterCrop` of torchvision on
a PIL image (tests hold the two together). A name that captions give is brought to one spelling
and found on disk (`find_images`).
"""

from __future__ import annotations

import os
import posixpath
import struct
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from matlib.data.strict import check_whole

Fit = Literal["crop", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

# Only decoders that parse pixels: PIL would hand an EPS file to an external interpreter.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# PIL's own limit, kept here so that nobody's global setting lifts it.
MAX_PIXELS = 89_478_485
# Beyond this ratio of the sides the ends never reach the centre crop; resizing them first
# would ask for gigabytes (a 1 x 50,000 image becomes 224 x 11,200,000).
_MAX_ASPECT = 16
# What PIL's decoders are known to raise on damaged input. `Warning` is here because a
# program may turn warnings into errors, as our tests do.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Warning,
    Image.DecompressionBombError,
)


class CorruptImageError(ValueError):
    """An image file that exists but cannot be turned into pixels; the message names it."""


def decode_image(
    path: Path, size: int, mode: Fit = "crop", interpolation: Interpolation = "bicubic"
) -> Tensor:
    """Read one image file as 8-bit RGB of a fixed size.

    Grayscale, palette, CMYK and 16-bit images become RGB; what is transparent shows white;
    the EXIF orientation is applied; of an animation the first frame counts.

    Args:
        path: an image file.
        size: side of the result in pixels, >= 1.
        mode: `crop` scales the short side to `size` and keeps the centre, as CLIP does;
            `squash` scales both sides to `size` and loses the aspect ratio.
        interpolation: of the scaling; CLIP's is bicubic.

    Returns:
        uint8 (3, size, size), values 0 to 255.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptImageError: truncated, damaged, no image, or too large to be a photograph.
    """
    if size < 1:
        raise ValueError(f"image size must be at least 1 pixel, got {size}")
    if mode not in ("crop", "squash"):
        raise ValueError(f"image mode must be 'crop' or 'squash', got {mode!r}")
    if interpolation not in ("bicubic", "bilinear"):
        raise ValueError(f"interpolation must be 'bicubic' or 'bilinear', got {interpolation!r}")
    image = _fit(_open_rgb(path), size, mode, Image.Resampling[interpolation.upper()])
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _open_rgb(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise CorruptImageError(
                    f"{path}: {width} x {height} pixels is more than the {MAX_PIXELS:,} allowed "
                    "(a possible decompression bomb); scale the image down or remove it"
                )
            image.load()
            return _to_rgb(_upright(image))
    except (FileNotFoundError, PermissionError, IsADirectoryError, CorruptImageError):
        raise
    except _DECODER_ERRORS as error:
        raise CorruptImageError(
            f"{path}: cannot be decoded as an image ({error}); "
            "fetch the file again or remove it from the data set"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DECODER_ERRORS:
        # Damaged EXIF beside sound pixels is common in photographs from the web.
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _sixteen_to_eight_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; store 8 or 16 bits")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    """Grayscale `I;16*`, or `I` holding 16-bit values, to `L`; PIL's own convert would clip."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError("32-bit integer pixels have no agreed range; store 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _fit(image: Image.Image, size: int, mode: Fit, resample: Image.Resampling) -> Image.Image:
    if mode == "squash":
        return image.resize((size, size), resample)
    image = _trim_long_side(image)
    width, height = image.size
    if width <= height:
        scaled = (size, int(size * height / width))
    else:
        scaled = (int(size * width / height), size)
    image = image.resize(scaled, resample)
    left, top = (round((side - size) / 2.0) for side in scaled)
    return image.crop((left, top, left + size, top + size))


def _trim_long_side(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = _MAX_ASPECT * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def one_spelling(names: Sequence[str], captions: Path) -> list[str]:
    """The names, each in one spelling: `a/../i0.png`, `./i0.png` and `i0.png` are the same file.

    Raises:
        ValueError: a name outside the folder of images, or two of the same image.
    """
    found: dict[str, str] = {}
    for given in names:
        name = _place(given, captions)
        if name in found:
            raise ValueError(
                f"{captions}: {found[name]!r} and {given!r} name the same image; give it one "
                "entry with all its captions"
            )
        found[name] = given
    return list(found)


def find_images(folder: Path, names: Sequence[str], captions: Path) -> tuple[Path, ...]:
    """The files of the names, all of them looked for before any is opened.

    Raises:
        FileNotFoundError: some are missing.
        ValueError: two names of one file, or a name that this system cannot spell.
    """
    found = {name: _on_disk(folder, name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise FileNotFoundError(
            f"{captions} has captions for {len(missing):,} of {len(names):,} images that are not "
            f"in {folder}, e.g. {', '.join(missing[:3])}"
        )
    paths = tuple(path for path in found.values() if path is not None)
    _refuse_same_file(names, paths, captions)
    return paths


def _place(given: str, captions: Path) -> str:
    """The name with `/` between folders, without `.` and `..`, in composed characters."""
    check_whole(given, f"{captions}: the name of an image")
    name = posixpath.normpath(given.replace("\\", "/"))
    is_outside = name.startswith("/") or name.split("/")[0] in (".", "..")
    if is_outside or PureWindowsPath(name).drive or "\0" in name:
        raise ValueError(f"{captions}: {given!r} must name a file below the folder of images")
    return unicodedata.normalize("NFC", name)


def _on_disk(folder: Path, name: str) -> Path | None:
    """The file of that name; some systems store `é` as two characters."""
    for spelt in (name, unicodedata.normalize("NFD", name)):
        try:
            os.fsencode(spelt)
        except UnicodeEncodeError as error:
            raise ValueError(
                f"file names are read here as {error.encoding}, which does not hold {name!a}: "
                "set PYTHONUTF8=1 and start again"
            ) from None
        try:
            if (folder / spelt).is_file():
                return folder / spelt
        except OSError:  # a name that is too long for any file
            return None
    return None


def _refuse_same_file(names: Sequence[str], paths: Sequence[Path], captions: Path) -> None:
    """Where capitals do not count, `I0.png` and `i0.png` are one file."""
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        before = first.setdefault(name.casefold(), i)
        if before != i and paths[before].samefile(paths[i]):
            raise ValueError(
                f"{captions}: {names[before]!r} and {name!r} name the same image; give it one "
                "entry with all its captions"
            )
