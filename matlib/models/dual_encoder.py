"""The contract between a vision-language model and everything that attacks or trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class DualEncoder(Protocol):
    """Pixels and strings in, unit vectors out.

    Normalisation of pixels and tokenisation of strings happen inside, so that a budget
    in pixel units means the same for every model.
    """

    image_size: int

    @property
    def device(self) -> torch.device: ...

    @property
    def logit_scale(self) -> Tensor:
        """Scalar > 0 that multiplies cosine similarities in the contrastive loss."""
        ...

    def encode_image(self, pixels: Tensor) -> Tensor:
        """float (B, 3, H, W) in [0, 1] -> float (B, D), rows of norm 1; differentiable."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> float (B, D), rows of norm 1; differentiable in the weights."""
        ...


def check_pixels(pixels: Tensor) -> None:
    """Refuse images that no attack budget would make sense for.

    Raises:
        ValueError: not a float (B, 3, H, W) tensor with values in [0, 1].
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
        raise ValueError(
            "expected float pixels of shape (B, 3, H, W) in [0, 1]; "
            f"got {pixels.dtype} {tuple(pixels.shape)}. Convert bytes with images.float() / 255."
        )
    if pixels.shape[0] == 0:
        raise ValueError("expected at least one image; got none")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0.0 and high <= 1.0):  # also catches NaN
        raise ValueError(
            f"expected pixels in [0, 1]; got values from {low:.4g} to {high:.4g}. "
            "Pass pixels before normalisation: the model normalises inside."
        )


def check_evaluation_mode(encoder: DualEncoder) -> None:
    """Refuse an encoder whose dropout or batch statistics would make an attack's target move.

    The modules without children decide: a wrapper made around an encoder in evaluation mode
    starts in training mode itself, which changes nothing.

    Raises:
        ValueError: a part of it is in training mode.
    """
    if not isinstance(encoder, nn.Module):
        training = bool(getattr(encoder, "training", False))
    else:
        leaves = (module for module in encoder.modules() if not any(module.children()))
        training = any(module.training for module in leaves)
    if training:
        raise ValueError(
            "expected an encoder in evaluation mode; it is in training mode, where dropout and "
            "batch statistics differ from the model that will be judged. Call encoder.eval()."
        )


@contextmanager
def frozen(encoder: DualEncoder) -> Iterator[None]:
    """Weights without gradients and evaluation mode inside the block, both restored after it.

    Inner maximisation needs gradients with respect to the input only. Frozen weights make
    that cheaper, and nothing can leak into their `.grad` (as it does in MMCoA's released
    training, where the gradients of ten PGD steps are added to the update).
    """
    if not isinstance(encoder, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in encoder.modules()]
    wanted = [(p, p.requires_grad) for p in encoder.parameters()]
    try:
        encoder.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, needed in wanted:
            parameter.requires_grad_(needed)
        for module, mode in modes:
            module.training = mode


class CachedText(nn.Module):
    """Wraps an encoder whose weights do not change while it is attacked.

    Text attacks meet the same sentences many times: masked captions are shared by all
    threats, edited captions by all attacks, and SGA's second text step by its first.
    Embeddings are kept by string, without gradients.

    Attributes:
        n_embedded: sentences embedded so far.
        n_asked: sentences asked for so far.
    """

    def __init__(self, encoder: DualEncoder, chunk: int = 512) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size = encoder.image_size
        self.chunk = chunk
        self.n_embedded = 0
        self.n_asked = 0
        self._row: dict[str, int] = {}
        self._blocks: list[Tensor] = []
        self._all: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def logit_scale(self) -> Tensor:
        return self.encoder.logit_scale

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.encoder.encode_image(pixels)

    @property
    def word_saliency(self) -> Callable[..., list[list[float]]]:
        """The encoder's own, if it has one: gradients are not kept."""
        found: Callable[..., list[list[float]]] = self.encoder.word_saliency  # type: ignore[attr-defined]
        return found

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> unit (B, D), detached."""
        self.n_asked += len(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._row]
        new.sort()  # sentences that begin alike share a forward, which computes that part once
        for i in range(0, len(new), self.chunk):
            part = new[i : i + self.chunk]
            with torch.no_grad(), frozen(self.encoder):
                self._blocks.append(self.encoder.encode_text(part))
            for text in part:
                self._row[text] = len(self._row)
        if new:
            self.n_embedded += len(new)
            self._all = torch.cat(self._blocks)
            self._blocks = [self._all]
        assert self._all is not None, "encode_text needs at least one string"
        return self._all[[self._row[text] for text in texts]]
