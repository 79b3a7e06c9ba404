"""PGD against a loop over images, steps and restarts, written as one would explain it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import ScaleViews, attack_in_chunks
from matlib.attacks.gallery import embed_images
from matlib.attacks.noise import noise_of
from matlib.attacks.objectives import contrastive
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import CPU_BYTES, images_per_forward
from matlib.models.open_clip import OpenClipEncoder
from tests.attacks.plain_noise import plain_streams
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
    streams, eps = plain_streams(len(pixels), generator(seed)), attack.eps_255 / 255
    starts = []
    for _ in range(attack.n_restarts):
        if attack.start == "none":
            starts.append(torch.zeros_like(pixels))
        elif attack.norm == "linf":
            unit = torch.stack([stream.uniform(pixels[0].shape) for stream in streams])
            starts.append(unit * eps if attack.start == "positive" else (2 * unit - 1) * eps)
        else:
            normal = torch.stack([stream.normal(pixels[0].shape) for stream in streams])
            u = torch.stack([stream.uniform((1, 1, 1)) for stream in streams])
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

    noise, eps = noise_of(generator(), pixels), 4 / 255
    x = (pixels + (2 * noise.uniform(pixels) - 1) * eps).clamp(0, 1)
    for _ in range(3):
        x = x.detach().requires_grad_(True)
        total = torch.zeros((), dtype=x.dtype)
        for view in scales(x, noise):
            for i in range(2):
                logits = 10.0 * text @ encoder.encode_image(view[i : i + 1])[0]
                total = total + torch.log(logits.exp().sum() - logits[i].exp()) - logits[i]
        (gradient,) = torch.autograd.grad(total, x)
        x = into_the_ball(x.detach() + attack.step * gradient.sign(), pixels, eps, "linf")
    assert torch.allclose(batched, x, atol=1e-9)


@pytest.mark.parametrize("views", [None, ScaleViews((0.5, 1.5))], ids=["plain", "views"])
@pytest.mark.parametrize("attack", [PGD(4.0, 2), PGD(200.0, 2, norm="l2"), APGD(4.0, 3)], ids=repr)
def test_no_number_depends_on_the_chunk(attack: Any, views: ScaleViews | None) -> None:
    encoder, pixels = tiny_encoder().double(), random_pixels(5).double()
    text = encoder.encode_text(CAPTIONS).detach()
    mask = torch.eye(5, dtype=torch.bool)

    def moved(chunk: int | None) -> torch.Tensor:
        return attack_in_chunks(
            attack, encoder, pixels, lambda rows: contrastive(text, mask[rows], 10.0),
            generator=generator(), views=views, chunk=chunk,
        )  # fmt: skip

    whole = moved(None)
    for chunk in (1, 2, 5):
        assert torch.allclose(moved(chunk), whole, atol=1e-9, rtol=0)
    few = attack_in_chunks(
        attack, encoder, pixels[:2], lambda rows: contrastive(text, mask[:2][rows], 10.0),
        generator=generator(), views=views,
    )  # fmt: skip
    assert torch.allclose(few, whole[:2], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("side", "n_views", "n"), [(224, 5, 11), (224, 1, 55), (2000, 5, 1)])
def test_a_forward_is_bounded_in_bytes_of_pixels_and_views(side: int, n_views: int, n: int) -> None:
    pixels = torch.empty(1, 3, side, side)
    assert images_per_forward(pixels, n_views) == n
    assert n == 1 or n * n_views * 3 * side**2 * 4 <= CPU_BYTES
    assert images_per_forward(pixels.double(), n_views) == max(1, n // 2)


def test_memory_of_an_attack_is_bounded_whatever_the_gallery() -> None:
    encoder, pixels, seen = tiny_encoder(), torch.rand(40, 3, 16, 16), []
    image = encoder.encode_image
    encoder.encode_image = lambda x: seen.append(x.numel() * 4) or image(x)  # type: ignore
    bound, views = 2**16, ScaleViews()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matlib.attacks.scoring.CPU_BYTES", bound)
        attack_in_chunks(
            PGD(4.0, 1), encoder, pixels, lambda rows: lambda features: features.sum(1),
            generator=generator(), views=views,
        )  # fmt: skip
        embed_images(encoder, pixels)
    assert len(seen) > 2 and bound / 2 < max(seen) <= bound


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
