"""Any image a folder may hold is decoded or refused by name; geometry equals CLIP's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from matlib.data import images
from matlib.data.images import CorruptImageError, Fit, Interpolation, decode_image
from matlib.models.settings import Settings

PHOTO = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def flat(mode: str, colour: object, path: Path, **options: Any) -> Path:
    return save(Image.new(mode, (20, 20), colour), path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(37, 53), (53, 37), (40, 40), (41, 300), (9, 8), (1, 1), (3, 2)])
@pytest.mark.parametrize("size", [8, 33])
def test_crop_equals_clips_resize_and_centre_crop(
    tmp_path: Path, shape: tuple[int, int], size: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    path = save(Image.fromarray(pixels), tmp_path / "x.png")
    clip = Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(size)])
    expected = torch.from_numpy(np.array(clip(Image.open(path)))).permute(2, 0, 1)
    assert torch.equal(decode_image(path, size, "crop"), expected)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["crop", "squash"])
@pytest.mark.parametrize("shape", [(37, 53), (53, 37), (9, 8)])
def test_images_are_made_as_open_clip_makes_them(
    tmp_path: Path, shape: tuple[int, int], mode: Fit, interpolation: Interpolation
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    path = save(Image.fromarray(pixels), tmp_path / "x.png")
    settings = Settings(
        mean=(0.0,) * 3, std=(1.0,) * 3, image_mode=mode, interpolation=interpolation
    )
    theirs = image_transform_v2(PreprocessCfg(**settings.preprocessing(16)), is_train=False)
    decoded = decode_image(path, 16, mode, interpolation)
    assert torch.equal(decoded / 255, theirs(Image.open(path)))
    other = decode_image(path, 16, mode, "bilinear" if interpolation == "bicubic" else "bicubic")
    assert not torch.equal(decoded, other)


def test_squash_keeps_the_whole_image(tmp_path: Path) -> None:
    halves = np.zeros((10, 100, 3), dtype=np.uint8)
    halves[:, 50:] = 255
    decoded = decode_image(save(Image.fromarray(halves), tmp_path / "x.png"), 10, "squash")
    assert decoded.shape == (3, 10, 10)
    assert decoded[:, :, :4].max() == 0 and decoded[:, :, 6:].min() == 255


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "rgb"),
    [
        ("RGB", (200, 10, 60), "png", (200, 10, 60)),
        ("L", 90, "png", (90, 90, 90)),
        ("1", 1, "png", (255, 255, 255)),
        ("LA", (90, 255), "png", (90, 90, 90)),
        ("LA", (90, 0), "png", (255, 255, 255)),
        ("RGBA", (200, 10, 60, 0), "png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), "png", (255, 127, 127)),
        ("CMYK", (0, 255, 255, 0), "jpg", (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), "tiff", (0, 0, 0)),
        ("I;16", 0, "png", (0, 0, 0)),
        ("I;16", 65535, "png", (255, 255, 255)),
        ("I;16", 257 * 77, "tiff", (77, 77, 77)),
        ("I;16", 257 * 77 + 129, "png", (78, 78, 78)),
        ("I", 257 * 77, "tiff", (77, 77, 77)),
    ],
)
def test_every_pixel_mode_becomes_rgb(
    tmp_path: Path, mode: str, colour: object, suffix: str, rgb: tuple[int, int, int]
) -> None:
    decoded = decode_image(flat(mode, colour, tmp_path / f"x.{suffix}"), 5)
    assert decoded.dtype == torch.uint8 and decoded.shape == (3, 5, 5)
    error = decoded.int() - torch.tensor(rgb).view(3, 1, 1)
    assert int(error.abs().max()) <= 1  # JPEG and alpha rounding


def test_palette_image_shows_its_colours_and_transparency_shows_white(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (10, 0, 20, 20))
    opaque = decode_image(save(image, tmp_path / "opaque.png"), 20)
    clear = decode_image(save(image, tmp_path / "clear.png", transparency=1), 20)
    assert opaque[:, 0, 0].tolist() == [255, 0, 0] and opaque[:, 0, 19].tolist() == [0, 0, 255]
    assert clear[:, 0, 0].tolist() == [255, 0, 0] and clear[:, 0, 19].tolist() == [255, 255, 255]


def test_sixteen_bit_gradient_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    gradient = np.tile(np.arange(256, dtype=np.uint16) * 257, (256, 1))
    decoded = decode_image(save(Image.fromarray(gradient), tmp_path / "x.png"), 256)
    assert decoded[0, 0].tolist() == list(range(256))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn clockwise by 90 degrees to view
    stored = np.zeros((16, 16, 3), dtype=np.uint8)
    stored[:8] = 255  # white on top as stored, so on the right as seen
    decoded = decode_image(save(Image.fromarray(stored), tmp_path / "x.png", exif=exif), 16)
    assert decoded[:, :, 10:].min() == 255 and decoded[:, :, :6].max() == 0


def test_damaged_exif_beside_sound_pixels_is_ignored(tmp_path: Path) -> None:
    path = save(Image.fromarray(PHOTO), tmp_path / "x.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff")
    assert decode_image(path, 16).shape == (3, 16, 16)


def test_one_by_one_and_very_long_images_decode_alike_without_a_huge_intermediate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def recorded(self: Image.Image, size: tuple[int, int], *rest: Any) -> Image.Image:
        sizes.append(size)
        return resize(self, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    one = decode_image(flat("RGB", (9, 8, 7), tmp_path / "flat.png"), 32)
    for shape in [(1, 1), (30_000, 1), (1, 30_000)]:
        path = save(Image.new("RGB", shape, (9, 8, 7)), tmp_path / "x.png")
        assert torch.equal(decode_image(path, 32), one)
    assert max(max(size) for size in sizes) <= 16 * 32


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "gif"])
def test_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = save(Image.fromarray(PHOTO), tmp_path / f"cut.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptImageError, match=rf"cut\.{suffix}.*fetch the file again"):
        decode_image(path, 16)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_file_that_is_no_photograph_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.jpg"
    path.write_bytes(content)
    with pytest.raises(CorruptImageError, match=r"page\.jpg"):
        decode_image(path, 16)


def test_floating_point_and_32_bit_pixels_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(CorruptImageError, match="floating-point"):
        decode_image(flat("F", 0.5, tmp_path / "f.tiff"), 16)
    with pytest.raises(CorruptImageError, match="32-bit"):
        decode_image(flat("I", 70_000, tmp_path / "i.tiff"), 16)


def test_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(Image.fromarray(PHOTO), tmp_path / "bomb.png")
    monkeypatch.setattr(images, "MAX_PIXELS", PHOTO.shape[0] * PHOTO.shape[1] - 1)
    monkeypatch.setattr(Image.Image, "convert", None)  # pixels are never reached
    with pytest.raises(CorruptImageError, match=r"bomb\.png.*decompression bomb"):
        decode_image(path, 16)


def test_missing_file_and_bad_arguments_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode_image(tmp_path / "none.png", 16)
    path = flat("RGB", "red", tmp_path / "x.png")
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        decode_image(path, 0)
    with pytest.raises(ValueError, match="'bicubic' or 'bilinear', got 'nearest'"):
        decode_image(tmp_path / "x.png", 8, "crop", "nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'crop' or 'squash', got 'stretch'"):
        decode_image(path, 16, "stretch")  # type: ignore[arg-type]


def _encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, format=suffix)
    return buffer.getvalue()


ENCODED = {suffix: _encoded(suffix) for suffix in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")}


@given(
    kind=st.sampled_from(sorted(ENCODED)),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12),
)
def test_damaged_bytes_give_pixels_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(ENCODED[kind])
    for position, value in flips:
        data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    try:
        decoded = decode_image(path, 8)
    except CorruptImageError as error:
        assert str(path) in str(error)
    else:
        assert decoded.shape == (3, 8, 8) and decoded.dtype == torch.uint8
