"""PGD against a loop over images, steps and restarts, written as one would explain it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from matlib.attacks.image import PGD, ScaleViews, attack_in_chunks
from matlib.attacks.image_objectives import contrastive
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_pixels, tiny_encoder

CAPTIONS = ["red circle", "blue star", "small green cross", "large square", "star near cross"]

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no start": {"start": "none"},
    "positive start": {"start": "positive"},
    "momentum": {"momentum": 0.9},
    "momentum as in FARE's code": {"momentum": 0.9, "renormalise_velocity": True},
    "restarts": {"n_restarts": 3},
    "restarts, momentum, positive start": {
        "n_restarts": 2,
        "momentum": 0.5,
        "start": "positive",
    },
}


def drawn_starts(pixels: Tensor, attack: PGD, seed: int) -> list[Tensor]:
    """One start per run, for all images; the draws of the batched attack, in its order."""
    g, eps, starts = generator(seed), attack.eps_255 / 255, []
    for _ in range(attack.n_restarts):
        if attack.start == "none":
            starts.append(torch.zeros_like(pixels))
        elif attack.norm == "linf":
            unit = torch.rand(pixels.shape, generator=g, dtype=pixels.dtype)
            starts.append(unit * eps if attack.start == "positive" else (2 * unit - 1) * eps)
        else:
            normal = torch.randn(pixels.shape, generator=g, dtype=pixels.dtype)
            u = torch.rand(len(pixels), 1, 1, 1, generator=g, dtype=pixels.dtype)
            lengths = torch.stack([image.norm() for image in normal]).view(-1, 1, 1, 1)
            starts.append(normal / lengths * eps * u ** (1 / pixels[0].numel()))
    return starts


def unit(gradient: Tensor, norm: str) -> Tensor:
    return gradient.sign() if norm == "linf" else gradient / gradient.norm()


def into_the_ball(x: Tensor, image: Tensor, eps: float, norm: str) -> Tensor:
    if norm == "linf":
        return torch.max(torch.min(x, image + eps), image - eps).clamp(0, 1)
    offset = x - image
    if float(offset.norm()) > eps:
        offset = offset / offset.norm() * eps
    return (image + offset).clamp(0, 1)


def plain_pgd(
    encoder: OpenClipEncoder, pixels: Tensor, text: Tensor, attack: PGD, seed: int
) -> Tensor:
    """Image by image, run by run, step by step; cross-entropy written out."""
    eps = attack.eps_255 / 255

    def loss(x: Tensor, i: int) -> Tensor:
        logits = 10.0 * text @ encoder.encode_image(x[None])[0]
        return torch.log(logits.exp().sum()) - logits[i]

    starts, chosen = drawn_starts(pixels, attack, seed), []
    for i, image in enumerate(pixels):
        best, best_loss = image, -math.inf
        for start in starts:
            x = into_the_ball(image + start[i], image, eps, attack.norm)
            velocity = torch.zeros_like(x)
            for _ in range(attack.n_steps):
                x = x.clone().requires_grad_(True)
                (gradient,) = torch.autograd.grad(loss(x, i), x)
                velocity = attack.momentum * velocity + unit(gradient, attack.norm)
                if attack.renormalise_velocity:
                    velocity = unit(velocity, attack.norm)
                x = x.detach() + attack.step * unit(velocity, attack.norm)
                x = into_the_ball(x, image, eps, attack.norm)
            if float(loss(x, i).detach()) > best_loss:
                best, best_loss = x, float(loss(x, i).detach())
        chosen.append(best)
    return torch.stack(chosen)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_plain_loop_over_images(variant: str, norm: str) -> None:
    how = dict(VARIANTS[variant])
    if norm == "l2" and how.get("start") == "positive":
        how["start"] = "uniform"
    # float64: the sign of a gradient near zero must not hang on the order of a sum
    encoder, pixels = tiny_encoder().double(), random_pixels(3).double()
    text = encoder.encode_text(CAPTIONS[:3]).detach()
    attack = PGD(4.0 if norm == "linf" else 64.0, 4, norm=norm, **how)  # type: ignore[arg-type]
    score = contrastive(text, torch.eye(3, dtype=torch.bool), 10.0)
    batched = attack(encoder, pixels, score, generator=generator(7))
    assert not torch.equal(batched, pixels)
    assert torch.allclose(batched, plain_pgd(encoder, pixels, text, attack, 7), atol=1e-9)


@settings(max_examples=20)
@given(
    n=st.integers(1, 5),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.sampled_from([0.5, 3.0, 40.0]),
    steps=st.integers(1, 3),
    momentum=st.sampled_from([0.0, 0.9]),
    runs=st.integers(1, 2),
    seed=st.integers(0, 3),
)
def test_equals_the_plain_loop_for_any_batch_and_budget(
    n: int, norm: str, eps: float, steps: int, momentum: float, runs: int, seed: int
) -> None:
    encoder, pixels = tiny_encoder().double(), random_pixels(n, seed).double().round(decimals=1)
    text = encoder.encode_text(CAPTIONS).detach()
    mask = torch.eye(n, len(CAPTIONS), dtype=torch.bool)
    attack = PGD(eps, steps, norm=norm, momentum=momentum, n_restarts=runs)  # type: ignore[arg-type]
    score = contrastive(text, mask, 10.0)
    batched = attack(encoder, pixels, score, generator=generator(seed))
    expected = plain_pgd(encoder, pixels, text, attack, seed)
    assert torch.allclose(batched, expected, atol=1e-6)


def test_views_are_summed_step_by_step() -> None:
    encoder, pixels = tiny_encoder().double(), random_pixels(2).double()
    text = encoder.encode_text(CAPTIONS[:2]).detach()
    score = contrastive(text, torch.eye(2, dtype=torch.bool), 10.0)
    attack, scales = PGD(4.0, 3), ScaleViews((0.5, 1.5))
    batched = attack(encoder, pixels, score, generator=generator(), views=scales)

    g, eps = generator(), 4 / 255
    x = pixels + (2 * torch.rand(pixels.shape, generator=g, dtype=pixels.dtype) - 1) * eps
    x = x.clamp(0, 1)
    for _ in range(3):
        x = x.detach().requires_grad_(True)
        total = torch.zeros((), dtype=x.dtype)
        for view in scales(x, g):
            for i in range(2):
                logits = 10.0 * text @ encoder.encode_image(view[i : i + 1])[0]
                total = total + torch.log(logits.exp().sum() - logits[i].exp()) - logits[i]
        (gradient,) = torch.autograd.grad(total, x)
        x = into_the_ball(x.detach() + attack.step * gradient.sign(), pixels, eps, "linf")
    assert torch.allclose(batched, x, atol=1e-9)


def test_chunks_are_the_same_attack_on_fewer_images() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(5)
    text = encoder.encode_text(CAPTIONS).detach()
    mask = torch.eye(5, dtype=torch.bool)
    attack, g = PGD(4.0, 2), generator()
    parts = [
        attack(encoder, pixels[a:b], contrastive(text, mask[a:b], 10.0), generator=g)
        for a, b in ((0, 2), (2, 4), (4, 5))
    ]
    chunked = attack_in_chunks(
        attack,
        encoder,
        pixels,
        lambda rows: contrastive(text, mask[rows], 10.0),
        generator=generator(),
        chunk=2,
    )
    assert torch.equal(chunked, torch.cat(parts))


def test_momentum_that_is_renormalised_changes_no_linf_step() -> None:
    # FARE's code: sign(0.9 * (+-1) + sign(g)) = sign(g), so its momentum of 0.9 does nothing
    encoder, pixels = tiny_encoder().double(), random_pixels(3).double()
    text = encoder.encode_text(CAPTIONS[:3]).detach()
    score = contrastive(text, torch.eye(3, dtype=torch.bool), 10.0)
    plain, released, accumulated = (
        PGD(8.0, 10, **how)(encoder, pixels, score, generator=generator())  # type: ignore[arg-type]
        for how in ({}, {"momentum": 0.9, "renormalise_velocity": True}, {"momentum": 0.9})
    )
    assert torch.equal(plain, released)
    assert not torch.equal(plain, accumulated)
