"""Which edits of a caption keep the truth, in a world that knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource


def validity(
    source: ScenesSource | KarpathySource, split: str, captions: list[str], own: Sequence[int]
) -> Callable[[int, str], bool] | None:
    """The truth check of edits, where the truth is known.

    A caption that is false of its image (a captioner's mistake, a mismatched pair) has no edit
    that keeps it true. In training it is attacked by edits that leave what it says as it is:
    otherwise wrong captions would be trained on without an attack, and alignment would be
    confounded with the share of attacked captions.
    """
    if not isinstance(source, ScenesSource):
        return None
    keeps_truth = source.valid_edit(split, captions, own)
    if split != "train":
        return keeps_truth
    is_false = [not source.is_true(split, i, c) for i, c in zip(own, captions, strict=True)]

    def is_valid(i: int, edited: str) -> bool:
        if is_false[i]:
            return source.means_the_same(captions[i], edited)
        return keeps_truth(i, edited)

    return is_valid
