"""Alignment: do the added captions and images still belong together?

An *added pair* is any caption of an original's set with any image of the same set, except
the original pair itself: what training on the set may draw beyond the 1:1 data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matlib.analysis.embeddings import VariantEmbeddings
from matlib.data.pairs import OneToMany
from matlib.evaluation.statistics import Estimate, bootstrap_mean

Truth = Callable[[int, str], float]
"""(index of the original, caption) -> share in [0, 1] of the caption that is true of it."""

_TIE = 1e-5
"""Cosine similarities this close are equal: one sentence embedded in two batches differs so."""


@dataclass(frozen=True)
class Alignment:
    """Alignment of one technique's added pairs under a reference model.

    Intervals are over originals: an original's pairs are averaged first. A similarity is NaN
    with n = 0 where the technique added nothing of its kind.

    Attributes:
        technique: what made the variants.
        similarity: cosine similarity of the added pairs, in [-1, 1].
        caption_similarity: that of the added captions with the original image.
        image_similarity: that of the added images with the original caption.
        original_similarity: that of the original pairs, to compare with.
        finds_caption: share of the added pairs whose caption is nearer to their image than
            every other original's caption (text retrieval of the pair at 1).
        finds_image: share whose image is nearer to their caption than every other original's
            image (image retrieval of the pair at 1).
        median_caption_rank, median_image_rank: median over added pairs of the number of other
            originals that are at least as near; 0 is the top.
        n_pairs: added pairs.
    """

    technique: str
    similarity: Estimate
    caption_similarity: Estimate
    image_similarity: Estimate
    original_similarity: Estimate
    finds_caption: Estimate
    finds_image: Estimate
    median_caption_rank: float
    median_image_rank: float
    n_pairs: int


@dataclass(frozen=True)
class PairRanks:
    """Similarity and retrieval ranks of every added pair.

    Attributes:
        original: int64 (P,), the original each pair was made from.
        has_original_caption, has_original_image: bool (P,), never both.
        similarity: float (P,), cosine.
        caption_rank: int64 (P,), other originals' captions at least as near to the pair's image.
        image_rank: int64 (P,), other originals' images at least as near to the pair's caption.
    """

    original: Tensor
    has_original_caption: Tensor
    has_original_image: Tensor
    similarity: Tensor
    caption_rank: Tensor
    image_rank: Tensor


def measure_alignment(
    variants: VariantEmbeddings, *, seed: int = 0, n_boot: int = 2000
) -> Alignment:
    """Similarity and retrieval of the added pairs, with 95 % intervals over originals.

    Args:
        variants: `embed_variants(reference, one_to_many)`.
        seed: of the bootstrap.
        n_boot: bootstrap samples.

    Raises:
        ValueError: the technique added nothing.
    """
    pairs = rank_pairs(variants)

    def over_originals(values: Tensor, kept: Tensor | None = None) -> Estimate:
        of = pairs.original if kept is None else pairs.original[kept]
        values = values if kept is None else values[kept]
        if len(values) == 0:
            return Estimate(float("nan"), float("nan"), float("nan"), 0)
        means = _mean_per_original(values.double(), of, len(variants))
        return bootstrap_mean(means, seed=seed, n_boot=n_boot)

    first_captions = torch.stack([rows[0] for rows in variants.captions])
    originals = (first_captions * variants.images[:, 0]).sum(1).double()
    return Alignment(
        technique=variants.technique,
        similarity=over_originals(pairs.similarity),
        caption_similarity=over_originals(pairs.similarity, pairs.has_original_image),
        image_similarity=over_originals(pairs.similarity, pairs.has_original_caption),
        original_similarity=bootstrap_mean(originals, seed=seed, n_boot=n_boot),
        finds_caption=over_originals(pairs.caption_rank == 0),
        finds_image=over_originals(pairs.image_rank == 0),
        median_caption_rank=float(np.median(pairs.caption_rank.numpy())),
        median_image_rank=float(np.median(pairs.image_rank.numpy())),
        n_pairs=len(pairs.original),
    )


def rank_pairs(variants: VariantEmbeddings, chunk: int = 4096) -> PairRanks:
    """Similarity and ranks of every added pair; ties count against the pair.

    The gallery of a pair is itself and the N - 1 other originals, the same for all techniques.

    Args:
        variants: N originals with their variants.
        chunk: pairs compared at a time; memory is bounded by chunk x N.

    Raises:
        ValueError: the technique added nothing.
    """
    caption_row, image_row, original = added_pairs(variants)
    if len(original) == 0:
        raise ValueError(f"technique {variants.technique!r} added no caption and no image")
    captions, images = torch.cat(variants.captions), variants.images.flatten(0, 1)
    first_captions = torch.stack([rows[0] for rows in variants.captions])
    first_images = variants.images[:, 0]
    similarity, caption_rank, image_rank = [], [], []
    for part in torch.arange(len(original)).split(chunk):
        caption, image = captions[caption_row[part]], images[image_row[part]]
        score = (caption * image).sum(1)
        similarity.append(score)
        caption_rank.append(_n_ahead(image @ first_captions.T, score, original[part]))
        image_rank.append(_n_ahead(caption @ first_images.T, score, original[part]))
    first_rows = torch.tensor([0, *(len(rows) for rows in variants.captions)]).cumsum(0)[:-1]
    return PairRanks(
        original,
        has_original_caption=caption_row == first_rows[original],
        has_original_image=image_row % variants.images.shape[1] == 0,
        similarity=torch.cat(similarity),
        caption_rank=torch.cat(caption_rank),
        image_rank=torch.cat(image_rank),
    )


def true_aligned_fraction(
    one_to_many: OneToMany, truth: Truth, *, seed: int = 0, n_boot: int = 2000
) -> Estimate:
    """Share of the added captions' content that is true of their image, over originals.

    Only a world that knows its scenes can tell (`matlib.scenes.aligned_fraction`).

    Args:
        one_to_many: N originals with their variants.
        truth: called once per added caption.
        seed: of the bootstrap.
        n_boot: bootstrap samples.

    Raises:
        ValueError: the technique added no caption.
    """
    means = [
        sum(truth(i, caption) for caption in added) / len(added)
        for i, (_, *added) in enumerate(one_to_many.captions)
        if added
    ]
    if not means:
        raise ValueError(f"technique {one_to_many.technique!r} added no caption to check")
    return bootstrap_mean(torch.tensor(means, dtype=torch.double), seed=seed, n_boot=n_boot)


def added_pairs(variants: VariantEmbeddings) -> tuple[Tensor, Tensor, Tensor]:
    """int64 (P,) each: row of the caption, row of the image, original of every added pair.

    Rows count through all captions (images) of the originals in turn.
    """
    n, n_images = variants.images.shape[:2]
    sizes = torch.tensor([len(rows) for rows in variants.captions])
    origin = torch.repeat_interleave(torch.arange(n), sizes)
    is_first_caption = torch.zeros(len(origin), dtype=torch.bool)
    is_first_caption[sizes.cumsum(0) - sizes] = True
    caption_row = torch.arange(len(origin)).repeat_interleave(n_images)
    rendering = torch.arange(n_images).repeat(len(origin))
    original = origin[caption_row]
    is_added = ~(is_first_caption[caption_row] & (rendering == 0))
    image_row = original * n_images + rendering
    return caption_row[is_added], image_row[is_added], original[is_added]


def _n_ahead(scores: Tensor, own: Tensor, original: Tensor) -> Tensor:
    """How many of the other originals in (P, N) `scores` reach the pair's own score (P,)."""
    ahead = scores >= own[:, None] - _TIE
    ahead[torch.arange(len(own)), original] = False
    return ahead.sum(1)


def _mean_per_original(values: Tensor, original: Tensor, n: int) -> Tensor:
    """Mean of `values` (P,) for each original that has a pair."""
    totals = torch.zeros(n, dtype=torch.double).index_add_(0, original, values)
    counts = torch.bincount(original, minlength=n)
    return totals[counts > 0] / counts[counts > 0]
