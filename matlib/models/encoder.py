"""What the models of several libraries have in common behind the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matlib.models.dual_encoder import TowerPart, parameters_of, weights_of
from matlib.models.settings import Settings


class VisionLanguageModel(nn.Module):
    """A model of some library as a `TrainableEncoder`; subclasses say how it embeds.

    Args:
        clip: the library's model.
        image_size: side of the square input in pixels.
        settings: what the weights were trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, clip: nn.Module, image_size: int, settings: Settings) -> None:
        super().__init__()
        self.clip, self.image_size, self.settings = clip, image_size, settings
        for name, values in (("mean", settings.mean), ("std", settings.std)):
            statistics = torch.tensor(values).view(1, 3, 1, 1).to(self.device)
            self.register_buffer(name, statistics, persistent=False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def log_scale(self) -> nn.Parameter:
        """The logarithm of `logit_scale`, which learns."""
        return cast(nn.Parameter, self.clip.logit_scale)

    @property
    def logit_scale(self) -> Tensor:
        return self.log_scale.exp().squeeze()

    def encode_image(self, pixels: Tensor) -> Tensor:
        """float (B, 3, S, S) in [0, 1], S = image_size -> unit (B, D)."""
        return F.normalize(self.image_features(pixels), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> unit (B, D). An empty string is the embedding of no words."""
        return F.normalize(self.text_features(texts), dim=-1)

    def image_features(self, pixels: Tensor) -> Tensor:
        """Like `encode_image`, before the rows are brought to norm 1."""
        return self._image_features(self.normalised(pixels))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Like `encode_text`, before the rows are brought to norm 1."""
        if isinstance(texts, str):
            raise ValueError("expected a list of captions; got one string")
        return self._text_features(list(texts))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels as the image tower takes them.

        Raises:
            ValueError: images of another size.
        """
        expected = (3, self.image_size, self.image_size)
        if tuple(pixels.shape[1:]) != expected:
            raise ValueError(f"expected images {expected}; got {tuple(pixels.shape[1:])}")
        return (pixels.to(self.device) - self.mean) / self.std

    def tower(self, name: str) -> list[nn.Parameter]:
        """See `parameters_of`."""
        return parameters_of(self, name)

    def towers(self) -> dict[str, list[TowerPart]]:
        """See `TrainableEncoder`."""
        raise NotImplementedError

    def heads(self) -> list[nn.Parameter]:
        """See `TrainableEncoder`."""
        raise NotImplementedError

    def _image_features(self, normalised: Tensor) -> Tensor:
        raise NotImplementedError

    def _text_features(self, texts: list[str]) -> Tensor:
        raise NotImplementedError


def named_parts(owner: Any, *names: str) -> list[TowerPart]:
    """Those of its parts that are there, in this order."""
    found = [getattr(owner, name, None) for name in names]
    return [part for part in found if isinstance(part, (nn.Parameter, nn.Module))]


def rest_of(module: nn.Module, *taken: Sequence[TowerPart]) -> list[TowerPart]:
    """What belongs to no tower yet: the weights of a module without those of some parts."""
    own = {id(parameter) for parts in taken for parameter in weights_of(parts)}
    return [parameter for parameter in module.parameters() if id(parameter) not in own]
