"""Where a technique lies: one number each for alignment, diversity and shift of what it adds."""

from __future__ import annotations

import torch
from torch import Tensor

from matlib.analysis.alignment import added_pairs
from matlib.analysis.diversity import vendi_score
from matlib.analysis.embeddings import HeldOutEmbeddings, VariantEmbeddings
from matlib.analysis.shift.mmd import median_bandwidth, mmd2_interval

COORDINATE_NAMES = ("similarity", "vendi", "mmd2")
"""Alignment, diversity, shift; diversity is that of the *added* variants among themselves."""


def technique_coordinates(
    embedded: VariantEmbeddings, test: HeldOutEmbeddings, *, seed: int = 0
) -> dict[str, float]:
    """Mean similarity of added pairs, Vendi score of added variants, MMD^2 to test data.

    Diversity leaves the original out: a wrong variant lies far from the original, and would
    count as diverse for being wrong. Shift is that of the added captions or images themselves,
    one of each original. Where a technique adds both, the means of both.

    Args:
        embedded: N originals with their variants under the reference model.
        test: of other originals, under the same model.
        seed: which of an original's variants stand for it.

    Returns:
        a number for each of `NAMES`; for the originals alone, their own similarity and shift
        and a diversity of 1.
    """
    text = torch.stack([rows[0] for rows in embedded.captions])
    image = embedded.images[:, 0]
    if embedded.n_added_captions + embedded.n_added_images == 0:
        vendi, found = [1.0], [(text, text, test.text), (image, image, test.image)]
        similarity = (text * image).sum(1)
    else:
        caption_row, image_row, _ = added_pairs(embedded)
        similarity = (
            torch.cat(embedded.captions)[caption_row] * embedded.images.flatten(0, 1)[image_row]
        ).sum(1)
        vendi, found = [], []
        if embedded.n_added_captions:
            sets = [rows[1:] for rows in embedded.captions if len(rows) > 1]
            vendi.append(_mean_vendi(sets))
            found.append((_one_of_each_set(sets, seed), text, test.text))
        if embedded.n_added_images:
            sets = list(embedded.images[:, 1:])
            vendi.append(_mean_vendi(sets))
            found.append((_one_of_each_set(sets, seed), image, test.image))
    shift = [
        mmd2_interval(added, there, median_bandwidth(originals, there)).value
        for added, originals, there in found
    ]
    numbers = (float(similarity.mean()), _mean(vendi), _mean(shift))
    return dict(zip(COORDINATE_NAMES, numbers, strict=True))


def _mean_vendi(sets: list[Tensor]) -> float:
    return _mean([vendi_score(rows) for rows in sets])


def _one_of_each_set(sets: list[Tensor], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [rows[int(torch.randint(len(rows), (), generator=generator))] for rows in sets]
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
