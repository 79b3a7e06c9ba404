"""What is attacked together: images, captions and which belongs to which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.ascent import AttackReport
from matlib.attacks.budgets import check_count
from matlib.attacks.edits import CandidateTable
from matlib.attacks.scoring import images_per_forward
from matlib.attacks.word_substitution import PreparedSubstitution, WordSubstitution
from matlib.models.dual_encoder import DualEncoder

TextAttack = WordSubstitution | PreparedSubstitution
"""A word substitution, or one prepared for the gallery's captions that several attacks share."""


@dataclass(frozen=True)
class Gallery:
    """N images, M captions and which belongs to which.

    Attributes:
        pixels: float (N, 3, H, W) in [0, 1].
        captions: M captions.
        relevant: bool (N, M), True where the caption is true of the image; each image needs
            at least one caption.
        own: int64 (M,), the image each caption was written for.
        chunk: images per forward; `images_per_forward` by default. No number depends on it.
    """

    pixels: Tensor
    captions: Sequence[str]
    relevant: Tensor
    own: Tensor
    chunk: int | None = None

    def __post_init__(self) -> None:
        n, m = self.pixels.shape[0], len(self.captions)
        if n == 0 or m == 0:
            raise ValueError(f"a gallery needs images and captions; got {n} and {m}")
        if self.relevant.shape != (n, m) or self.own.shape != (m,):
            raise ValueError(
                f"{n} images and {m} captions need relevant ({n}, {m}) and own ({m},); "
                f"got {tuple(self.relevant.shape)} and {tuple(self.own.shape)}"
            )
        if self.chunk is not None:
            check_count("chunk", self.chunk, 1)
        if not bool(self.relevant.any(1).all()):
            raise ValueError("every image needs at least one caption")

    @property
    def own_mask(self) -> Tensor:
        """bool (N, M): the captions written for each image."""
        mask = torch.zeros_like(self.relevant)
        mask[self.own, self._columns] = True
        return mask

    @property
    def last_mask(self) -> Tensor:
        """bool (N, M): of the captions written for each image, the last."""
        mask = self.own_mask
        last = torch.where(mask, self._columns, -1).amax(1)
        return mask & (self._columns == last[:, None])

    @property
    def _columns(self) -> Tensor:
        return torch.arange(len(self.captions), device=self.relevant.device)


def embed_images(encoder: DualEncoder, pixels: Tensor, chunk: int | None = None) -> Tensor:
    """(N, D) unit embeddings without gradients, `chunk` images at a time.

    Args:
        chunk: `images_per_forward` by default.
    """
    size = chunk or images_per_forward(pixels, device=encoder.device)
    with torch.no_grad():
        return torch.cat([encoder.encode_image(part) for part in pixels.split(size)])


def prepared(
    encoder: DualEncoder,
    gallery: Gallery,
    candidates: CandidateTable,
    text: TextAttack,
    report: AttackReport | None = None,
) -> PreparedSubstitution:
    """The text attack bound to the gallery's captions, once for all its passes.

    Args:
        report: counts the captions and their attackable words.

    Raises:
        ValueError: it was prepared for other captions.
    """
    if isinstance(text, WordSubstitution):
        text = text.prepare(encoder, gallery.captions, candidates)
    elif text.captions != list(gallery.captions):
        raise ValueError("the text attack was prepared for other captions than the gallery's")
    if report is not None:
        report.add_captions(len(text.captions), text.n_attackable_words)
    return text


@contextmanager
def searching(
    text: PreparedSubstitution, search: Literal["importance", "exhaustive"]
) -> Iterator[PreparedSubstitution]:
    """The same prepared attack with another search inside the block.

    Embeddings of edits belong to the captions and not to the search, so passes of both kinds
    share them, and one limit holds for what is kept.
    """
    before = text.attack
    text.attack = replace(before, search=search)
    try:
        yield text
    finally:
        text.attack = before
