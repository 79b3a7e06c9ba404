"""Karpathy-format data sets: `dataset_<name>.json` beside a folder of images.

One reader for Flickr8k, Flickr30k, COCO and the exported embedded world. Source of the
format: A. Karpathy and L. Fei-Fei (2015), *Deep Visual-Semantic Alignments for Generating
Image Descriptions*, `caption_datasets.zip`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from matlib.data.image_sources import ImageFiles, ImageSource, ImageTensor
from matlib.data.images import Fit, Interpolation, decode_image
from matlib.data.karpathy_json import Entry, KarpathyFormatError, read_entries
from matlib.data.memory import image_budget
from matlib.data.pairs import ImageTextPairs

SPLITS = ("train", "val", "test", "restval")
# Where the usual archives and mirrors put the JSON and the images, below the data set's folder.
_JSON_FOLDERS = ("", "karpathy", "caption_datasets", "annotations", "annotation")
_IMAGE_FOLDERS = (
    "images",
    "Images",
    "flickr30k-images",
    "flickr30k_images",
    "flickr30k-images/flickr30k-images",
    "flickr30k_images/flickr30k_images",
    "Flicker8k_Dataset",  # spelt so in the published archive
    "Flickr8k_Dataset",
    "coco",
    "",
)


def read_karpathy(
    folder: Path,
    name: str,
    split: str,
    image_size: int,
    limit: int | None = None,
    *,
    mode: Fit = "crop",
    interpolation: Interpolation = "bicubic",
    restval_is_train: bool = True,
    budget_bytes: int | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageTextPairs:
    """Read one split: its images in the order of the JSON, each with all its captions.

    Captions are kept as published, except that white space is collapsed to single spaces
    (word attacks count words of `caption.split(" ")`); empty captions stay.

    Where the JSON has no test split, val is halved: its images are sorted by `imgid`, even
    ranks (0, 2, ...) become val and odd ranks test. `notes` then says so.

    Args:
        folder: holds `dataset_<name>.json` and the images, in any of the usual layouts.
        name: `flickr8k`, `flickr30k`, `coco`, or the name given to `write_karpathy`.
        split: `train`, `val`, `test` or (COCO) `restval`.
        image_size: side of the images in pixels.
        limit: keep only the first `limit` images of the split; `notes` then says so.
        mode, interpolation: how images become square, see `decode_image`.
        restval_is_train: count COCO's `restval` images as train, as is usual.
        budget_bytes: images that fit are decoded now and kept in memory as uint8; if all of
            them together do not fit, they are decoded from disk whenever they are asked for.
            By default `matlib.data.memory.image_budget()`.
        n_threads: decoding threads; by default one per core, at most 8.
        progress: called with (images decoded, images in all) while decoding.

    Raises:
        FileNotFoundError: no folder, no JSON, or image files missing; all files are looked
            for before any is decoded.
        KarpathyFormatError: the JSON is damaged; the message names the entry and the key.
        CorruptImageError: an image file is damaged; the message names it.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 image, got {limit}")
    folder = Path(folder)
    json_path = find_json(folder, name)
    entries, notes = _select(read_entries(json_path), split, json_path.name, restval_is_train)
    if limit is not None and limit < len(entries):
        notes.append(f"partial: the first {limit:,} of the {len(entries):,} {split} images")
        entries = entries[:limit]
    paths = _find_images(folder, entries, f"{name}/{split}")
    decode = partial(decode_image, size=image_size, mode=mode, interpolation=interpolation)
    images: ImageSource = (files := ImageFiles(paths, decode))
    budget_bytes = image_budget() if budget_bytes is None else budget_bytes
    if len(paths) * 3 * image_size**2 <= budget_bytes:
        images = ImageTensor(_decode_all(paths, decode, image_size, n_threads, progress), files)
    owners = [i for i, entry in enumerate(entries) for _ in entry.captions]
    return ImageTextPairs(
        name=name,
        split=split,
        images=images,
        captions=tuple(caption for entry in entries for caption in entry.captions),
        image_of=torch.tensor(owners, dtype=torch.long),
        image_ids=tuple(entry.image_id for entry in entries),
        relevant=_relevance(entries),
        notes=tuple(notes),
    )


def image_files(
    folder: Path, name: str, limits: Mapping[str, int]
) -> dict[str, tuple[Path, ...] | FileNotFoundError | KarpathyFormatError]:
    """The image files that `read_karpathy` reads, without decoding them.

    Args:
        folder, name: as of `read_karpathy`.
        limits: split -> as `limit` there.

    Returns:
        split -> its files in order, or the error that says which are missing, or that the JSON
        has no such split.

    Raises:
        FileNotFoundError: no folder or no JSON.
        KarpathyFormatError: the JSON is damaged.
    """
    json_path = find_json(folder, name)
    entries = read_entries(json_path)
    found: dict[str, tuple[Path, ...] | FileNotFoundError | KarpathyFormatError] = {}
    for split, limit in limits.items():
        try:
            chosen, _ = _select(entries, split, json_path.name, restval_is_train=True)
            found[split] = _find_images(folder, chosen[:limit], f"{name}/{split}")
        except (FileNotFoundError, KarpathyFormatError) as missing:
            found[split] = missing
    return found


def find_json(folder: Path, name: str) -> Path:
    """The `dataset_<name>.json` that is read, in any of the usual places.

    Raises:
        FileNotFoundError: no folder, or no such file in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; expected the {name} data set there. "
            f"`python -m matlib data fetch {name}` says how to get it"
        )
    for sub in _JSON_FOLDERS:
        candidate = folder / sub / f"dataset_{name}.json"
        if candidate.is_file():
            return candidate
    present = sorted(p.name for p in folder.glob("dataset_*.json"))
    raise FileNotFoundError(
        f"{folder}: no dataset_{name}.json (looked there and in "
        f"{', '.join(_JSON_FOLDERS[1:])}; found {', '.join(present) or 'no dataset_*.json'}). "
        f"`python -m matlib data fetch {name}` downloads it"
    )


def _select(
    entries: Sequence[Entry], split: str, json_name: str, restval_is_train: bool
) -> tuple[list[Entry], list[str]]:
    present = {entry.split for entry in entries}
    if split == "test" and "test" not in present and "val" in present:
        return _half_of_val(entries, 1, json_name)
    if split == "val" and "test" not in present and "val" in present:
        return _half_of_val(entries, 0, json_name)
    wanted = {split}
    notes = []
    if split == "train" and restval_is_train and "restval" in present:
        wanted.add("restval")
        n_restval = sum(entry.split == "restval" for entry in entries)
        notes.append(f"train includes the {n_restval:,} restval images")
    chosen = [entry for entry in entries if entry.split in wanted]
    if not chosen:
        raise KarpathyFormatError(
            f"{json_name}: no {split} images; its splits are {', '.join(sorted(present)) or 'none'}"
        )
    return chosen, notes


def _half_of_val(
    entries: Sequence[Entry], parity: int, json_name: str
) -> tuple[list[Entry], list[str]]:
    val = [entry for entry in entries if entry.split == "val"]
    if len({entry.imgid for entry in val}) < len(val) or any(e.imgid is None for e in val):
        raise KarpathyFormatError(
            f"{json_name}: there is no test split, so val is halved by `imgid`; "
            "for this every val image needs an `imgid` of its own"
        )
    val.sort(key=lambda entry: entry.imgid or 0)
    note = (
        f"{json_name} has no test split: its {len(val):,} val images, sorted by imgid, are "
        "halved: even ranks (0, 2, ...) are val, odd ranks are test"
    )
    return val[parity::2], [note]


def _find_images(folder: Path, entries: Sequence[Entry], what: str) -> tuple[Path, ...]:
    """The file of every entry, all of them checked before any is opened."""
    names_in: dict[Path, frozenset[str]] = {}
    found: list[Path] = []
    missing: list[str] = []
    for entry in entries:
        for candidate in _candidates(folder, entry):
            if candidate.parent not in names_in:
                names_in[candidate.parent] = _nonempty_files(candidate.parent)
            if candidate.name in names_in[candidate.parent]:
                found.append(candidate)
                break
        else:
            missing.append(f"{entry.filepath}/{entry.filename}".lstrip("/"))
    if missing:
        looked_in = sorted({str(p.relative_to(folder)) for p, names in names_in.items() if names})
        raise FileNotFoundError(
            f"{what}: {len(missing):,} of {len(entries):,} image files are missing or empty, "
            f"e.g. {', '.join(missing[:3])}. Looked below {folder} in the folders that hold "
            f"files: {', '.join(looked_in) or 'none of the usual ones exists'}. "
            f"`python -m matlib data fetch {what.split('/')[0]}` says how to get them"
        )
    return tuple(found)


def _candidates(folder: Path, entry: Entry) -> Iterator[Path]:
    for sub in _IMAGE_FOLDERS:
        if entry.filepath:
            yield folder / sub / entry.filepath / entry.filename
        yield folder / sub / entry.filename


def _nonempty_files(folder: Path) -> frozenset[str]:
    if not folder.is_dir():
        return frozenset()
    with os.scandir(folder) as listing:
        return frozenset(f.name for f in listing if f.is_file() and f.stat().st_size > 0)


def _decode_all(
    paths: Sequence[Path],
    decode: Callable[[Path], Tensor],
    size: int,
    n_threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    """uint8 (N, 3, size, size); PIL decodes outside Python's lock, so threads are enough."""
    data = torch.empty((len(paths), 3, size, size), dtype=torch.uint8)
    pool = ThreadPoolExecutor(n_threads or min(8, os.cpu_count() or 1))
    try:
        for i, image in enumerate(pool.map(decode, paths)):
            data[i] = image
            if progress is not None:
                progress(i + 1, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return data


def _relevance(entries: Sequence[Entry]) -> Tensor | None:
    """bool (N, M) if any caption is said to be true of other images too, else None."""
    if not any(any(entry.also_true_of) for entry in entries):
        return None
    row_of = {entry.imgid: i for i, entry in enumerate(entries)}
    relevant = torch.zeros(len(entries), sum(len(e.captions) for e in entries), dtype=torch.bool)
    column = 0
    for i, entry in enumerate(entries):
        for others in entry.also_true_of:
            # With `limit`, images that are left out simply have no row.
            rows = [row_of[other] for other in others if other in row_of]
            relevant[[i, *rows], column] = True
            column += 1
    return relevant
