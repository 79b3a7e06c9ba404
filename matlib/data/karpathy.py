"""Karpathy-format data sets: `dataset_<name>.json` beside a folder of images, read and written.

One reader for Flickr8k, Flickr30k, COCO and the exported embedded world; the JSON is checked
before an image is opened. Source of the format: A. Karpathy and L. Fei-Fei (2015), *Deep
Visual-Semantic Alignments for Generating Image Descriptions*, `caption_datasets.zip`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from matlib.data.images import Fit, Interpolation, decode_image
from matlib.data.pairs import ImageFiles, ImageSource, ImageTensor, ImageTextPairs, image_budget
from matlib.data.strict import UnreadableError, check_whole, read_json

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
    also: Callable[[Sequence[KarpathyEntry]], Sequence[KarpathyEntry]] = tuple,
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
        also: what else captions are true of, said of the entries (`matlib.data.eccv`).
        budget_bytes: images that fit are decoded now and kept in memory as uint8; if all of
            them together do not fit, they are decoded from disk whenever they are asked for.
            By default `matlib.data.pairs.image_budget()`.
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
        relevant=relevance_of(also(entries)),
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
    entries: Sequence[KarpathyEntry], split: str, json_name: str, restval_is_train: bool
) -> tuple[list[KarpathyEntry], list[str]]:
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
    entries: Sequence[KarpathyEntry], parity: int, json_name: str
) -> tuple[list[KarpathyEntry], list[str]]:
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


def _find_images(folder: Path, entries: Sequence[KarpathyEntry], what: str) -> tuple[Path, ...]:
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


def _candidates(folder: Path, entry: KarpathyEntry) -> Iterator[Path]:
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


def relevance_of(entries: Sequence[KarpathyEntry]) -> Tensor | None:
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


class KarpathyFormatError(ValueError):
    """A caption file that is not of the format; the message names file, entry and key."""


@dataclass(frozen=True)
class KarpathyEntry:
    """One image of the JSON, without what nobody here reads (tokens).

    Attributes:
        filename, filepath: image file and (COCO) its folder, `""` if there is none.
        split: as in the file: `train`, `restval`, `val`, `test`.
        captions: at least one; strings may be empty.
        imgid: number of the image in the file; None if the file has none.
        image_id: identifier for people: `image_id` if `write_karpathy` wrote one, else the path.
        also_true_of: per caption the `imgid`s of other images it is true of (written by
            `write_karpathy` only), mostly none.
        cocoid, sentids: COCO's numbers of image and captions; None where the file has none.
    """

    filename: str
    filepath: str
    split: str
    captions: tuple[str, ...]
    imgid: int | None
    image_id: str
    also_true_of: tuple[tuple[int, ...], ...]
    cocoid: int | None = None
    sentids: tuple[int | None, ...] = ()


def read_entries(path: Path) -> tuple[KarpathyEntry, ...]:
    """All entries of a `dataset_<name>.json`, checked; a file that did not change is kept."""
    path = path.resolve()
    status = path.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)  # the second cannot be set by hand
    return _read_entries(path, times, status.st_size, status.st_ino)


@lru_cache(maxsize=2)
def _read_entries(
    path: Path, _times: tuple[int, int], _size: int, _inode: int
) -> tuple[KarpathyEntry, ...]:
    try:
        content = read_json(path, half_pairs=True)  # `_clean` mends them in captions
    except UnreadableError as error:
        raise KarpathyFormatError(f"{error}; damaged or cut off: fetch it again") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise KarpathyFormatError(
            f"{path}: expected an object with a non-empty list under the key 'images'"
        )
    entries = tuple(_entry(image, f"{path}: image entry {i}") for i, image in enumerate(images))
    _check_unique(entries, path)
    return entries


def _entry(image: Any, where: str) -> KarpathyEntry:
    if not isinstance(image, dict):
        raise KarpathyFormatError(f"{where}: expected an object, got {type(image).__name__}")
    filename = _field(image, "filename", str, where)
    where = f"{where} ({filename})"
    filepath = _field(image, "filepath", str, where) if "filepath" in image else ""
    _check_inside(filename, filepath, where)
    sentences = _field(image, "sentences", list, where)
    if not sentences:
        raise KarpathyFormatError(f"{where}: 'sentences' is empty; an image needs a caption")
    captions, also_true_of, sentids = [], [], []
    for j, sentence in enumerate(sentences):
        here = f"{where}, sentence {j}"
        if not isinstance(sentence, dict):
            raise KarpathyFormatError(f"{here}: expected an object with the key 'raw'")
        captions.append(_clean(_field(sentence, "raw", str, here)))
        others = _field(sentence, "also_true_of", list, here) if "also_true_of" in sentence else []
        if not all(isinstance(other, int) for other in others):
            raise KarpathyFormatError(f"{here}: key 'also_true_of' must list image numbers (int)")
        also_true_of.append(tuple(others))
        sentids.append(_number(sentence, "sentid", here))
    return KarpathyEntry(
        filename=filename,
        filepath=filepath,
        split=_field(image, "split", str, where),
        captions=tuple(captions),
        imgid=_number(image, "imgid", where),
        image_id=str(image.get("image_id", f"{filepath}/{filename}".lstrip("/"))),
        also_true_of=tuple(also_true_of),
        cocoid=_number(image, "cocoid", where),
        sentids=tuple(sentids),
    )


def _field(mapping: dict[str, Any], key: str, kind: type, where: str) -> Any:
    if key not in mapping:
        raise KarpathyFormatError(
            f"{where}: missing key '{key}'; present: {', '.join(map(str, mapping)) or 'none'}"
        )
    value = mapping[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise KarpathyFormatError(
            f"{where}: key '{key}' must be {kind.__name__}, got {type(value).__name__}"
        )
    return value


def _number(mapping: dict[str, Any], key: str, where: str) -> int | None:
    found: int | None = _field(mapping, key, int, where) if key in mapping else None
    return found


def _check_inside(filename: str, filepath: str, where: str) -> None:
    """The file came from the internet: it may not point at files outside its folder."""
    try:
        check_whole(f"{filepath}/{filename}", where)
    except UnreadableError as error:
        raise KarpathyFormatError(str(error)) from error
    parts = PurePosixPath(filepath, filename)
    if (
        not PurePosixPath(filename).name
        or "/" in filename
        or "\\" in f"{filepath}{filename}"
        or "\0" in f"{filepath}{filename}"
        or parts.is_absolute()
        or ".." in parts.parts
    ):
        raise KarpathyFormatError(
            f"{where}: 'filepath' {filepath!r} and 'filename' {filename!r} must name a file "
            "below the data set's folder"
        )


def _clean(raw: str) -> str:
    # Half of a surrogate pair is legal in JSON and breaks every tokenizer.
    return " ".join(raw.encode("utf-8", "replace").decode("utf-8").split())


def _check_unique(entries: tuple[KarpathyEntry, ...], path: Path) -> None:
    seen: dict[str, int] = {}
    for i, entry in enumerate(entries):
        file = unicodedata.normalize("NFC", str(PurePosixPath(entry.filepath, entry.filename)))
        if file in seen:
            raise KarpathyFormatError(
                f"{path}: image entries {seen[file]} and {i} are both {entry.filename}; "
                "each image may appear once, with all its captions"
            )
        seen[file] = i
    if any(any(entry.also_true_of) for entry in entries):
        _check_numbers(entries, path)


def _check_numbers(entries: tuple[KarpathyEntry, ...], path: Path) -> None:
    """Images that captions point at need numbers that stand for one image each."""
    numbers = Counter(entry.imgid for entry in entries)
    twice = sorted(str(number) for number, n in numbers.items() if n > 1 or number is None)
    if twice:
        raise KarpathyFormatError(
            f"{path}: 'also_true_of' points at images by 'imgid', so each image needs one of its "
            f"own; missing or there twice: {', '.join(twice[:3])}"
        )
    strangers = {n for entry in entries for others in entry.also_true_of for n in others} - {
        *numbers
    }
    if strangers:
        raise KarpathyFormatError(
            f"{path}: 'also_true_of' names images that are not in the file: "
            f"{', '.join(map(str, sorted(strangers)[:3]))}"
        )


def write_karpathy(folder: Path, name: str, splits: Mapping[str, ImageTextPairs]) -> Path:
    """Write data as a Karpathy-format folder: `dataset_<name>.json` and `images/*.png`.

    The folder is written beside its place and moved there whole. Beyond the format, entries
    carry `image_id`, and sentences `also_true_of` where a caption is true of other images of
    its split; other tools ignore both.

    Args:
        folder: new or empty folder.
        name: name of the data set, as `read_karpathy` will be asked for it.
        splits: pairs by split name.

    Returns:
        The path of the JSON.

    Raises:
        FileExistsError: `folder` exists and is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: exists and is not an empty folder; choose another place")
    if not splits:
        raise ValueError("no splits to write")
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"a data set's name is letters, digits, '_', '-' and '.'; got {name!r}")
    part = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.part"
    try:
        (part / "images").mkdir(parents=True)
        entries: list[dict[str, Any]] = []
        for split, pairs in splits.items():
            entries += _write_split(part, split, pairs, len(entries))
        text = json.dumps({"dataset": name, "images": entries}, ensure_ascii=False, indent=1)
        (part / f"dataset_{name}.json").write_text(text, encoding="utf-8")
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder / f"dataset_{name}.json"


def _write_split(
    part: Path, split: str, pairs: ImageTextPairs, first_imgid: int
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for i in range(len(pairs)):
        filename = f"{split}_{i:06d}.png"
        pixels = pairs.images.load([i])[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(part / "images" / filename)
        entries.append(
            {
                "filename": filename,
                "image_id": pairs.image_ids[i],
                "imgid": first_imgid + i,
                "split": split,
                "sentences": [],
            }
        )
    for m, caption in enumerate(pairs.captions):
        owner = int(pairs.image_of[m])
        sentence: dict[str, Any] = {"raw": caption}
        if pairs.relevant is not None:
            rows = pairs.relevant[:, m].nonzero().flatten().tolist()
            sentence["also_true_of"] = [first_imgid + row for row in rows if row != owner]
        entries[owner]["sentences"].append(sentence)
    return entries
