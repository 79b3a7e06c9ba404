"""A dual encoder that embeds each sentence once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from matlib.models.dual_encoder import DualEncoder, frozen


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
