"""Further right answers of COCO's test gallery, as people have found them.

COCO's captions count for the image that they were written for alone, but many are true of other
images too, and an attack that brings such an image to the top has not made anything false. ECCV
Caption (Chun et al. 2022, *ECCV Caption: Correcting False Negatives by Collecting
Machine-and-Human-verified Image-Caption Associations for MS-COCO*) has looked for them: its
annotations lie in the package `eccv-caption`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from matlib.data.karpathy import KarpathyEntry, KarpathyFormatError

_PACKAGE = "eccv_caption"
_FILES = ("eccv_caption_to_image.json", "eccv_image_to_caption.json")


@dataclass(frozen=True)
class Positives:
    """Who is right for whom, by COCO's numbers.

    Attributes:
        images_of: caption -> images that it is true of, for the captions that were asked about.
        captions_of: image -> captions that are true of it, for such images.
    """

    images_of: dict[int, frozenset[int]]
    captions_of: dict[int, frozenset[int]]


@cache
def eccv_positives() -> Positives:
    """The annotations; the package's code is not run.

    Raises:
        FileNotFoundError: the package is not installed; the message has the command.
    """
    found = importlib.util.find_spec(_PACKAGE)
    for place in (found.submodule_search_locations if found else None) or []:
        folder = Path(place) / "data"
        if all((folder / name).is_file() for name in _FILES):
            return Positives(*(_read(folder / name) for name in _FILES))
    raise FileNotFoundError(
        "relevance eccv needs the annotations in the package eccv-caption; install it: "
        "pip install -e '.[eccv]'"
    )


def _read(path: Path) -> dict[int, frozenset[int]]:
    raw = json.loads(path.read_text(encoding="utf-8"))
    return {int(query): frozenset(map(int, right)) for query, right in raw.items()}


def with_positives(
    entries: Sequence[KarpathyEntry], positives: Positives
) -> tuple[KarpathyEntry, ...]:
    """COCO's entries whose captions are also true of what the annotations say.

    Args:
        entries: of all splits, or of those that are wanted; annotated images without an entry
            are left out.

    Raises:
        KarpathyFormatError: entries without COCO's numbers.
    """
    if not any(entry.cocoid is not None and None not in entry.sentids for entry in entries):
        raise KarpathyFormatError(
            "relevance eccv is about COCO, whose images have a 'cocoid' and whose sentences have a "
            "'sentid'; this file has none"
        )
    number = {entry.cocoid: entry.imgid for entry in entries if entry.cocoid is not None}
    true_of: dict[int, set[int]] = {c: set(images) for c, images in positives.images_of.items()}
    for image, captions in positives.captions_of.items():
        for caption in captions:
            true_of.setdefault(caption, set()).add(image)

    def others(entry: KarpathyEntry, sentid: int | None) -> tuple[int, ...]:
        images = true_of.get(-1 if sentid is None else sentid, set()) - {entry.cocoid}
        found = {number[image] for image in images if image in number}
        return tuple(sorted(each for each in found if each is not None))

    return tuple(
        replace(
            entry,
            also_true_of=tuple(
                tuple(sorted({*known, *others(entry, sentid)}))
                for known, sentid in zip(entry.also_true_of, entry.sentids, strict=True)
            ),
        )
        for entry in entries
    )
