from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from matlib.attacks.image import PGD, ScaleViews
from matlib.attacks.objectives import away_from_captions, contrastive, symmetric_contrastive
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_pixels, tiny_encoder

CAPTIONS = ["red circle", "blue star", "small green cross", "large square"]


def objective(encoder: OpenClipEncoder, n: int):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        text = encoder.encode_text(CAPTIONS[:n])
    return contrastive(text, torch.eye(n, dtype=torch.bool), 10.0)


@given(
    n=st.integers(1, 4),
    eps=st.sampled_from([0.0, 0.5, 2.0, 8.0, 64.0]),
    steps=st.integers(0, 4),
    start=st.sampled_from(["uniform", "positive", "none"]),
    extreme=st.booleans(),
)
def test_result_lies_in_the_ball_and_the_range(
    n: int, eps: float, steps: int, start: str, extreme: bool
) -> None:
    encoder = tiny_encoder()
    pixels = random_pixels(n).round() if extreme else random_pixels(n)
    attack = PGD(eps, steps, start=start)  # type: ignore[arg-type]
    adversarial = attack(encoder, pixels, objective(encoder, n), generator=generator())
    assert adversarial.shape == pixels.shape and adversarial.dtype == pixels.dtype
    assert float((adversarial - pixels).abs().max()) <= eps / 255 + 1e-6
    assert float(adversarial.min()) >= 0 and float(adversarial.max()) <= 1


@pytest.mark.parametrize("attack", [PGD(0.0, 10), PGD(4.0, 0)], ids=repr)
def test_zero_budget_is_the_identity(attack: PGD) -> None:
    encoder, pixels = tiny_encoder(), random_pixels(3)
    assert torch.equal(
        attack(encoder, pixels, objective(encoder, 3), generator=generator()), pixels
    )


def test_same_generator_same_bytes_and_another_differs() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(3)
    runs = [
        PGD(4.0, 3)(encoder, pixels, objective(encoder, 3), generator=generator(s))
        for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_attack_raises_its_objective_far_above_noise_of_the_same_size() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(4)
    score = objective(encoder, 4)
    attacked = PGD(8.0, 10)(encoder, pixels, score, generator=generator())
    noise = PGD(8.0, 1, step_255=0.0)(encoder, pixels, score, generator=generator())
    with torch.no_grad():
        clean, noisy, worst = (
            score(encoder.encode_image(x)).mean() for x in (pixels, noise, attacked)
        )
    assert worst - clean > 5 * (noisy - clean).abs()


def test_model_is_left_as_it_was() -> None:
    encoder, pixels = tiny_encoder().train(), random_pixels(2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    PGD(4.0, 2)(encoder, pixels, objective(encoder, 2), generator=generator())
    assert encoder.training
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert pixels.grad is None and not pixels.requires_grad


def naive_pgd(encoder: OpenClipEncoder, pixels: Tensor, text: Tensor, attack: PGD) -> Tensor:
    """One image and one step at a time, cross-entropy written out."""
    eps = attack.eps_255 / 255
    unit = torch.rand(pixels.shape, generator=generator(7), dtype=pixels.dtype)
    moved = []
    for i, image in enumerate(pixels):
        x = (image + (2 * unit[i] - 1) * eps).clamp(0, 1)
        for _ in range(attack.n_steps):
            x = x.clone().requires_grad_(True)
            logits = 10.0 * text @ encoder.encode_image(x[None])[0]
            loss = torch.log(logits.exp().sum()) - logits[i]
            (grad,) = torch.autograd.grad(loss, x)
            x = x.detach() + attack.step * grad.sign()
            x = torch.max(torch.min(x, image + eps), image - eps).clamp(0, 1)
        moved.append(x)
    return torch.stack(moved)


def test_equals_the_plain_loop_over_images() -> None:
    # float64: the sign of a gradient near zero must not hang on the order of a sum
    encoder, pixels = tiny_encoder().double(), random_pixels(3).double()
    text = encoder.encode_text(CAPTIONS[:3]).detach()
    attack = PGD(4.0, 4)
    score = contrastive(text, torch.eye(3, dtype=torch.bool), 10.0)
    batched = attack(encoder, pixels, score, generator=generator(7))
    assert torch.allclose(batched, naive_pgd(encoder, pixels, text, attack), atol=1e-12)


def test_default_step_is_co_attacks() -> None:
    assert PGD(2.0, 10).step * 255 == pytest.approx(0.5)
    assert PGD(2.0, 10, step_255=0.25).step * 255 == pytest.approx(0.25)
    assert PGD(8.0, 2).step * 255 == pytest.approx(5.0)


@pytest.mark.parametrize(("eps", "message"), [(100, "0 to 64"), (-1, "0 to 64"), (2 / 255, "2")])
def test_eps_in_the_wrong_unit_is_refused(eps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGD(eps)


def test_confident_models_still_give_a_gradient() -> None:
    # plain cross-entropy underflows here: exp(-180) is 0 in float32
    image = torch.tensor([[1.0, 0.0]], requires_grad=True)
    text = torch.tensor([[1.0, 0.0], [-0.8, 0.6]])
    mask = torch.tensor([[True, False]])
    (gradient,) = torch.autograd.grad(contrastive(text, mask, 100.0)(image).sum(), image)
    assert (gradient.abs() > 1).all()


def test_contrastive_with_one_true_caption_is_cross_entropy() -> None:
    image, text = (
        torch.randn(4, 8, generator=generator()),
        torch.randn(4, 8, generator=generator(1)),
    )
    expected = torch.nn.functional.cross_entropy(
        3.0 * image @ text.T, torch.arange(4), reduction="none"
    )
    margin = contrastive(text, torch.eye(4, dtype=torch.bool), 3.0)(image)
    assert torch.allclose(torch.nn.functional.softplus(margin), expected, atol=1e-6)


def test_symmetric_contrastive_is_clips_loss() -> None:
    image, text = (
        torch.randn(5, 8, generator=generator()),
        torch.randn(5, 8, generator=generator(1)),
    )
    logits, target = 2.0 * image @ text.T, torch.arange(5)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    assert torch.allclose(symmetric_contrastive(text, 2.0)(image).mean(), expected)


def test_away_from_captions_counts_every_own_caption() -> None:
    image, text = torch.eye(2, 4), torch.tensor([[1.0, 0, 0, 0], [0.5, 0, 0, 0], [0, 1, 0, 0]])
    mask = torch.tensor([[True, True, False], [False, False, True]])
    assert away_from_captions(text, mask)(image).tolist() == [-1.5, -1.0]


def test_views_are_the_image_and_one_copy_per_scale_in_range() -> None:
    pixels = random_pixels(2)
    seen = ScaleViews()(pixels, generator())
    assert len(seen) == 5 and torch.equal(seen[0], pixels)
    assert all(v.shape == pixels.shape and v.min() >= 0 and v.max() <= 1 for v in seen)
