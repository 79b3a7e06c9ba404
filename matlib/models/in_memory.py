"""An open_clip model that a program holds already, behind the `DualEncoder` contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from open_clip.model import get_model_preprocess_cfg
from torch import Tensor, nn

from matlib.models.settings import Settings, said_by_preprocessing


class ClipInMemory(nn.Module):
    """A model of open_clip's, whatever its class, as a `DualEncoder`; nothing is copied.

    Mean, deviation and size of the pixels are those that the model says (open_clip's
    `create_model_and_transforms` writes them into it). `matlib.models.open` loads the same weights
    faster for text attacks, because captions then share what they have in common.

    Args:
        clip: gives features by `encode_image` and `encode_text`, and has a `logit_scale`.
        tokenize: its own, of `open_clip.get_tokenizer`: strings -> int64 (B, T).

    Raises:
        ValueError: not such a model, or one that does not say the size of its images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, clip: nn.Module, tokenize: Callable[..., Tensor]) -> None:
        super().__init__()
        lacking = [n for n in ("visual", "encode_text", "logit_scale") if not hasattr(clip, n)]
        if lacking or not callable(tokenize):
            fault = f"without {', '.join(lacking)}" if lacking else "without a tokenizer"
            raise ValueError(
                "expected a model of open_clip and its tokenizer (open_clip.get_tokenizer); got "
                f"{type(clip).__name__} {fault}"
            )
        said = get_model_preprocess_cfg(clip)
        size = said.get("size")
        sides = {size} if isinstance(size, int) else set(size or ())
        if len(sides) != 1:
            raise ValueError(f"{type(clip).__name__}: expected one side of its images; got {size}")
        self.clip, self.tokenize, self.image_size = clip, tokenize, int(sides.pop())
        settings = Settings(**said_by_preprocessing(said, type(clip).__name__))
        for name, values in (("mean", settings.mean), ("std", settings.std)):
            statistics = torch.tensor(values).view(1, 3, 1, 1).to(self.device)
            self.register_buffer(name, statistics, persistent=False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def logit_scale(self) -> Tensor:
        scale: Tensor = self.clip.logit_scale  # type: ignore[assignment]
        return scale.exp().squeeze()

    def encode_image(self, pixels: Tensor) -> Tensor:
        """float (B, 3, S, S) in [0, 1], S = image_size -> unit (B, D)."""
        expected = (3, self.image_size, self.image_size)
        if tuple(pixels.shape[1:]) != expected:
            raise ValueError(f"expected images {expected}; got {tuple(pixels.shape[1:])}")
        normalised = (pixels.to(self.device) - self.mean) / self.std
        return F.normalize(self.clip.encode_image(normalised), dim=-1)  # type: ignore[operator]

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> unit (B, D)."""
        if isinstance(texts, str):
            raise ValueError("expected a list of captions; got one string")
        tokens = self.tokenize(list(texts)).to(self.device)
        return F.normalize(self.clip.encode_text(tokens), dim=-1)  # type: ignore[operator]
