"""Heads above pretrained towers, trained first and alone on features that are computed once.

Fresh heads under whose gradients pretrained towers move would spoil the features (Kumar et al.
2022, *Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution*).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matlib.data.pairs import OneToMany
from matlib.defences.batch import draw_batches
from matlib.defences.defence import contrastive_loss
from matlib.models.dual_encoder import frozen
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.schedule import Schedule, make_optimiser
from matlib.training.step import MAX_LOGIT_SCALE

_CHUNK = 256
"""Images or captions whose features are computed at once."""


def train_heads(
    encoder: OpenClipEncoder,
    data: OneToMany,
    schedule: Schedule,
    *,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train the modules that map both towers' features into the common space, and the scale.

    The towers are in evaluation mode and every image and caption passes them once; each step
    draws pairs as the training loop does and passes the heads alone. Same arguments, same
    weights.

    Args:
        data: pairs with any number of captions and images each.
        schedule: its steps, batch size, learning rate and weight decay.
        on_step: receives step and loss.

    Raises:
        ValueError: a model whose heads are no modules of their own, or fewer pairs than a batch.
    """
    heads = head_modules(encoder)
    with frozen(encoder):
        images, texts = features(encoder, data)
    n_captions = torch.tensor([len(own) for own in data.captions])
    first = n_captions.cumsum(0) - n_captions  # (N,), of each pair's captions
    scale = encoder.tower("scale")[0]
    learning = [*(p for head in heads for p in head.parameters()), scale]
    optimiser = make_optimiser(learning, schedule)
    order = draw_batches(data, schedule.batch_size, torch.Generator().manual_seed(seed))
    with learns(encoder, learning):
        for step, drawn in zip(range(schedule.n_steps), order, strict=False):
            which = (drawn.caption * n_captions[drawn.index]).long()
            inputs = (images[drawn.index, drawn.rendering], texts[first[drawn.index] + which])
            image, text = (
                F.normalize(head(x.to(encoder.device)), dim=-1)  # (B, F) -> (B, D)
                for head, x in zip(heads, inputs, strict=True)
            )
            loss = contrastive_loss(image, text, encoder.logit_scale)
            for group in optimiser.param_groups:
                group["lr"] = schedule.lr_at(step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                scale.clamp_(0, MAX_LOGIT_SCALE)
            if on_step is not None:
                on_step(step, float(loss.detach()))


def head_modules(encoder: OpenClipEncoder) -> tuple[nn.Module, nn.Module]:
    """What maps the features of the image tower, and those of the text tower.

    Raises:
        ValueError: a model whose heads are no modules of their own.
    """
    found = [getattr(encoder.clip.visual, "head", None), getattr(encoder.clip.text, "proj", None)]
    if not all(isinstance(head, nn.Module) for head in found):
        raise ValueError("heads can be trained on features only where each is a module of its own")
    image, text = found
    return image, text  # type: ignore[return-value]


def features(encoder: OpenClipEncoder, data: OneToMany) -> tuple[Tensor, Tensor]:
    """What the heads are given.

    Returns:
        of every image (N, R, F), and of every caption (M, G) in the order of the pairs.
    """
    image, text = head_modules(encoder)
    n, r = data.images.shape[:2]
    rows = torch.arange(n).repeat_interleave(r), torch.arange(r).repeat(n)
    seen = []
    with torch.no_grad(), inputs_of(image) as given:
        for row, rendering in zip(*(each.split(_CHUNK) for each in rows), strict=True):
            pixels = data.take(row, rendering).to(encoder.device).float() / 255
            encoder.image_features(pixels)
            seen.append(given.pop())
    captions, read = [c for own in data.captions for c in own], []
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))  # little padding
    with torch.no_grad(), inputs_of(text) as given:
        for at in range(0, len(order), _CHUNK):
            encoder.text_features([captions[i] for i in order[at : at + _CHUNK]])
            read.append(given.pop())
    back = torch.tensor(order).argsort()
    return torch.cat(seen).unflatten(0, (n, r)), torch.cat(read)[back]


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list to which every call of the module in the block adds what it was given."""
    given: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        given.append(args[0])

    handle = module.register_forward_pre_hook(note)
    try:
        yield given
    finally:
        handle.remove()


@contextmanager
def learns(encoder: OpenClipEncoder, learning: list[nn.Parameter]) -> Iterator[None]:
    """These parameters alone have gradients in the block."""
    flags = [(p, p.requires_grad) for p in encoder.parameters()]
    encoder.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
