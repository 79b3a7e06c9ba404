"""Captions that a generator writes: unusable ones are counted, asked for again, then left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from matlib.augmentations.human import with_captions
from matlib.data.pairs import ImageTextPairs, OneToMany

Writer = Callable[[Sequence[int], int, torch.Generator], list[list[str]]]
"""(rows of the pairs, captions for each, generator) -> that many captions for each row."""

TRIES = 3


@dataclass(frozen=True)
class Written:
    """What a generator was asked for and what came.

    Attributes:
        n_asked: captions wanted.
        n_empty: times that it gave an empty caption.
        n_identical: times that it gave the original or a caption that it had given before.
        n_left_out: captions still missing after the last try.
    """

    n_asked: int
    n_empty: int
    n_identical: int
    n_left_out: int


def write_variants(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    writer: Writer,
    technique: str,
    *,
    tries: int = TRIES,
) -> tuple[OneToMany, Written]:
    """Each pair with up to `n_variants` different captions of a generator.

    Args:
        pairs: N images with one caption each.
        n_variants: captions wanted for each pair, 0 or more.
        generator: CPU generator; same generator and writer, same captions.
        writer: the generator.
        technique: name of the result.
        tries: how often a pair is asked about, at least once.

    Raises:
        ValueError: the writer gave captions for another number of pairs, or nothing usable.
    """
    kept: list[list[str]] = [[] for _ in range(len(pairs))]
    seen = [{_plain(caption)} for caption in pairs.captions]
    n_empty = n_identical = 0
    open_rows = list(range(len(pairs))) if n_variants else []
    for _ in range(max(1, tries)):
        if not open_rows:
            break
        missing = max(n_variants - len(kept[i]) for i in open_rows)
        found = writer(open_rows, missing, generator)
        if len(found) != len(open_rows):
            raise ValueError(f"{technique} wrote for {len(found)} pairs; asked {len(open_rows)}")
        for i, captions in zip(open_rows, found, strict=True):
            for caption in captions:
                if not caption.strip():
                    n_empty += 1
                elif _plain(caption) in seen[i]:
                    n_identical += 1
                elif len(kept[i]) < n_variants:
                    seen[i].add(_plain(caption))
                    kept[i].append(" ".join(caption.split()))
        open_rows = [i for i in open_rows if len(kept[i]) < n_variants]
    n_left_out = sum(n_variants - len(own) for own in kept)
    n_asked = n_variants * len(pairs)
    if n_asked and n_left_out == n_asked:
        raise ValueError(
            f"{technique} wrote nothing usable for {len(pairs)} pairs: {n_empty} empty captions, "
            f"{n_identical} repeats; look at its prompt, its weights and its temperature"
        )
    report = Written(n_asked, n_empty, n_identical, n_left_out)
    return with_captions(pairs, kept, technique), report


def _plain(caption: str) -> str:
    return " ".join(caption.lower().split()).rstrip(".")
