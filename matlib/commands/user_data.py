"""A user's own images and captions: a folder, and a file that says what belongs together."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from matlib.data.caption_files import read_caption_file
from matlib.data.eccv import eccv_positives, with_positives
from matlib.data.images import Fit, Interpolation, decode_image, find_images, one_spelling
from matlib.data.karpathy import KarpathyEntry, read_entries, relevance_of
from matlib.data.pairs import ImageFiles, ImageTextPairs, n_readers
from matlib.data.strict import check_whole, read_json
from matlib.files import file_hash
from matlib.progress import Progress
from matlib.study.store.provenance import text_hash

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def read_user_data(
    images: Path, captions: Path, split: str = "test", relevance: str = "own"
) -> ImageTextPairs:
    """Images of a folder with their captions, everything checked before anything is decoded.

    Images are decoded as they are asked for; say first at which size (`sized`), 224 by default.

    Args:
        images: folder that the file names are relative to.
        captions: a mapping from image file name to a list of captions (read in the order of
            the names), as JSON, table or `.token` file (see `read_caption_file`); or a data set
            in the Karpathy format (in the order of the file).
        split: of a Karpathy file, the images that are taken; `all` for every split.
        relevance: `eccv` counts ECCV Caption's right answers too, of COCO in that format.

    Raises:
        FileNotFoundError: the folder, the captions or an image file is missing.
        ValueError: no such file of captions, no captions at all, an image without captions or
            under two names, a blank caption, or one that no file can hold.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {images}")
    if not captions.is_file():
        raise FileNotFoundError(f"no captions file at {captions}")
    content = read_caption_file(captions)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        entries = _of_split(read_entries(captions), split, captions)
        if relevance == "eccv":
            entries = [*with_positives(entries, eccv_positives())]
        names = one_spelling([f"{e.filepath}/{e.filename}".lstrip("/") for e in entries], captions)
        per_image = [e.captions for e in entries]
        also: Sequence[KarpathyEntry] = entries
    else:
        if relevance == "eccv":
            raise ValueError(f"{captions}: relevance eccv needs COCO's file in the Karpathy format")
        names, per_image = _mapping(content, captions)
        also = ()
    blank = [name for name, texts in zip(names, per_image, strict=True)
             if not all(text.strip() for text in texts)]  # fmt: skip
    if blank:
        raise ValueError(
            f"{captions}: a caption without a word, of {blank[0]!r} and {len(blank) - 1} further "
            "images: it is true of every image, so leave it out"
        )
    paths = find_images(images, names, captions)
    own = [i for i, texts in enumerate(per_image) for _ in texts]
    return ImageTextPairs(
        name=captions.stem,
        split=split if also else "all",
        images=ImageFiles(paths, partial(decode_image, size=224)),
        captions=tuple(text for texts in per_image for text in texts),
        image_of=torch.tensor(own, dtype=torch.long),
        image_ids=tuple(names),
        relevant=relevance_of(also),
        notes=_notes(images, names) if not also else (),
    )


def sized(
    pairs: ImageTextPairs,
    image_size: int,
    mode: Fit = "crop",
    interpolation: Interpolation = "bicubic",
) -> ImageTextPairs:
    """The same pairs, their images brought to a model's size in its way (see `decode_image`)."""
    assert isinstance(pairs.images, ImageFiles)
    decode = partial(decode_image, size=image_size, mode=mode, interpolation=interpolation)
    files = ImageFiles(pairs.images.paths, decode)
    return replace(pairs, images=files)


def file_hashes(pairs: ImageTextPairs) -> list[str]:
    """The hash of every image file."""
    assert isinstance(pairs.images, ImageFiles)
    with ThreadPoolExecutor(n_readers()) as pool:
        return list(pool.map(file_hash, pairs.images.paths))


def identity(pairs: ImageTextPairs, files: Sequence[str], rows: torch.Tensor | None = None) -> str:
    """Hash of the captions, of the images that each is true of, and of every image file.

    Args:
        files: hash of each image's file.
        rows: int64, the images that count, with all their captions; all by default.
    """
    rows = torch.arange(len(pairs)) if rows is None else rows
    columns = torch.isin(pairs.image_of, rows).nonzero().flatten()
    true_of = None if pairs.relevant is None else pairs.relevant[rows][:, columns]
    content = {
        "images": [[pairs.image_ids[i], files[i]] for i in rows.tolist()],
        "captions": [pairs.captions[i] for i in columns.tolist()],
        "image_of": pairs.image_of[columns].tolist(),
        "relevant": None if true_of is None else true_of.nonzero().tolist(),
    }
    return text_hash(json.dumps(content))


def check_readable(pairs: ImageTextPairs, rows: Sequence[int]) -> None:
    """Decode the images at `rows` once, so that a bad one is found before the long work.

    Raises:
        ValueError: images that cannot be decoded; all of them are counted.
    """
    assert isinstance(pairs.images, ImageFiles)
    files = pairs.images

    def fault(row: int) -> str:
        try:
            files.decode(files.paths[row])
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    faults = []
    with ThreadPoolExecutor(n_readers()) as pool, Progress("check images", len(rows)) as progress:
        for found in pool.map(fault, rows):
            faults += [found] if found else []
            progress.advance()
    if faults:
        more = f"\n  and {len(faults) - 5:,} more" if len(faults) > 5 else ""
        raise ValueError(
            f"{len(faults):,} of {len(rows):,} images cannot be used; what is finished is kept:"
            + "".join(f"\n  {found}" for found in faults[:5])
            + more
        )


def read_mapping(path: Path, what: str) -> Mapping[str, Any]:
    """A JSON object from a file.

    Raises:
        FileNotFoundError, ValueError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}")
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected a JSON object that is not empty, for {what}")
    return content


def _mapping(content: Any, path: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a mapping from image file names to lists of captions, or a "
            f"Karpathy file with the key 'images'; got {type(content).__name__}"
        )
    if not content:
        raise ValueError(f"{path}: no captions: the mapping is empty")
    for name, texts in content.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path}: expected a list of captions for {name!r}; got {texts!r:.60}")
    without = sorted(name for name, texts in content.items() if not texts)
    if without:
        raise ValueError(
            f"{path}: {len(without)} images without captions, e.g. {', '.join(without[:3])}; "
            "give each at least one caption or leave it out"
        )
    for name, texts in content.items():
        for text in texts:
            check_whole(text, f"{path}: image {name!a}")
    of = dict(zip(one_spelling(list(content), path), content.values(), strict=True))
    return sorted(of), [tuple(" ".join(text.split()) for text in of[name]) for name in sorted(of)]


def _of_split(entries: Sequence[KarpathyEntry], split: str, path: Path) -> list[KarpathyEntry]:
    chosen = [entry for entry in entries if split in ("all", entry.split)]
    if not chosen:
        present = ", ".join(sorted({entry.split for entry in entries}))
        raise ValueError(f"{path}: no {split} images; --split is one of: {present}, all")
    return chosen


def _notes(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    present = {
        unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    extra = len(present - set(names))
    return (f"{extra:,} images of the folder have no captions and are left out",) if extra else ()
