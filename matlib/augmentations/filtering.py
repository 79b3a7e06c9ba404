"""Filters as augmentation policy: which added variants are kept, under a reference model.

They take embeddings (`matlib.analysis.embeddings.embed_variants`), not a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from matlib.data.pairs import OneToMany


class Embedded(Protocol):
    """The variants under a reference model: unit rows, row 0 the original."""

    @property
    def captions(self) -> Sequence[Tensor]:
        """N float (C_i, D)."""
        ...

    @property
    def images(self) -> Tensor:
        """float (N, R, D)."""
        ...


def keep_aligned(variants: OneToMany, embedded: Embedded, threshold: float) -> OneToMany:
    """Added captions and images whose cosine with the other half of their pair is high enough.

    A caption is compared with the original image, an image with the original caption. Pairs
    keep their number of images: one that falls away is replaced by the original, so that
    images stay one tensor and the repeats per pair stay fixed.

    Args:
        variants: N originals with their variants.
        embedded: the same under the reference model.
        threshold: cosine in [-1, 1].

    Raises:
        ValueError: the threshold keeps nothing that was added; the message says how high
            similarities are.
    """
    of_captions = [rows @ image for rows, image in
                   zip(embedded.captions, embedded.images[:, 0], strict=True)]  # fmt: skip
    text = torch.stack([rows[0] for rows in embedded.captions])
    of_images = torch.einsum("nrd,nd->nr", embedded.images, text)
    captions = tuple(
        (own[0], *(c for c, s in zip(own[1:], found[1:].tolist(), strict=True) if s >= threshold))
        for own, found in zip(variants.captions, of_captions, strict=True)
    )
    keep = of_images >= threshold
    keep[:, 0] = True
    added = torch.cat([*(found[1:] for found in of_captions), of_images[:, 1:].flatten()])
    if len(added) and not bool((added >= threshold).any()):
        ranks = torch.quantile(added, torch.tensor([0.5, 0.9, 1.0])).tolist()
        raise ValueError(
            f"no added pair has a similarity of {threshold:g} or more (median {ranks[0]:.2f}, "
            f"nine tenths below {ranks[1]:.2f}, highest {ranks[2]:.2f}): lower keep_aligned"
        )
    return replace(variants, captions=captions, images=_with_originals(variants, keep),
                   made_from=None)  # fmt: skip


def keep_diverse(variants: OneToMany, embedded: Embedded, k: int) -> OneToMany:
    """The `k` added captions and images of each pair that are farthest from each other.

    Greedy, from the original on: each time the variant whose nearest kept one is farthest
    (farthest-point sampling; Gonzalez 1985).

    Raises:
        ValueError: k below 1.
    """
    if k < 1:
        raise ValueError(f"at least one added variant is kept; got k = {k}")
    captions = tuple(
        tuple(own[i] for i in _farthest(rows, k))
        for own, rows in zip(variants.captions, embedded.captions, strict=True)
    )
    if variants.images.shape[1] == 1:
        return replace(variants, captions=captions)
    columns = torch.tensor([_farthest(rows, k) for rows in embedded.images])
    rows = torch.arange(len(variants))[:, None]
    return replace(variants, captions=captions, images=variants.all_images()[rows, columns],
                   made_from=None)  # fmt: skip


def thin_to_vendi(
    variants: OneToMany,
    embedded: Embedded,
    target: float,
    generator: torch.Generator,
    score: Callable[[Tensor], float],
) -> OneToMany:
    """Added captions made repeats of others until the sets' mean Vendi score is `target`.

    To compare two techniques at equal diversity and an equal number of captions. Pairs are
    thinned in random order, one caption each in turn; the caption that goes is replaced by a
    repeat of another of its pair. The original does not count, as in
    `matlib.analysis.technique`: wrong captions lie far from it, so that with it three copies
    of one wrong caption would pass for as diverse as three different true ones.

    Args:
        target: mean score of the sets of added captions; a set without any counts as 1.
        score: of the embeddings (n, D) of a set, `matlib.analysis.diversity.vendi_score`.

    Raises:
        ValueError: the sets are less diverse than the target to begin with.
    """
    sets = [list(range(len(own))) for own in variants.captions]
    scores = torch.tensor([score(r[1:]) if len(r) > 1 else 1.0 for r in embedded.captions])
    if float(scores.mean()) < 0.98 * target:
        raise ValueError(
            f"sets of mean Vendi score {float(scores.mean()):.3f} cannot be thinned to {target:g}"
        )
    while float(scores.mean()) > target:
        changed = False
        for i in torch.randperm(len(sets), generator=generator).tolist():
            if float(scores.mean()) <= target:
                break
            changed |= _thinned(sets, i, embedded, scores, generator, score)
        if not changed:
            break
    captions = tuple(
        tuple(own[j] for j in kept) for own, kept in zip(variants.captions, sets, strict=True)
    )
    return replace(variants, captions=captions)


def _thinned(
    sets: list[list[int]],
    i: int,
    embedded: Embedded,
    scores: Tensor,
    generator: torch.Generator,
    score: Callable[[Tensor], float],
) -> bool:
    """Replace one of set i's captions by a repeat of another added one; False where all repeat."""
    own = sets[i]
    different = sorted({*own[1:]})
    if len(different) < 2:
        return False
    pick = torch.randperm(len(different), generator=generator)[:2].tolist()
    gone, stays = different[pick[0]], different[pick[1]]
    own[1:] = [stays if j == gone else j for j in own[1:]]
    scores[i] = score(embedded.captions[i][own[1:]])
    return True


def _farthest(rows: Tensor, k: int) -> list[int]:
    """The original and up to k rows, each the farthest from those before it."""
    chosen = [0]
    nearest = 1 - rows @ rows[0]
    nearest[0] = -1.0
    while len(chosen) < min(k + 1, len(rows)):
        best = int(nearest.argmax())
        chosen.append(best)
        nearest = torch.minimum(nearest, 1 - rows @ rows[best])
        nearest[chosen] = -1.0
    return chosen


def _with_originals(variants: OneToMany, keep: Tensor) -> Tensor:
    images = variants.all_images()
    if bool(keep.all()):
        return images
    columns = torch.where(keep, torch.arange(keep.shape[1]), 0)
    return images[torch.arange(len(images))[:, None], columns]
