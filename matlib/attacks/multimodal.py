"""Attacks on image and text at once, each a composition whose order can be read off its lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matlib.attacks.image import PGD, ScaleViews
from matlib.attacks.objectives import (
    away_from_captions,
    away_from_image,
    caption_contrastive,
    contrastive,
)
from matlib.attacks.text import CandidateTable, WordSubstitution, embed_texts
from matlib.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class Gallery:
    """What is attacked together: N images, M captions and which belongs to which.

    Attributes:
        pixels: float (N, 3, H, W) in [0, 1].
        captions: M captions.
        relevant: bool (N, M), True where the caption is true of the image; each image needs
            at least one caption.
        own: int64 (M,), the image each caption was written for.
        chunk: images per forward; bounds memory.
    """

    pixels: Tensor
    captions: Sequence[str]
    relevant: Tensor
    own: Tensor
    chunk: int = 128

    def __post_init__(self) -> None:
        n, m = self.pixels.shape[0], len(self.captions)
        if self.relevant.shape != (n, m) or self.own.shape != (m,):
            raise ValueError(
                f"{n} images and {m} captions need relevant ({n}, {m}) and own ({m},); "
                f"got {tuple(self.relevant.shape)} and {tuple(self.own.shape)}"
            )
        if not bool(self.relevant.any(1).all()):
            raise ValueError("every image needs at least one caption")

    @property
    def own_mask(self) -> Tensor:
        """bool (N, M): the captions written for each image."""
        mask = torch.zeros_like(self.relevant)
        mask[self.own, torch.arange(len(self.captions))] = True
        return mask


def embed_images(encoder: DualEncoder, pixels: Tensor, chunk: int = 128) -> Tensor:
    """(N, D) unit embeddings without gradients, `chunk` images at a time."""
    with torch.no_grad():
        return torch.cat([encoder.encode_image(part) for part in pixels.split(chunk)])


def pgd(
    encoder: DualEncoder, gallery: Gallery, image: PGD, *, generator: torch.Generator
) -> Tensor:
    """PGD on every image, ascending the contrastive loss against the clean captions."""
    text = embed_texts(encoder, gallery.captions)
    return _contrastive_pgd(encoder, gallery, image, text, generator)


def sep_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: PGD,
    text: WordSubstitution,
    *,
    generator: torch.Generator,
) -> tuple[Tensor, list[str]]:
    """Sep-Attack: image and text attacked without knowing of each other."""
    return (
        pgd(encoder, gallery, image, generator=generator),
        text(encoder, gallery.captions, candidates),
    )


def sga(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: PGD,
    text: WordSubstitution,
    *,
    generator: torch.Generator,
    views: ScaleViews | None = None,
) -> tuple[Tensor, list[str]]:
    """Set-level Guidance Attack (Lu et al. 2023): text, then image, then text again.

    1. each caption moves away from its clean image;
    2. the image, seen at several scales, moves away from all its moved captions;
    3. each *clean* caption moves away from the moved image.
    Step 3 meets the sentences of step 1 again: wrap the encoder in `CachedText` to embed
    them once.
    """
    scales = views or ScaleViews()
    clean = embed_images(encoder, gallery.pixels, gallery.chunk)
    first = text(encoder, gallery.captions, candidates, away_from_image(clean[gallery.own]))

    first_features = embed_texts(encoder, first)
    own = gallery.own_mask.to(first_features.device)
    moved = torch.cat(
        [
            image(
                encoder,
                gallery.pixels[rows],
                away_from_captions(first_features, own[rows]),
                generator=generator,
                views=scales,
            )
            for rows in torch.arange(len(gallery.pixels)).split(gallery.chunk)
        ]
    )

    guide = embed_images(encoder, moved, gallery.chunk)
    last = text(encoder, gallery.captions, candidates, away_from_image(guide[gallery.own]))
    return moved, last


def contrastive_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: PGD,
    text: WordSubstitution,
    *,
    generator: torch.Generator,
) -> tuple[Tensor, list[str]]:
    """The contrastive loss itself on both sides, with an exhaustive text search.

    The adaptive judge of contrastively trained defences: first every allowed edit of a
    caption is tried against the gallery of clean images, then PGD ascends the contrastive
    loss against the edited captions, then the text search is repeated against the
    adversarial images.
    """
    search = replace(text, search="exhaustive")
    relevant = gallery.relevant.T.to(encoder.device)
    scale = encoder.logit_scale.detach()

    def edit(pixels: Tensor) -> list[str]:
        gallery_images = embed_images(encoder, pixels, gallery.chunk)
        score = caption_contrastive(gallery_images, relevant, scale)
        return search(encoder, gallery.captions, candidates, score)

    first = embed_texts(encoder, edit(gallery.pixels))
    moved = _contrastive_pgd(encoder, gallery, image, first, generator)
    return moved, edit(moved)


def _contrastive_pgd(
    encoder: DualEncoder,
    gallery: Gallery,
    image: PGD,
    text: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """PGD against all captions of the gallery: negatives cost nothing once embedded."""
    relevant = gallery.relevant.to(text.device)
    scale = encoder.logit_scale.detach()
    parts = [
        image(
            encoder,
            gallery.pixels[rows],
            contrastive(text, relevant[rows], scale),
            generator=generator,
        )
        for rows in torch.arange(len(gallery.pixels)).split(gallery.chunk)
    ]
    return torch.cat(parts)
