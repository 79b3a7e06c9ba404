"""The contract between a vision-language model and everything that attacks or trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

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


TowerPart = nn.Module | nn.Parameter
"""A part of a tower: a layer with all that is in it, or one tensor."""


@runtime_checkable
class TrainableEncoder(DualEncoder, Protocol):
    """A `torch.nn.Module` whose towers can learn apart: what `matlib.training.train` takes.

    The methods of `torch.nn.Module` are those that training uses.
    """

    training: bool

    def towers(self) -> Mapping[str, Sequence[TowerPart]]:
        """The parts of each tower: `image`, `text`, `scale`, and `fusion` of fusion models.

        No weight is in two of them. `scale` is one parameter, the logarithm of `logit_scale`.
        """
        ...

    def heads(self) -> list[nn.Parameter]:
        """What maps the features of both towers into the common space, and the scale.

        Empty for towers whose last layer is part of something larger.
        """
        ...

    def modules(self) -> Iterator[nn.Module]: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def requires_grad_(self, requires_grad: bool = True) -> Self: ...

    def train(self, mode: bool = True) -> Self: ...

    def eval(self) -> Self: ...


@dataclass(frozen=True)
class Fused:
    """What a fusion model sees when it reads texts beside images, pair by pair.

    Attributes:
        score: float (B,), the logit of "this text belongs to this image".
        state: float (B, W), the fused representation, from which the score is computed.
        attention: per layer of the fusion float (B, heads, T, 1 + P), how much each token of a
            text looks at the image's class token and at its P patches, row by row from the top
            left; rows of sum 1, in the graph of `score`.
        is_word: bool (B, T), True for tokens of the text, without start, end and padding.
    """

    score: Tensor
    state: Tensor
    attention: tuple[Tensor, ...]
    is_word: Tensor


@runtime_checkable
class FusionEncoder(TrainableEncoder, Protocol):
    """A model that also reads image and text together (ALBEF, BLIP).

    `images` of these methods are pixels, float (B, 3, S, S) in [0, 1], or what `image_tokens`
    made of them, which saves that work where an image meets many texts.
    """

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """float (B, 3, S, S) in [0, 1] -> float (B, 1 + P, W), class token first."""
        ...

    def match(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """B images and B texts -> float (B,): the logit that text b belongs to image b."""
        ...

    def fused(self, images: Tensor, texts: Sequence[str]) -> Fused:
        """`match` with what led to it, for attacks and for Grad-CAM."""
        ...


def as_fusion(encoder: DualEncoder) -> FusionEncoder | None:
    """The same encoder if it reads image and text together, wrapped or not; else None."""
    found: Any = encoder
    return found if callable(getattr(found, "match", None)) else None


def parameters_of(encoder: TrainableEncoder, name: str) -> list[nn.Parameter]:
    """The weights of one tower.

    Raises:
        ValueError: the model has no such tower.
    """
    towers = encoder.towers()
    if name not in towers:
        raise ValueError(f"this model has the parts {', '.join(towers)}; got {name!r}")
    return weights_of(towers[name])


def weights_of(parts: Sequence[TowerPart]) -> list[nn.Parameter]:
    """All weights of some parts."""
    return [
        parameter
        for part in parts
        for parameter in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]


def check_pixels(pixels: Tensor, in_range: bool = False) -> None:
    """Refuse images that no attack budget would make sense for.

    Args:
        in_range: values are known to lie in [0, 1]: they are not read, for which the host would
            wait.

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
    if in_range:
        return
    low, high = torch.stack(pixels.aminmax()).tolist()
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

    Args:
        encoder: the model, untouched afterwards.
        chunk: sentences of a forward.
        max_kept: rows that are kept, D floats each, 2 GiB at D = 512 by default; all are
            forgotten when one more comes.

    Attributes:
        n_embedded: sentences embedded so far.
        n_asked: sentences asked for so far.
    """

    def __init__(self, encoder: DualEncoder, chunk: int = 512, max_kept: int = 2**20) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size = encoder.image_size
        self.chunk, self.max_kept = chunk, max_kept
        self.n_embedded = 0
        self.n_asked = 0
        self._row: dict[str, int] = {}
        self._kept: Tensor | None = None  # (C, D), C >= len(self._row)

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @property
    def logit_scale(self) -> Tensor:
        return self.encoder.logit_scale

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.encoder.encode_image(pixels)

    def __getattr__(self, name: str) -> Any:
        """The methods of fusion models, where it is one: what they read is not kept."""
        if name not in ("image_tokens", "match", "fused"):
            return super().__getattr__(name)
        return getattr(super().__getattr__("encoder"), name)

    @property
    def word_saliency(self) -> Callable[..., list[list[float]]]:
        """The encoder's own, if it has one: gradients are not kept."""
        found: Callable[..., list[list[float]]] = self.encoder.word_saliency  # type: ignore[attr-defined]
        return found

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> unit (B, D), detached."""
        self.n_asked += len(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._row]
        if len(self._row) + len(new) > self.max_kept:
            self._row, new = {}, list(dict.fromkeys(texts))
        new.sort()  # sentences that begin alike share a forward, which computes that part once
        for i in range(0, len(new), self.chunk):
            part = new[i : i + self.chunk]
            with torch.no_grad(), frozen(self.encoder):
                self._keep(part, self.encoder.encode_text(part))
        self.n_embedded += len(new)
        assert self._kept is not None, "encode_text needs at least one string"
        return self._kept[[self._row[text] for text in texts]]  # (B, D)

    def _keep(self, texts: Sequence[str], features: Tensor) -> None:
        """Append (R, D) rows; what holds them doubles when it is full."""
        n = len(self._row)
        if self._kept is None or n + len(texts) > len(self._kept):
            old, size = self._kept, max(2 * n, n + len(texts))
            self._kept = features.new_empty(size, features.shape[1])
            if old is not None:
                self._kept[:n] = old[:n]
        self._kept[n : n + len(texts)] = features
        for text in texts:
            self._row[text] = len(self._row)
