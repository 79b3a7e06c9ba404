"""Phrases that name one thing each in an image, with the thing's box; RefCOCO from disk.

Source of the files: L. Yu et al. (2016), *Modeling Context in Referring Expressions*; their tool
REFER (`refcoco/`, `refcoco+/`, `refcocog/`: `refs(unc).p`, `instances.json`) beside COCO's images.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matlib.data.images import Interpolation, decode_image, find_images, one_spelling
from matlib.data.pairs import ImageFiles
from matlib.data.strict import UnreadableError, read_json

AS_JSON = (
    "import json, pickle, pathlib; pathlib.Path({target!r}).write_text(json.dumps("
    "pickle.loads(pathlib.Path({source!r}).read_bytes())))"
)
"""REFER has its phrases as a pickle. A pickle can run anything, so none is read here; who trusts
theirs turns it into JSON by this line of Python."""


@dataclass(frozen=True)
class Referring:
    """Phrases, each of one thing in an image.

    Attributes:
        phrases: P strings.
        image_of: int64 (P,), the image of each.
        boxes: float (P, 4), the thing's box: left, top, right, bottom in fractions of the sides.
        candidates: per image float (K, 4), boxes that a thing may have, the true ones among
            them (of all things that are known in it).
    """

    phrases: tuple[str, ...]
    image_of: Tensor
    boxes: Tensor
    candidates: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        n, box = len(self.phrases), self.boxes
        if box.shape != (n, 4) or self.image_of.shape != (n,):
            raise ValueError(
                f"{n} phrases need boxes ({n}, 4) and images ({n},); got {tuple(box.shape)} and "
                f"{tuple(self.image_of.shape)}"
            )
        if not bool(((box >= 0) & (box <= 1)).all() and (box[:, :2] < box[:, 2:]).all()):
            raise ValueError(
                "boxes are left, top, right, bottom in fractions of the image's sides (0 to 1)"
            )

    def of_images(self, rows: Tensor) -> Referring:
        """The phrases of some images, which are then numbered 0, 1, ...

        Args:
            rows: int64 (n,), rising.
        """
        own = torch.isin(self.image_of, rows).nonzero().flatten()  # (p,)
        return Referring(
            tuple(self.phrases[i] for i in own.tolist()),
            torch.searchsorted(rows, self.image_of[own]), self.boxes[own],
            tuple(self.candidates[i] for i in rows.tolist()),
        )  # fmt: skip


@dataclass(frozen=True)
class ReferringImages:
    """Images on disk and the phrases of their things.

    Attributes:
        names: of the image files.
    """

    images: ImageFiles
    names: tuple[str, ...]
    referring: Referring


def read_refcoco(
    folder: Path,
    images: Path,
    split: str,
    image_size: int,
    *,
    split_by: str = "unc",
    limit: int | None = None,
    interpolation: Interpolation = "bicubic",
) -> ReferringImages:
    """RefCOCO, RefCOCO+ or RefCOCOg as REFER lays them out.

    Images are squashed to a square, as ALBEF does: a centre crop would cut things away. Every
    sentence is a phrase of its own. Candidates are all things that `instances.json` has in an
    image (ALBEF chooses among a detector's boxes instead).

    Args:
        folder: such as `refcoco+`; holds `refs(<split_by>).json` and `instances.json`.
        images: COCO's images of 2014, in any folder below.
        split: `val`, `testA`, `testB` (of RefCOCOg `val`, `test`), or `train`.
        image_size: side of the images in pixels.
        split_by: who split it: `unc`, `google` or `umd`.
        limit: at most so many images, the first ones.

    Raises:
        FileNotFoundError: a folder, a file or an image is missing.
        UnreadableError: another layout; the message names the place.
        ValueError: no such split.
    """
    path, instances = _refs(folder, split_by), folder / "instances.json"
    if not instances.is_file():
        raise FileNotFoundError(f"{folder} has no instances.json, which REFER has beside its refs")
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {images}")
    refs = [_Ref.read(each, f"{path}, entry {i}") for i, each in enumerate(_rows(path))]
    own = [ref for ref in refs if ref.split == split]
    if not own:
        has = ", ".join(sorted({ref.split for ref in refs})) or "none"
        raise ValueError(f"{path} has no split {split!r}; it has: {has}")
    sizes, things = _instances(instances, {ref.image for ref in own})
    ids = list(dict.fromkeys(ref.image for ref in own))[:limit]
    place = {image: i for i, image in enumerate(ids)}
    found = [(text, place[ref.image], _box(ref, things, sizes, path))
             for ref in own if ref.image in place for text in ref.phrases]  # fmt: skip
    names = one_spelling([sizes[image].name for image in ids], instances)
    decode = partial(
        decode_image, size=image_size, mode="squash", interpolation=interpolation
    )  # fmt: skip
    return ReferringImages(
        ImageFiles(find_images(_image_folder(images, names[0]), names, instances), decode),
        tuple(names),
        Referring(
            tuple(text for text, _, _ in found),
            torch.tensor([image for _, image, _ in found]),
            torch.stack([box for _, _, box in found]),
            tuple(torch.stack([*things[image].values()]) for image in ids),
        ),
    )


@dataclass(frozen=True)
class _Ref:
    image: int
    thing: int
    split: str
    phrases: tuple[str, ...]

    @classmethod
    def read(cls, given: Any, where: str) -> _Ref:
        try:
            phrases = tuple(" ".join(str(s["sent"]).split()) for s in given["sentences"])
            found = cls(int(given["image_id"]), int(given["ann_id"]), str(given["split"]), phrases)
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableError(
                f"{where}: expected image_id, ann_id, split and sentences with sent, as REFER has "
                f"them ({type(error).__name__}: {error})"
            ) from error
        if not phrases or not all(phrases):
            raise UnreadableError(f"{where}: expected phrases; got {list(phrases)}")
        return found


@dataclass(frozen=True)
class _Image:
    name: str
    sides: Tensor  # (4,): width, height, width, height


def _refs(folder: Path, split_by: str) -> Path:
    path = folder / f"refs({split_by}).json"
    pickled = path.with_suffix(".p")
    if path.is_file():
        return path
    if pickled.is_file():
        line = AS_JSON.format(source=str(pickled), target=str(path))
        raise FileNotFoundError(
            f"{pickled} is a pickle, which could run anything and is not read here; if you trust "
            f"it, turn it into JSON: python -c {line!r}"
        )
    has = ", ".join(sorted(each.name for each in folder.glob("refs(*)*"))) or "no refs(…) at all"
    raise FileNotFoundError(f"no {path.name} in {folder}; it has {has}")


def _rows(path: Path) -> list[Any]:
    content = read_json(path)
    if not isinstance(content, list):
        raise UnreadableError(f"{path}: expected a list of refs; got {type(content).__name__}")
    return content


def _instances(
    path: Path, wanted: set[int]
) -> tuple[dict[int, _Image], dict[int, dict[int, Tensor]]]:
    """Of the wanted images the file with its sides, and the box of each of its things."""
    content, sizes = read_json(path), {}
    things: dict[int, dict[int, Tensor]] = defaultdict(dict)
    try:
        for each in content["images"]:
            if each["id"] in wanted:
                sides = torch.tensor([each["width"], each["height"]] * 2, dtype=torch.float)
                sizes[each["id"]] = _Image(each["file_name"], sides)
        for each in content["annotations"]:
            if (image := each["image_id"]) in sizes:
                left, top, width, height = each["bbox"]
                if not (width > 0 and height > 0):
                    continue  # COCO has a few; they name no place
                box = torch.tensor([left, top, left + width, top + height], dtype=torch.float)
                things[image][each["id"]] = (box / sizes[image].sides).clamp(0, 1)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableError(
            f"{path}: expected COCO's images (id, file_name, width, height) and annotations (id, "
            f"image_id, bbox) ({type(error).__name__}: {error})"
        ) from error
    return sizes, things


def _box(
    ref: _Ref, things: dict[int, dict[int, Tensor]], sizes: dict[int, _Image], path: Path
) -> Tensor:
    if ref.image not in sizes or ref.thing not in things[ref.image]:
        raise UnreadableError(
            f"{path}: thing {ref.thing} of image {ref.image} is not in instances.json; both files "
            "must be of one download"
        )
    return things[ref.image][ref.thing]


def _image_folder(folder: Path, name: str) -> Path:
    """Where below `folder` the images lie: COCO's archive has them in `train2014`."""
    found = (each.parent for each in folder.rglob(Path(name).name))
    return next(found, folder)
