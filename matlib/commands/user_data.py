"""A user's own images and captions: a folder, and a JSON file that says what belongs together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from matlib.data.images import decode_image
from matlib.data.karpathy_json import Entry, read_entries
from matlib.data.pairs import ImageFiles, ImageTextPairs
from matlib.study.provenance import canonical_json, file_hash, text_hash

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def read_user_data(images: Path, captions: Path, split: str = "test") -> ImageTextPairs:
    """Images of a folder with their captions, everything checked before anything is decoded.

    Images are decoded as they are asked for; say first at which size (`sized`), 224 by default.

    Args:
        images: folder that the file names are relative to.
        captions: JSON: a mapping from image file name to a list of captions (read in the order
            of the names), or a data set in the Karpathy format (in the order of the file).
        split: of a Karpathy file, the images that are taken; `all` for every split.

    Raises:
        FileNotFoundError: the folder, the JSON or an image file is missing.
        ValueError: not such a JSON, no captions at all, or an image without captions.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {images}")
    if not captions.is_file():
        raise FileNotFoundError(f"no captions file at {captions}")
    content = _read_json(captions)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        entries = _of_split(read_entries(captions), split, captions)
        names = [f"{e.filepath}/{e.filename}".lstrip("/") for e in entries]
        per_image = [e.captions for e in entries]
        also: Sequence[Entry] = entries
    else:
        names, per_image = _mapping(content, captions)
        also = ()
    paths = _find(images, names, captions)
    own = [i for i, texts in enumerate(per_image) for _ in texts]
    return ImageTextPairs(
        name=captions.stem,
        split=split if also else "all",
        images=ImageFiles(paths, partial(decode_image, size=224)),
        captions=tuple(text for texts in per_image for text in texts),
        image_of=torch.tensor(own, dtype=torch.long),
        image_ids=tuple(names),
        relevant=_relevant(also, own),
        notes=_notes(images, names) if not also else (),
    )


def sized(pairs: ImageTextPairs, image_size: int) -> ImageTextPairs:
    """The same pairs, their images scaled and cropped to a model's size."""
    assert isinstance(pairs.images, ImageFiles)
    files = ImageFiles(pairs.images.paths, partial(decode_image, size=image_size))
    return replace(pairs, images=files)


def identity(pairs: ImageTextPairs) -> str:
    """Hash of the captions, of which image each belongs to, and of every image file."""
    assert isinstance(pairs.images, ImageFiles)
    files = [file_hash(path) for path in pairs.images.paths]
    content = [[*pairs.image_ids], [*pairs.captions], pairs.image_of.tolist(), files]
    return text_hash(json.dumps(content))


def read_mapping(path: Path, what: str) -> Mapping[str, Any]:
    """A JSON object from a file.

    Raises:
        FileNotFoundError, ValueError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}")
    content = _read_json(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected a JSON object that is not empty, for {what}")
    return content


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Identity of a run's settings."""
    return text_hash(canonical_json(settings))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error


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
    names = sorted(content)
    return names, [tuple(" ".join(text.split()) for text in content[name]) for name in names]


def _of_split(entries: Sequence[Entry], split: str, path: Path) -> list[Entry]:
    chosen = [entry for entry in entries if split in ("all", entry.split)]
    if not chosen:
        present = ", ".join(sorted({entry.split for entry in entries}))
        raise ValueError(f"{path}: no {split} images; --split is one of: {present}, all")
    return chosen


def _find(folder: Path, names: Sequence[str], captions: Path) -> tuple[Path, ...]:
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
            raise ValueError(f"{captions}: {name!r} must name a file below the folder of images")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{captions} has captions for {len(missing):,} of {len(names):,} images that are not "
            f"in {folder}, e.g. {', '.join(missing[:3])}"
        )
    return tuple(folder / name for name in names)


def _relevant(entries: Sequence[Entry], own: Sequence[int]) -> torch.Tensor | None:
    """bool (N, M) if the file says that captions are true of further images, else None."""
    if not any(any(entry.also_true_of) for entry in entries):
        return None
    row_of = {entry.imgid: i for i, entry in enumerate(entries)}
    relevant = torch.zeros(len(entries), len(own), dtype=torch.bool)
    relevant[torch.tensor(own), torch.arange(len(own))] = True
    others = [numbers for entry in entries for numbers in entry.also_true_of]
    for caption, numbers in enumerate(others):
        relevant[[row_of[n] for n in numbers if n in row_of], caption] = True
    return relevant


def _notes(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    extra = len(present - set(names))
    return (f"{extra:,} images of the folder have no captions and are left out",) if extra else ()
