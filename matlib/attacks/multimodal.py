"""Attacks on image and text at once, each a composition whose order can be read off its lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.ascent import AttackReport, ImageAttack, ScaleViews, Views, attack_in_chunks
from matlib.attacks.budgets import check_weights
from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery, TextAttack, embed_images, prepared, searching
from matlib.attacks.objectives import (
    ImageObjective,
    away_from_captions,
    away_from_image,
    caption_contrastive,
    contrastive,
    kl_from_image,
    kl_from_image_and_captions,
)
from matlib.attacks.scoring import embed_texts
from matlib.models.dual_encoder import DualEncoder


def pgd_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    image: ImageAttack,
    *,
    generator: torch.Generator,
    report: AttackReport | None = None,
) -> Tensor:
    """Every image, ascending the contrastive loss against the clean captions of the gallery."""
    text = embed_texts(encoder, gallery.captions)
    return _against(encoder, gallery, image, text, generator, report)


def feature_pgd(
    encoder: DualEncoder,
    gallery: Gallery,
    image: ImageAttack,
    *,
    generator: torch.Generator,
    report: AttackReport | None = None,
) -> Tensor:
    """Every image away from its own clean embedding, by KL: the PGD row of the field's tables.

    Co-Attack's code. It never looks at a caption, so it is weaker than `pgd_attack`; published
    numbers are made with it.
    """
    clean = embed_images(encoder, gallery.pixels, gallery.chunk)
    return _move(
        encoder, gallery, image, lambda rows: kl_from_image(clean[rows]), generator, report=report
    )


def sep_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: ImageAttack,
    text: TextAttack,
    *,
    generator: torch.Generator,
    report: AttackReport | None = None,
) -> tuple[Tensor, list[str]]:
    """Sep-Attack: image and text attacked without knowing of each other."""
    return (
        pgd_attack(encoder, gallery, image, generator=generator, report=report),
        prepared(encoder, gallery, candidates, text, report)(),
    )


def co_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: ImageAttack,
    text: TextAttack,
    *,
    generator: torch.Generator,
    alpha: float = 3.0,
    captions: Literal["joint", "per_caption_last"] = "joint",
    report: AttackReport | None = None,
) -> tuple[Tensor, list[str]]:
    """Co-Attack for CLIP (Zhang et al. 2022, code for two separate towers): text, then image.

    1. each caption moves away from itself (BERT-Attack, KL);
    2. the image moves away from itself and from its moved captions.
    The released code then attacks the *clean* captions a second time without the image: the
    same inputs and no randomness, so the same captions, and half of its text time. That step
    is left out here.

    Args:
        alpha: weight of the captions against the image's own embedding.
        captions: `joint`: one image against all its captions. `per_caption_last`: the code
            attacks an image once per caption and keeps the last result (4 of 5 attacks on
            Flickr30k are thrown away, and 4 of 5 captions meet an image made for another);
            only the kept one is computed, so its start is another draw than the code's.
    """
    check_weights("alpha", (1.0, alpha))
    edited = prepared(encoder, gallery, candidates, text, report)()

    moved_text = embed_texts(encoder, edited)
    clean = embed_images(encoder, gallery.pixels, gallery.chunk)
    mask = gallery.own_mask if captions == "joint" else gallery.last_mask
    mask = mask.to(moved_text.device)
    moved = _move(
        encoder,
        gallery,
        image,
        lambda rows: kl_from_image_and_captions(clean[rows], moved_text, mask[rows], alpha=alpha),
        generator,
        report=report,
    )
    return moved, edited


def sga(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: ImageAttack,
    text: TextAttack,
    *,
    generator: torch.Generator,
    views: ScaleViews | None = None,
    report: AttackReport | None = None,
) -> tuple[Tensor, list[str]]:
    """Set-level Guidance Attack (Lu et al. 2023): text, then image, then text again.

    1. each caption moves away from its clean image;
    2. the image, seen at several scales, moves away from all its moved captions;
    3. each *clean* caption moves away from the moved image.
    Step 3 needs the candidates, importances and embeddings of step 1 again: they are kept.
    """
    away = prepared(encoder, gallery, candidates, text, report)
    clean = embed_images(encoder, gallery.pixels, gallery.chunk)
    first = away(away_from_image(clean[gallery.own]))

    first_features = embed_texts(encoder, first)
    own = gallery.own_mask.to(first_features.device)
    moved = _move(
        encoder,
        gallery,
        image,
        lambda rows: away_from_captions(first_features, own[rows]),
        generator,
        views=views or ScaleViews(),
        report=report,
    )

    guide = embed_images(encoder, moved, gallery.chunk)
    last = away(away_from_image(guide[gallery.own]))
    return moved, last


def contrastive_attack(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    image: ImageAttack,
    text: TextAttack,
    *,
    generator: torch.Generator,
    report: AttackReport | None = None,
) -> tuple[Tensor, list[str]]:
    """The contrastive loss itself on both sides, with an exhaustive text search.

    The adaptive judge of contrastively trained defences: first every allowed edit of a
    caption is tried against the gallery of clean images, then the image attack (PGD, APGD)
    ascends the contrastive loss against the edited captions, then the text search is repeated
    against the adversarial images.
    """
    away = prepared(encoder, gallery, candidates, text, report)
    relevant = gallery.relevant.T.to(encoder.device)
    scale = encoder.logit_scale.detach()

    def edit(pixels: Tensor) -> list[str]:
        seen = embed_images(encoder, pixels, gallery.chunk)
        with searching(away, "exhaustive"):
            return away(caption_contrastive(seen, relevant, scale))

    first = embed_texts(encoder, edit(gallery.pixels))
    moved = _against(encoder, gallery, image, first, generator, report)
    return moved, edit(moved)


def _against(
    encoder: DualEncoder,
    gallery: Gallery,
    image: ImageAttack,
    text: Tensor,
    generator: torch.Generator,
    report: AttackReport | None,
) -> Tensor:
    """The contrastive loss against all captions of the gallery: negatives cost no forward."""
    relevant = gallery.relevant.to(text.device)
    scale = encoder.logit_scale.detach()
    return _move(
        encoder,
        gallery,
        image,
        lambda rows: contrastive(text, relevant[rows], scale),
        generator,
        report=report,
    )


def _move(
    encoder: DualEncoder,
    gallery: Gallery,
    image: ImageAttack,
    objective_of: Callable[[Tensor], ImageObjective],
    generator: torch.Generator,
    *,
    views: Views | None = None,
    report: AttackReport | None = None,
) -> Tensor:
    return attack_in_chunks(
        image, encoder, gallery.pixels, objective_of,
        generator=generator, views=views, report=report, chunk=gallery.chunk,
    )  # fmt: skip
