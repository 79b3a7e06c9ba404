"""The released code's order of operations, written plainly: an oracle, and a yardstick for speed.

Text, as in the code released with Co-Attack and SGA: one caption at a time; every word is
masked, stop words too, in batches of 32; the words are gone through by importance, each with
one forward of the caption and its candidates; every forward is padded to the full context;
SGA's second pass computes everything again although only the guiding image changed.
Image, as in SGA's: 8 images at a time, all views of a step in one forward, a mask of labels
filled by a loop at every view, and each view's loss read back.
Kinder than the released code: no autograd graph of the weights, no synchronisation per
candidate, noise in single precision from torch, this project's tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.ascent import ScaleViews
from matlib.attacks.edits import MASK, CandidateTable, Edit, apply_edit
from matlib.attacks.objectives import TextObjective, kl_from
from matlib.attacks.pgd import PGD
from matlib.models.dual_encoder import frozen
from matlib.models.open_clip import OpenClipEncoder

MASKED_ROWS = 32
IMAGES = 8


@dataclass
class Count:
    """Work of a text tower: forwards, sentences, and positions through its first layer.

    Positions include padding; what sentences of one forward share may be counted once.
    """

    n_forwards: int = 0
    n_rows: int = 0
    n_positions: int = 0


@contextmanager
def counting(encoder: OpenClipEncoder) -> Iterator[Count]:
    """Counts every forward of the text tower inside the block."""
    count = Count()

    def note(_module: Any, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        count.n_forwards += 1
        count.n_positions += inputs[0].shape[:-1].numel()

    def note_rows(_module: Any, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        count.n_rows += len(output)

    text: Any = encoder.clip.text
    hooks = [
        text.transformer.resblocks[0].mlp.register_forward_hook(note),
        text.ln_final.register_forward_hook(note_rows),
    ]
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()


def embed_padded(encoder: OpenClipEncoder, texts: Sequence[str]) -> Tensor:
    """(B, D) unit embeddings, every row padded to the model's full context."""
    short = encoder.tokenize(texts)
    tokens = torch.zeros(len(texts), encoder.tokenize.context_length, dtype=torch.long)  # type: ignore[attr-defined]
    tokens[:, : short.shape[1]] = short
    with torch.no_grad():
        return encoder.clip.encode_text(tokens.to(encoder.device), normalize=True)  # type: ignore[operator]


def peer_text_attack(
    encoder: OpenClipEncoder,
    captions: Sequence[str],
    candidates: CandidateTable,
    objective: TextObjective | None = None,
    n_words: int = 1,
) -> list[str]:
    """One pass over the captions; the same captions as `WordSubstitution` finds.

    Args:
        objective: as for `WordSubstitution`; KL from the clean caption by default.
    """
    return [
        _attack_one(encoder, i, caption, candidates[i], objective, n_words)
        for i, caption in enumerate(captions)
    ]


def peer_both_passes(
    encoder: OpenClipEncoder,
    captions: Sequence[str],
    candidates: CandidateTable,
    objectives: Sequence[TextObjective],
    n_words: int = 1,
) -> list[list[str]]:
    """SGA's text passes, each computed from nothing; one list of captions per objective."""
    return [
        peer_text_attack(encoder, captions, candidates, objective, n_words)
        for objective in objectives
    ]


def _attack_one(
    encoder: OpenClipEncoder,
    index: int,
    caption: str,
    row: Sequence[Edit],
    objective: TextObjective | None,
    n_words: int,
) -> str:
    words = caption.split(" ")
    clean = embed_padded(encoder, [caption])
    masked = [apply_edit(caption, Edit(p, MASK)) for p in range(len(words))]
    features = torch.cat(
        [
            embed_padded(encoder, masked[at : at + MASKED_ROWS])
            for at in range(0, len(masked), MASKED_ROWS)
        ]
    )
    own = torch.zeros(len(words), dtype=torch.long, device=clean.device)
    weight = kl_from(clean)(features, own).tolist()
    current, n_changed = caption, 0
    for position in sorted(range(len(words)), key=lambda p: -weight[p]):
        if n_changed == n_words:
            break
        options = [edit for edit in row if edit.position == position]
        if not options:
            continue  # a stop word
        texts = [current, *(apply_edit(current, edit) for edit in options)]
        edited = embed_padded(encoder, texts)
        if objective is None:
            values = kl_from(clean)(
                edited, torch.zeros(len(texts), dtype=torch.long).to(edited.device)
            )
        else:
            values = objective(edited, torch.full((len(texts),), index).to(edited.device))
        best = int(values.argmax())
        n_changed += texts[best] != current
        current = texts[best]
    return current


class Draws(Protocol):
    """Random numbers shaped like a batch of images."""

    def uniform(self, like: Tensor, /) -> Tensor: ...

    def normal(self, like: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class ReleasedDraws:
    """One generator of the CPU for all images, as the released code draws."""

    generator: torch.Generator

    def uniform(self, like: Tensor, /) -> Tensor:
        return self._drawn(torch.rand, like)

    def normal(self, like: Tensor, /) -> Tensor:
        return self._drawn(torch.randn, like)

    def _drawn(self, sample: Callable[..., Tensor], like: Tensor) -> Tensor:
        found = sample(like.shape, generator=self.generator, dtype=like.dtype)
        return found.to(like.device)


def peer_sga_images(
    encoder: OpenClipEncoder,
    pixels: Tensor,
    text: Tensor,
    own: Tensor,
    image: PGD,
    views: ScaleViews,
    noise: Callable[[Tensor], Draws],
) -> Tensor:
    """SGA's image step; the same pixels as `PGD` with `ScaleViews` finds under the same noise.

    Args:
        pixels: float (N, 3, H, W) in [0, 1].
        text: (M, D) unit embeddings of the captions moved away in the text step.
        own: int64 (M,), the image of each caption.
        noise: batch -> what its noise is drawn from.
    """
    with frozen(encoder):
        parts = [
            _move_batch(encoder, pixels[at : at + IMAGES], text, own - at, image, views, noise)
            for at in range(0, len(pixels), IMAGES)
        ]
    return torch.cat(parts)


def _move_batch(
    encoder: OpenClipEncoder,
    clean: Tensor,
    text: Tensor,
    own: Tensor,
    image: PGD,
    views: ScaleViews,
    noise: Callable[[Tensor], Draws],
) -> Tensor:
    clean, eps = clean.to(encoder.device), image.eps_255 / 255
    draws = noise(clean)
    moved = (clean + (2 * draws.uniform(clean) - 1) * eps).clamp(0, 1)
    for _ in range(image.n_steps):
        leaf = moved.detach().requires_grad_(True)
        seen = [leaf, *(_view(leaf, scale, views, draws) for scale in views.scales)]
        features = encoder.encode_image(torch.cat(seen)).chunk(len(seen))
        loss = torch.zeros((), dtype=clean.dtype, device=clean.device)
        for view in features:
            labels = torch.zeros(len(clean), len(text), dtype=clean.dtype, device=clean.device)
            for i in range(len(clean)):
                labels[i, own == i] = 1
            term = -(view @ text.T * labels).sum(-1).mean()
            term.item()  # the released code keeps the losses of all views for a log
            loss = loss + term
        (gradient,) = torch.autograd.grad(loss, leaf)
        gradient = gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        moved = moved.detach() + image.step * gradient.sign()
        moved = torch.minimum(torch.maximum(moved, clean - eps), clean + eps).clamp(0, 1)
    return moved


def _view(leaf: Tensor, scale: float, views: ScaleViews, draws: Draws) -> Tensor:
    side, smooth = leaf.shape[-1], not views.released
    size = int(scale * side)
    noisy = leaf + views.noise * draws.normal(leaf)
    resized = F.interpolate(noisy, size=size, mode="bicubic", antialias=smooth).clamp(0, 1)
    back = F.interpolate(resized, size=side, mode="bicubic", antialias=smooth)
    return back if views.released else back.clamp(0, 1)
