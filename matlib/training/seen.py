"""What the loss embedded, in the run's precision, and signs in it that a training goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matlib.defences.batch import Batch
from matlib.defences.defence import Defence
from matlib.defences.processes import Processes
from matlib.models.dual_encoder import DualEncoder

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
        """What else the encoder offers; the methods of fusion run under mixed precision too."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(super().__getattr__("encoder"), name)
        return partial(self._run, found) if name in ("image_tokens", "match") else found

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self._run(self.encoder.encode_image, pixels)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self._run(self.encoder.encode_text, texts)

    def image_features(self, pixels: Tensor) -> Tensor:
        return self._run(self.encoder.image_features, pixels)  # type: ignore[attr-defined]

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self._run(self.encoder.text_features, texts)  # type: ignore[attr-defined]

    def _run(self, encode: Callable[..., Tensor], *inputs: Any) -> Tensor:
        with self._autocast():
            found = encode(*inputs)
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
        return self._keep_image(pixels, super().encode_image(pixels), is_unit=True)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self._keep_text(texts, super().encode_text(texts), is_unit=True)

    def image_features(self, pixels: Tensor) -> Tensor:
        return self._keep_image(pixels, super().image_features(pixels))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self._keep_text(texts, super().text_features(texts))

    def _keep_image(self, pixels: Tensor, found: Tensor, is_unit: bool = False) -> Tensor:
        for name, batch in self._batches.items():
            if pixels is batch.pixels:
                self.images[name] = found.detach() if is_unit else F.normalize(found.detach())
        return found

    def _keep_text(self, texts: Sequence[str], found: Tensor, is_unit: bool = False) -> Tensor:
        for name, batch in self._batches.items():
            if texts is batch.captions:
                self.texts[name] = found.detach() if is_unit else F.normalize(found.detach())
        return found

    def measures(self, processes: Processes, is_attacked: bool) -> dict[str, Tensor]:
        """Scalars: `clean_recall`, `robust_recall` at 1 of the batch over all processes, `spread`.

        Without what the loss did not embed. Every process calls it.
        """
        images = {name: processes.gather_fixed(f) for name, f in self.images.items()}
        texts = {name: processes.gather_fixed(f) for name, f in self.texts.items()}
        similarity = {name: images[name] @ texts[name].T for name in images if name in texts}
        told = {"clean": "clean_recall", **({"attacked": "robust_recall"} if is_attacked else {})}
        found = {told[name]: recall_at_1(similarity[name]) for name in told if name in similarity}
        sides = [[*side.items()][-1] for side in (images, texts) if side]
        if sides:
            (name, some), (other, others) = sides[0], sides[-1]
            is_known = name == other and name in similarity
            found["spread"] = spread(similarity[name] if is_known else some @ others.T)
        return found


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


COLLAPSE_SPREAD = 1e-3
"""Similarities that differ by less than this are all equal: times CLIP's largest scale of 100
their logits differ by 0.1, and no pair is told from another (source: ours)."""

OVERFIT_DROP = 0.05
"""A fall of held-out robust recall that is no longer noise of a few hundred pairs: two standard
errors at recall 0.5 and 400 pairs, 2 * sqrt(0.25 / 400) = 0.05 (source: ours)."""


def spread(similarity: Tensor) -> Tensor:
    """Scalar: largest minus smallest similarity of a (B, C) table."""
    low, high = similarity.detach().aminmax()
    return high - low


def recall_at_1(similarity: Tensor) -> Tensor:
    """Scalar in [0, 1]: mean recall at 1 of both directions among the pairs of a batch.

    A tie counts as a miss, so that a collapsed embedding recalls nothing.

    Args:
        similarity: (G, G), of image i and text j; those of the same number belong together.
    """
    similarity = similarity.detach()
    own, both = similarity.diagonal(), torch.stack([similarity, similarity.T])  # (2, G, G)
    n_not_below = (both >= own[:, None]).sum(2)  # (2, G), itself among them
    return (n_not_below == 1).mean(dtype=own.dtype)


def collapse(step: int, spread_now: float, warnings: Sequence[str]) -> str | None:
    """A warning when all similarities of a batch are equal; once in a run."""
    if not spread_now < COLLAPSE_SPREAD or any("collapsed" in text for text in warnings):
        return None
    return (
        f"step {step}: the embedding has collapsed: all similarities of the batch lie within "
        f"{spread_now:.1e}. Lower the learning rate or eps, or warm up for longer."
    )


@dataclass(frozen=True)
class HeldOut:
    """One measurement beside training.

    Attributes:
        step: after which step.
        held_out: robust recall on held-out pairs, in [0, 1].
        train: mean robust recall of the batches since the last measurement; NaN if unknown.
    """

    step: int
    held_out: float
    train: float


def overfitting(measured: Sequence[HeldOut], warnings: Sequence[str]) -> str | None:
    """A warning when training gains robustness that held-out pairs lose; once in a run.

    That is catastrophic over-fitting (Wong et al. 2020; Rice et al. 2020): held-out robust
    recall lies `OVERFIT_DROP` below its best so far while that of training has risen since.
    """
    if len(measured) < 2 or any("over-fitting" in text for text in warnings):
        return None
    best, last = max(measured, key=lambda m: m.held_out), measured[-1]
    if not (last.held_out <= best.held_out - OVERFIT_DROP and last.train > best.train):
        return None
    return (
        f"step {last.step}: catastrophic over-fitting: since step {best.step} robust recall rose "
        f"from {best.train:.2f} to {last.train:.2f} in training and fell from "
        f"{best.held_out:.2f} to {last.held_out:.2f} on held-out pairs. Stop at step "
        f"{best.step}, or train with more attack steps or a smaller eps."
    )
