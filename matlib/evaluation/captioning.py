"""Captioning under attack: how much of what a captioner writes is still right.

Images are attacked through the loss of the caption that the captioner writes for the clean image,
or through the embeddings of its image tower alone, which needs no captioner. Its captions are
judged by BLEU-4 against human ones, by similarity (CLIPScore's cosine), and by truth where a world
knows it: the share of a caption's facts that hold in the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torchmetrics.functional.text import bleu_score

from matlib.attacks.ascent import ImageAttack, attack_in_chunks
from matlib.attacks.gallery import embed_images
from matlib.attacks.objectives import squared_distance
from matlib.attacks.scored import ascend_score
from matlib.attacks.scoring import embed_texts
from matlib.models.dual_encoder import DualEncoder

CAPTIONING_ATTACKS = ("clean", "embeddings", "caption-loss")
"""No attack; the embedding moved away from the clean one; the clean caption made unlikely."""


class AttackableCaptioner(Protocol):
    """A captioner whose loss has a gradient in the pixels."""

    @property
    def parts(self) -> Sequence[nn.Module]:
        """The modules that `loss` runs through."""
        ...

    def loss(self, pixels: Tensor, captions: Sequence[str]) -> Tensor:
        """float (B, 3, H, W) in [0, 1] and B captions -> (B,) mean cross-entropy per word."""
        ...

    def describe(self, pixels: Tensor) -> list[str]:
        """A caption of each of float (B, 3, H, W) in [0, 1], the same every time."""
        ...


@dataclass(frozen=True)
class Captioned:
    """What was written under each attack.

    Attributes:
        captions: attack -> a caption for each of N images.
        pixels: attack -> float (N, 3, H, W), what the captioner was shown.
    """

    captions: dict[str, list[str]]
    pixels: dict[str, Tensor]


def caption_under_attack(
    captioner: AttackableCaptioner,
    pixels: Tensor,
    attack: ImageAttack,
    *,
    encoder: DualEncoder | None = None,
    seed: int = 0,
) -> Captioned:
    """Captions of clean images and of attacked ones.

    Args:
        captioner: in evaluation mode.
        pixels: float (N, 3, H, W) in [0, 1], on the captioner's device.
        attack: `PGD` or `APGD`, with its budget; from a random start, since the embedding's
            attack has no gradient at the clean image.
        encoder: of the attack on embeddings alone, which is left out without one.
        seed: of the attacks' draws.
    """
    written = captioner.describe(pixels)
    shown = {"clean": pixels}
    if encoder is not None:
        clean = embed_images(encoder, pixels)
        shown["embeddings"] = attack_in_chunks(
            attack, encoder, pixels, lambda rows: squared_distance(clean[rows]),
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip

    def unlikely(moved: Tensor, rows: Tensor) -> Tensor:
        return captioner.loss(moved, [written[i] for i in rows.tolist()])

    shown["caption-loss"] = ascend_score(
        attack, pixels, unlikely, captioner.parts, generator=torch.Generator().manual_seed(seed)
    )
    others = {name: captioner.describe(moved) for name, moved in shown.items() if name != "clean"}
    return Captioned({"clean": written, **others}, shown)


def bleu_4(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
    """(N,) BLEU-4 of each caption against its references, in [0, 1].

    Of single sentences, so that images can be resampled: torchmetrics' `bleu_score` with its
    smoothing (Lin and Och 2004). It is 0 where no four words in a row are right.

    Args:
        captions: N strings.
        references: per caption one or more human captions.

    Raises:
        ValueError: not as many references as captions, or a caption without any.
    """
    if len(captions) != len(references) or not all(references):
        raise ValueError(
            f"expected human captions for each of {len(captions)} captions; got them for "
            f"{sum(map(bool, references))}"
        )
    return torch.tensor([
        float(bleu_score([one.lower()], [[r.lower() for r in own]], n_gram=4, smooth=True))
        if one.strip() else 0.0
        for one, own in zip(captions, references, strict=True)
    ])  # fmt: skip


def caption_scores(
    captions: Sequence[str],
    pixels: Tensor,
    references: Sequence[Sequence[str]],
    judge: DualEncoder,
    truth: Callable[[int, str], float] | None = None,
) -> dict[str, Tensor]:
    """How good a caption of each image is, by every measure.

    Args:
        captions: N strings.
        pixels: the *clean* images, float (N, 3, H, W) in [0, 1].
        references: per image one or more human captions.
        judge: an encoder other than the attacked one, whose cosine of the caption with the clean
            image is `similarity` (CLIPScore: Hessel et al. 2021, without its factor of 2.5).
        truth: (image, caption) -> share in [0, 1] of the caption's facts that hold.

    Returns:
        measure -> (N,) on the CPU: `bleu`, `similarity`, and `truth` where it is known.
    """
    image, text = embed_images(judge, pixels), embed_texts(judge, captions)
    found = {"bleu": bleu_4(captions, references), "similarity": (image * text).sum(1).cpu()}
    if truth is not None:
        found["truth"] = torch.tensor([truth(i, caption) for i, caption in enumerate(captions)])
    return found
