"""The reference model, and embeddings before they are brought to norm 1 (FARE, LEAF)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from matlib.attacks.scoring import embed_texts
from matlib.models.dual_encoder import DualEncoder, frozen


@runtime_checkable
class OffersFeatures(DualEncoder, Protocol):
    """A dual encoder that also gives its embeddings before normalisation."""

    def image_features(self, pixels: Tensor) -> Tensor:
        """float (B, 3, H, W) in [0, 1] -> float (B, D) of any length; differentiable."""
        ...

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """B strings -> float (B, D) of any length; differentiable in the weights."""
        ...


class Unnormalised(nn.Module):
    """The same model, with `encode_image` and `encode_text` before normalisation.

    Attacks and losses written for embeddings then measure what FARE and LEAF measure. The
    weights, their flags and the mode are those of the encoder itself, which `frozen` reaches
    through this view.

    Raises:
        ValueError: an encoder that gives unit embeddings only.
    """

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        if not isinstance(encoder, OffersFeatures):
            raise ValueError(
                "distances to a reference are taken before normalisation: the encoder needs "
                f"image_features and text_features; {type(encoder).__name__} has not both"
            )
        self.encoder = encoder
        self.image_size = encoder.image_size
        self.training = bool(getattr(encoder, "training", False))

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def logit_scale(self) -> Tensor:
        return self.encoder.logit_scale

    def encode_image(self, pixels: Tensor) -> Tensor:
        """float (B, 3, H, W) in [0, 1] -> float (B, D), rows of any length."""
        return self.encoder.image_features(pixels)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> float (B, D), rows of any length."""
        return self.encoder.text_features(texts)


def reference_image(reference: DualEncoder | None, pixels: Tensor) -> Tensor:
    """(B, D) embeddings of clean images by the model before fine-tuning, not normalised."""
    model = given_reference(reference)
    with torch.no_grad(), frozen(model):
        return Unnormalised(model).encode_image(pixels)


def reference_text(reference: DualEncoder | None, captions: Sequence[str]) -> Tensor:
    """(B, D) embeddings of clean captions by the model before fine-tuning, not normalised."""
    return embed_texts(Unnormalised(given_reference(reference)), captions)


def given_reference(reference: DualEncoder | None) -> DualEncoder:
    """The reference, if there is one.

    Raises:
        ValueError: there is none.
    """
    if reference is None:
        raise ValueError(
            "this defence is measured against the model before fine-tuning: pass a copy of it "
            "as `reference`"
        )
    return reference
