"""The JSON of the Karpathy format: checked reading, and writing a folder of its kind."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from matlib.data.pairs import ImageTextPairs
from matlib.data.strict import UnreadableError, check_whole, read_json


class KarpathyFormatError(ValueError):
    """A caption file that is not of the format; the message names file, entry and key."""


@dataclass(frozen=True)
class Entry:
    """One image of the JSON, without what nobody here reads (tokens, sentence ids).

    Attributes:
        filename, filepath: image file and (COCO) its folder, `""` if there is none.
        split: as in the file: `train`, `restval`, `val`, `test`.
        captions: at least one; strings may be empty.
        imgid: number of the image in the file; None if the file has none.
        image_id: identifier for people: `image_id` if `write_karpathy` wrote one, else the path.
        also_true_of: per caption the `imgid`s of other images it is true of (written by
            `write_karpathy` only), mostly none.
    """

    filename: str
    filepath: str
    split: str
    captions: tuple[str, ...]
    imgid: int | None
    image_id: str
    also_true_of: tuple[tuple[int, ...], ...]


def read_entries(path: Path) -> tuple[Entry, ...]:
    """All entries of a `dataset_<name>.json`, checked; a file that did not change is kept."""
    path = path.resolve()
    status = path.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)  # the second cannot be set by hand
    return _read_entries(path, times, status.st_size, status.st_ino)


@lru_cache(maxsize=2)
def _read_entries(
    path: Path, _times: tuple[int, int], _size: int, _inode: int
) -> tuple[Entry, ...]:
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


def _entry(image: Any, where: str) -> Entry:
    if not isinstance(image, dict):
        raise KarpathyFormatError(f"{where}: expected an object, got {type(image).__name__}")
    filename = _field(image, "filename", str, where)
    where = f"{where} ({filename})"
    filepath = _field(image, "filepath", str, where) if "filepath" in image else ""
    _check_inside(filename, filepath, where)
    sentences = _field(image, "sentences", list, where)
    if not sentences:
        raise KarpathyFormatError(f"{where}: 'sentences' is empty; an image needs a caption")
    captions, also_true_of = [], []
    for j, sentence in enumerate(sentences):
        here = f"{where}, sentence {j}"
        if not isinstance(sentence, dict):
            raise KarpathyFormatError(f"{here}: expected an object with the key 'raw'")
        captions.append(_clean(_field(sentence, "raw", str, here)))
        others = _field(sentence, "also_true_of", list, here) if "also_true_of" in sentence else []
        if not all(isinstance(other, int) for other in others):
            raise KarpathyFormatError(f"{here}: key 'also_true_of' must list image numbers (int)")
        also_true_of.append(tuple(others))
    return Entry(
        filename=filename,
        filepath=filepath,
        split=_field(image, "split", str, where),
        captions=tuple(captions),
        imgid=_field(image, "imgid", int, where) if "imgid" in image else None,
        image_id=str(image.get("image_id", f"{filepath}/{filename}".lstrip("/"))),
        also_true_of=tuple(also_true_of),
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


def _check_unique(entries: tuple[Entry, ...], path: Path) -> None:
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


def _check_numbers(entries: tuple[Entry, ...], path: Path) -> None:
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
