"""Defences: what is attacked during training, with what loss, and which tower learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.image import PGD
from matlib.attacks.objectives import (
    ImageObjective,
    caption_contrastive,
    contrastive,
    symmetric_contrastive,
)
from matlib.attacks.text import Edit, WordSubstitution, embed_texts
from matlib.models.dual_encoder import DualEncoder, frozen

Candidates = Mapping[str, Sequence[Edit]]
"""The allowed edits of each training caption, by the caption itself."""


@dataclass(frozen=True)
class Defence:
    """One way of fine-tuning.

    Attributes:
        name: row name in every table.
        attacks_image, attacks_text: which inputs are made adversarial against the current model.
        towers: which parts learn: `image`, `text`, `scale`.
        loss: `symmetric` (both halves of CLIP's loss) or `image_to_text` (TeCoA: captions are
            the classes, as in its released code).
        uses_one_to_many: draws captions and renderings from the one-to-many relation.
        image_against: whether the image attack sees the `clean` or the `adversarial` captions
            of the batch.
        source: the publication.
    """

    name: str
    attacks_image: bool
    attacks_text: bool
    towers: tuple[str, ...] = ("image", "text", "scale")
    loss: Literal["symmetric", "image_to_text"] = "symmetric"
    uses_one_to_many: bool = False
    image_against: Literal["clean", "adversarial"] = "adversarial"
    source: str = ""


DEFENCES: dict[str, Defence] = {
    d.name: d
    for d in (
        Defence("clean", False, False, source="fine-tuning without attack (control)"),
        Defence("image-at", True, False, source="Madry et al. 2018 on CLIP's loss"),
        Defence("text-at", False, True, source="BERT-Attack (Li et al. 2020) in training"),
        Defence(
            "tecoa", True, False, ("image",), "image_to_text", source="TeCoA (Mao et al. 2023)"
        ),
        # arXiv 2405.18770: both inputs attacked, both encoders learn (source: paper);
        # the image attack sees the adversarial captions (source: ours)
        Defence("mat", True, True, source="MAT (Waseda et al., arXiv 2405.18770)"),
        Defence("mat+", True, True, uses_one_to_many=True, source="MAT+ (arXiv 2405.18770)"),
    )
}


def defence(name: str) -> Defence:
    """The defence of that name.

    Raises:
        ValueError: unknown name.
    """
    if name not in DEFENCES:
        raise ValueError(f"unknown defence {name!r}; known: {', '.join(DEFENCES)}")
    return DEFENCES[name]


@dataclass(frozen=True)
class InnerAttack:
    """The attack inside training: budgets of the image step and of the text step.

    Attributes:
        image: budget of the image step.
        text: budget and search of the text step.
        max_edits: of a caption's allowed edits, how many are tried at each visit, drawn afresh;
            all of them if None. Scoring all 20 edits of each caption was two thirds of a MAT
            step (0.20 of 0.32 s, before prefixes were shared). Source: ours.
    """

    image: PGD
    text: WordSubstitution
    max_edits: int | None = None

    def __call__(
        self,
        encoder: DualEncoder,
        pixels: Tensor,
        captions: Sequence[str],
        candidates: Candidates,
        how: Defence,
        generator: torch.Generator,
    ) -> tuple[Tensor, list[str]]:
        """Adversarial versions of what `how` attacks; the rest comes back as it was.

        Args:
            pixels: float (B, 3, H, W) in [0, 1]; image i belongs to caption i.
            captions: B captions.
            candidates: allowed edits by caption; captions that are missing stay unchanged.
        """
        with frozen(
            encoder
        ):  # attacks refuse a model in training mode: dropout would move under them
            return self._attack(encoder, pixels, list(captions), candidates, how, generator)

    def _attack(
        self,
        encoder: DualEncoder,
        pixels: Tensor,
        captions: list[str],
        candidates: Candidates,
        how: Defence,
        generator: torch.Generator,
    ) -> tuple[Tensor, list[str]]:
        edited = captions
        if how.attacks_text:
            table = [self._drawn(candidates.get(caption, ()), generator) for caption in captions]
            edited = self.text(encoder, captions, table, self._text_objective(encoder, pixels))
        if how.attacks_image:
            seen = edited if how.image_against == "adversarial" else captions
            pixels = self.image(
                encoder, pixels, _image_objective(encoder, seen, how), generator=generator
            )
        return pixels, edited

    def _drawn(self, edits: Sequence[Edit], generator: torch.Generator) -> Sequence[Edit]:
        if self.max_edits is None or len(edits) <= self.max_edits:
            return edits
        chosen = torch.randperm(len(edits), generator=generator)[: self.max_edits]
        return [edits[i] for i in chosen.tolist()]

    @staticmethod
    def _text_objective(encoder: DualEncoder, pixels: Tensor):  # type: ignore[no-untyped-def]
        with torch.no_grad(), frozen(encoder):
            image = encoder.encode_image(pixels)
        own = torch.eye(len(image), dtype=torch.bool, device=image.device)
        return caption_contrastive(image, own, encoder.logit_scale.detach())


def _image_objective(encoder: DualEncoder, captions: list[str], how: Defence) -> ImageObjective:
    text = embed_texts(encoder, captions)
    scale = encoder.logit_scale.detach()
    if how.loss == "image_to_text":
        own = torch.eye(len(text), dtype=torch.bool, device=text.device)
        return contrastive(text, own, scale)
    return symmetric_contrastive(text, scale)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, how: Defence) -> Tensor:
    """CLIP's loss, or its image-to-text half, over the batch.

    Args:
        image, text: unit (B, D); row i of one belongs to row i of the other.
        scale: logit scale.

    Returns:
        scalar.
    """
    logits = scale * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    to_text = F.cross_entropy(logits, target)
    if how.loss == "image_to_text":
        return to_text
    return (to_text + F.cross_entropy(logits.T, target)) / 2
