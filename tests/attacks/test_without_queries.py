"""Attacks that need no gradient of what is judged: a universal perturbation, a hub."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from matlib.attacks.balls import Norm
from matlib.attacks.gallery import Gallery
from matlib.attacks.hubs import behind, hub
from matlib.attacks.objectives import contrastive
from matlib.attacks.pgd import PGD
from matlib.attacks.universal import Universal
from matlib.evaluation.retrieval import retrieve
from tests.toys import generator, tiny_encoder, toy_gallery

TRAIN = toy_gallery([1, 2, 1, 2, 1, 2, 1, 1], seed=3)


def loss(gallery: Gallery, pixels: torch.Tensor) -> float:
    encoder = tiny_encoder()
    with torch.no_grad():
        text, image = encoder.encode_text(list(gallery.captions)), encoder.encode_image(pixels)
        score = contrastive(text, gallery.relevant, encoder.logit_scale.detach())
        return float(score(image).mean())


@pytest.mark.parametrize("norm, eps", [("linf", 8.0), ("l2", 100.0)])
def test_a_universal_perturbation_keeps_its_budget_and_raises_the_loss(
    norm: Norm, eps: float
) -> None:
    attack = Universal(eps, n_epochs=8, batch_size=4, norm=norm)
    added = attack.learn(tiny_encoder(), TRAIN, generator())
    order = torch.inf if norm == "linf" else 2.0
    assert float(torch.linalg.vector_norm(added.flatten(), ord=order)) <= eps / 255 + 1e-6
    moved = attack.apply(TRAIN.pixels, added)
    assert moved.shape == TRAIN.pixels.shape and float(moved.min()) >= 0 <= float(moved.max()) <= 1
    assert loss(TRAIN, moved) > loss(TRAIN, TRAIN.pixels)
    again = attack.learn(tiny_encoder(), TRAIN, generator())
    assert torch.equal(added, again)


def test_its_first_step_is_the_sign_of_the_mean_gradient() -> None:
    added = Universal(8.0, n_epochs=1, batch_size=len(TRAIN.pixels)).learn(
        tiny_encoder(), TRAIN, generator()
    )
    encoder = tiny_encoder()
    shift = torch.zeros(1, 3, 16, 16, requires_grad=True)
    text = encoder.encode_text(list(TRAIN.captions)).detach()
    logits = encoder.logit_scale.detach() * encoder.encode_image(TRAIN.pixels + shift) @ text.T
    wrong = logits.masked_fill(TRAIN.relevant, -torch.inf).logsumexp(1)
    right = logits.masked_fill(~TRAIN.relevant, -torch.inf).logsumexp(1)
    (wrong - right).mean().backward()
    assert shift.grad is not None
    same = (added - 2 / 255 * shift.grad[0].sign()).abs() < 1e-7
    assert float(same.float().mean()) > 0.99  # a gradient near 0 may round to either sign


def test_without_an_epoch_nothing_is_added() -> None:
    added = Universal(8.0, n_epochs=0).learn(tiny_encoder(), TRAIN, generator())
    assert torch.equal(added, torch.zeros(3, 16, 16))
    with pytest.raises(ValueError, match="share of the radius"):
        Universal(8.0, step=0.0)


def test_a_hub_comes_nearer_to_the_captions_within_its_budget() -> None:
    encoder, gallery = tiny_encoder(), toy_gallery([1, 2, 1])
    made = hub(encoder, gallery.pixels[0], gallery.captions, PGD(16.0, 10), generator=generator())
    assert float((made - gallery.pixels[0]).abs().max()) <= 16 / 255 + 1e-6
    with torch.no_grad():
        text = encoder.encode_text(list(gallery.captions))
        near, before = (
            float((encoder.encode_image(each[None]) @ text.T).mean())
            for each in (made, gallery.pixels[0])
        )
    assert near > before
    with pytest.raises(ValueError, match="got none"):
        hub(encoder, gallery.pixels[0], [], PGD(16.0, 1), generator=generator())


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 5))
def test_ranks_behind_a_hub_are_those_of_a_gallery_with_it(seed: int, n: int) -> None:
    draw = generator(seed)
    gallery = toy_gallery([2] * n)
    image, text, added = (
        torch.nn.functional.normalize(torch.randn(k, 4, generator=draw), dim=1)
        for k in (n, 2 * n, 1)
    )
    before = retrieve(image, text, gallery.relevant)
    right = torch.cat([gallery.relevant, torch.zeros(1, 2 * n, dtype=torch.bool)])
    score = text @ torch.cat([image, added]).T
    best = score.masked_fill(~right.T, -torch.inf).amax(1, keepdim=True)
    expected = ((score >= best - 1e-6) & ~right.T).sum(1)
    found = behind(before.ir_rank, text, image, added[0], gallery.relevant)
    assert torch.equal(found, expected)
