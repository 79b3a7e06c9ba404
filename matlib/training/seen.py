"""The encoder inside the loss: in the run's precision, and what it embedded is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matlib.models.dual_encoder import DualEncoder
from matlib.training.batch import Batch
from matlib.training.defence import Defence
from matlib.training.processes import Processes
from matlib.training.warning_signs import recall_at_1, spread

Autocast = Callable[[], AbstractContextManager[Any]]


class PreciseEncoder(nn.Module):
    """The same encoder, run under mixed precision; embeddings come out in float32 or better.

    Only the towers run in half precision: logits are up to 100 in size, and bfloat16, with 8
    bits of mantissa, would round them to the nearest 0.25 or 0.5.
    """

    def __init__(self, encoder: DualEncoder, autocast: Autocast = nullcontext) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size = encoder.image_size
        self._autocast = autocast
        self.training = bool(getattr(encoder, "training", False))

    def __getattr__(self, name: str) -> Any:
        """What else the encoder offers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("encoder"), name)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self._run(self.encoder.encode_image, pixels)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self._run(self.encoder.encode_text, texts)

    def image_features(self, pixels: Tensor) -> Tensor:
        return self._run(self.encoder.image_features, pixels)  # type: ignore[attr-defined]

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self._run(self.encoder.text_features, texts)  # type: ignore[attr-defined]

    def _run(self, encode: Callable[[Any], Tensor], inputs: Any) -> Tensor:
        with self._autocast():
            found = encode(inputs)
        return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


class SeenEncoder(PreciseEncoder):
    """Remembers the embeddings of a clean batch and of its attacked version.

    Recall of the batch then costs no pass of its own. Batches are known by the objects that they
    hold, never by content: an attack that changes no caption on one process alone would lead it
    to gather what the others do not.
    """

    def __init__(
        self, encoder: DualEncoder, autocast: Autocast, clean: Batch, attacked: Batch
    ) -> None:
        super().__init__(encoder, autocast)
        self._batches = {"clean": clean, "attacked": attacked}
        self.images: dict[str, Tensor] = {}
        self.texts: dict[str, Tensor] = {}

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self._keep_image(pixels, super().encode_image(pixels))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self._keep_text(texts, super().encode_text(texts))

    def image_features(self, pixels: Tensor) -> Tensor:
        return self._keep_image(pixels, super().image_features(pixels))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self._keep_text(texts, super().text_features(texts))

    def _keep_image(self, pixels: Tensor, found: Tensor) -> Tensor:
        for name, batch in self._batches.items():
            if pixels is batch.pixels:
                self.images[name] = F.normalize(found.detach(), dim=-1)
        return found

    def _keep_text(self, texts: Sequence[str], found: Tensor) -> Tensor:
        for name, batch in self._batches.items():
            if texts is batch.captions:
                self.texts[name] = F.normalize(found.detach(), dim=-1)
        return found

    def measures(self, processes: Processes, is_attacked: bool) -> Tensor:
        """(3,): clean and robust recall at 1 of the batch over all processes, and its spread.

        NaN for what the loss did not embed. Every process calls it.
        """
        images = {name: processes.gather_fixed(f) for name, f in self.images.items()}
        texts = {name: processes.gather_fixed(f) for name, f in self.texts.items()}
        unknown = torch.full((), torch.nan, device=self.encoder.device)
        found = {"clean": unknown, "attacked": unknown, "spread": unknown}
        for name in ("clean", "attacked"):
            if name in images and name in texts and (is_attacked or name == "clean"):
                found[name] = recall_at_1(images[name], texts[name])
        some = [*images.values()][-1:] + [*texts.values()][-1:]
        if some:
            found["spread"] = spread(some[0], some[-1])
        return torch.stack([value.double() for value in found.values()])


class LossModule(nn.Module):
    """The encoder and its loss as one module, which several processes wrap as a whole.

    Every pass of the update happens inside one `forward`, as gradient synchronisation needs.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        how: Defence,
        reference: DualEncoder | None,
        processes: Processes,
        autocast: Autocast,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self._how, self._processes, self._autocast = how, processes, autocast
        self._reference = [reference]  # in a list: its weights are none of this module's
        self.seen: SeenEncoder | None = None

    def forward(self, clean: Batch, attacked: Batch) -> Tensor:
        """The loss of the batch over all processes: a scalar."""
        with torch.autocast(self.encoder.device.type, enabled=False):
            seen = SeenEncoder(self.encoder, self._autocast, clean, attacked)
            loss = self._how.loss(seen, clean, attacked, self._reference[0], self._processes)
        object.__setattr__(self, "seen", seen)  # not a part of this module
        return loss
