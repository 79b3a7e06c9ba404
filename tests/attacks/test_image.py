from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import AttackReport, ImageAttack, ScaleViews
from matlib.attacks.balls import Ball
from matlib.attacks.objectives import contrastive, squared_distance
from matlib.attacks.pgd import PGD
from matlib.models.dual_encoder import CachedText
from matlib.models.open_clip import OpenClipEncoder
from tests.toys import generator, random_pixels, tiny_encoder

CAPTIONS = ["red circle", "blue star", "small green cross", "large square"]


def objective(encoder: OpenClipEncoder, n: int):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        text = encoder.encode_text(CAPTIONS[:n])
    return contrastive(text, torch.eye(n, dtype=torch.bool), 10.0)


@settings(max_examples=40)
@given(
    n=st.integers(1, 4),
    eps=st.sampled_from([0.0, 0.5, 2.0, 8.0, 64.0]),
    steps=st.integers(0, 4),
    how=st.sampled_from(
        [
            ("linf", "uniform"),
            ("linf", "positive"),
            ("linf", "none"),
            ("l2", "uniform"),
            ("l2", "none"),
        ]
    ),
    momentum=st.sampled_from([0.0, 0.9]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    extreme=st.booleans(),
)
def test_result_lies_in_the_ball_and_the_range(
    n: int,
    eps: float,
    steps: int,
    how: tuple[str, str],
    momentum: float,
    dtype: torch.dtype,
    extreme: bool,
) -> None:
    encoder, (norm, start) = tiny_encoder().to(dtype), how
    pixels = random_pixels(n).to(dtype)
    pixels = pixels.round() if extreme else pixels
    attack = PGD(eps, steps, norm=norm, start=start, momentum=momentum)  # type: ignore[arg-type]
    adversarial = attack(encoder, pixels, objective(encoder, n), generator=generator())
    assert adversarial.shape == pixels.shape and adversarial.dtype == pixels.dtype
    offset = (adversarial - pixels).flatten(1)
    size = offset.abs().amax() if norm == "linf" else offset.norm(dim=1).max()
    assert float(size) <= eps / 255 + 1e-6
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
    noise = PGD(8.0, 0)(encoder, pixels, score, generator=generator())
    with torch.no_grad():
        clean, noisy, worst = (
            score(encoder.encode_image(x)).mean() for x in (pixels, noise, attacked)
        )
    assert worst - clean > 5 * (noisy - clean).abs()


def test_model_is_left_as_it_was() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(2)
    encoder.clip.visual.requires_grad_(False)
    wanted = [p.requires_grad for p in encoder.parameters()]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    PGD(4.0, 2)(encoder, pixels, objective(encoder, 2), generator=generator())
    assert not encoder.training
    assert all(p.grad is None for p in encoder.parameters())
    assert [p.requires_grad for p in encoder.parameters()] == wanted
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert pixels.grad is None and not pixels.requires_grad


def test_default_step_is_co_attacks() -> None:
    assert PGD(2.0, 10).step * 255 == pytest.approx(0.5)
    assert PGD(2.0, 10, step_255=0.25).step * 255 == pytest.approx(0.25)
    assert PGD(8.0, 2).step * 255 == pytest.approx(5.0)


@pytest.mark.parametrize(("eps", "message"), [(100, "0 to 64"), (-1, "0 to 64"), (2 / 255, "2")])
def test_eps_in_the_wrong_unit_is_refused(eps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGD(eps)


def test_an_l2_budget_may_be_as_large_as_the_image_allows() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(2)
    limit = 64 * math.sqrt(3 * 16 * 16)
    score, large = objective(encoder, 2), PGD(64 * math.sqrt(3 * 224 * 224), 1, norm="l2")
    PGD(limit, 1, norm="l2")(encoder, pixels, score, generator=generator())
    with pytest.raises(ValueError, match=r"0 to 64 \* sqrt"):
        large(encoder, pixels, score, generator=generator())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"norm": "l1"}, "'linf' or 'l2'"),
        ({"norm": "l2", "eps_255": -1.0}, "0 to 64"),
        ({"norm": "l2", "eps_255": math.inf}, "0 to 64"),
        ({"norm": "l2", "eps_255": 0.01}, "divided by 255"),
        ({"norm": "l2", "start": "positive"}, "box"),
        ({"start": "negative"}, "uniform"),
        ({"start": "none", "n_restarts": 3}, "the same"),
        ({"n_restarts": 0}, "1 or more"),
        ({"n_steps": -1}, "n_steps"),
        ({"momentum": 1.5}, "momentum"),
    ],
)
def test_settings_that_make_no_sense_are_refused(how: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        PGD(**{"eps_255": 4.0, **how})


BOTH = pytest.mark.parametrize("attack", [PGD(4.0, 1), APGD(4.0, 1)], ids=repr)


@BOTH
@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (random_pixels(2) * 255, "before normalisation"),
        (random_pixels(2) * math.nan, "nan"),
        ((random_pixels(2) * 255).byte(), "float"),
        (random_pixels(2)[0], "shape"),
        (random_pixels(2)[:0], "at least one image"),
    ],
)
def test_images_that_no_budget_fits_are_refused(
    attack: ImageAttack, pixels: Tensor, message: str
) -> None:
    encoder = tiny_encoder()
    with pytest.raises(ValueError, match=message):
        attack(encoder, pixels, objective(encoder, 2), generator=generator())


@BOTH
def test_a_model_in_training_mode_is_refused_in_whole_and_in_part(attack: ImageAttack) -> None:
    encoder, pixels = tiny_encoder(), random_pixels(2)
    score = objective(encoder, 2)
    for part in (encoder, encoder.clip.visual, CachedText(encoder)):
        part.train()
        with pytest.raises(ValueError, match=r"Call encoder\.eval\(\)"):
            attack(encoder, pixels, score, generator=generator())
        encoder.eval()
    attack(CachedText(encoder), pixels, score, generator=generator())


@BOTH
def test_an_objective_of_another_batch_is_refused(attack: ImageAttack) -> None:
    encoder, pixels = tiny_encoder(), random_pixels(2)
    with pytest.raises(ValueError, match=r"one score per image, here \(2,\)"):
        attack(encoder, pixels, lambda image: image.sum(), generator=generator())
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        attack(encoder, pixels, lambda image: image.new_ones(3), generator=generator())


class Row(nn.Module):
    """An encoder whose embedding is the image's first row of pixels, at length 1."""

    image_size = 16
    device = torch.device("cpu")
    logit_scale = torch.tensor(1.0)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return nn.functional.normalize(pixels[:, 0, 0], dim=1)

    def encode_text(self, texts: object) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_images_whose_gradient_vanishes_stay_and_are_counted(norm: str, momentum: float) -> None:
    pixels, weight = random_pixels(4), torch.tensor([[1.0], [0.0], [math.nan], [math.inf]])
    report = AttackReport()
    attack = PGD(4.0, 3, start="none", norm=norm, momentum=momentum)  # type: ignore[arg-type]
    for _ in range(2):
        moved = attack(
            Row().eval(),
            pixels,
            lambda image: (image[:, :3] * weight).sum(1),
            generator=generator(),
            report=report,
        )
    assert not torch.equal(moved[0], pixels[0])
    assert torch.equal(moved[1:], pixels[1:])
    assert (report.n_gradients, report.n_zero, report.n_non_finite) == (24, 6, 12)
    assert (report.n_images, report.n_images_vanished) == (8, 6)
    assert "6 zero and 12 non-finite of 24" in str(report)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_momentum_does_not_carry_an_image_over_a_step_without_gradient(norm: str) -> None:
    calls = 0

    def flat_from_the_second_step_on(image: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return image[:, 0] * float(calls == 1)

    def attacked(n_steps: int) -> Tensor:
        nonlocal calls
        calls = 0
        attack = PGD(8.0, n_steps, 1.0, start="none", norm=norm, momentum=0.9)  # type: ignore[arg-type]
        return attack(
            Row().eval(), random_pixels(2), flat_from_the_second_step_on, generator=generator()
        )

    assert not torch.equal(attacked(1), random_pixels(2))
    assert torch.equal(attacked(1), attacked(4))


class ReadByTheHost(TorchDispatchMode):
    """Counts tensors whose value Python asks for: `.item()`, `float()`, `bool()`, `nonzero`."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        asked = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")
        self.n += func.overloadpacket.__name__ in asked
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "how", [{}, {"momentum": 0.9}, {"norm": "l2"}, {"n_restarts": 2}, {"eps_255": 2.0}], ids=str
)
@pytest.mark.parametrize("kind", [PGD, APGD])
def test_no_step_waits_for_the_host_to_read_a_value(kind: type, how: dict) -> None:  # type: ignore[type-arg]
    encoder, pixels = tiny_encoder(), random_pixels(2)
    score, read = objective(encoder, 2), []
    for n_steps in (1, 9):
        attack = kind(**{"eps_255": 4.0, "n_steps": n_steps, **how})
        with ReadByTheHost() as asked:
            attack(encoder, pixels, score, generator=generator(), report=AttackReport())
        read.append(asked.n)
    assert read == [0, 0]  # the range of the pixels is one copy, before the first step


def test_restarts_count_their_gradients_and_prefer_numbers_to_nan() -> None:
    pixels, report = random_pixels(2), AttackReport()
    attack = PGD(4.0, 3, n_restarts=2)
    moved = attack(
        Row().eval(),
        pixels,
        lambda image: image[:, 0] * torch.tensor([1.0, math.nan]),
        generator=generator(),
        report=report,
    )
    assert moved.isfinite().all()
    assert (report.n_gradients, report.n_non_finite, report.n_images_vanished) == (12, 6, 1)


def test_more_restarts_never_score_less_and_one_is_the_default() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(4)
    score = objective(encoder, 4)
    default, one, five = (
        attack(encoder, pixels, score, generator=generator())
        for attack in (PGD(2.0, 2), PGD(2.0, 2, n_restarts=1), PGD(2.0, 2, n_restarts=5))
    )
    assert torch.equal(default, one)
    with torch.no_grad():
        before, after = (score(encoder.encode_image(x)) for x in (one, five))
    assert (after >= before).all() and (after > before).any()


def test_uniform_l2_starts_fill_the_ball_evenly() -> None:
    # radius^d of a uniform point of a d-ball is uniform in [0, 1]: here d = 3
    clean = torch.zeros(4000, 3, 1, 1)
    offset = Ball(0.5, "l2").draw(clean, "uniform", generator()).flatten(1)
    share = (offset.norm(dim=1) / 0.5) ** 3
    assert float(share.max()) <= 1
    assert torch.allclose(
        share.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), atol=0.03
    )
    assert float(offset.mean(0).abs().max()) < 0.02


def test_tiny_gradients_still_have_a_direction() -> None:
    gradient = torch.full((1, 3, 2, 2), 1e-30)  # its squares are 0 in float32
    step = Ball(1.0, "l2").direction(gradient)
    assert float(step.norm()) == pytest.approx(1.0)
    assert not Ball(1.0, "l2").direction(torch.zeros(1, 3, 2, 2)).any()


def test_views_are_the_image_and_one_copy_per_scale_in_range() -> None:
    pixels = random_pixels(2)
    seen = ScaleViews()(pixels, generator())
    assert len(seen) == 5 and torch.equal(seen[0], pixels)
    assert all(v.shape == pixels.shape and v.min() >= 0 and v.max() <= 1 for v in seen)


def test_the_mean_of_the_last_points_lies_in_the_ball_and_is_that_of_shorter_runs() -> None:
    encoder, clean = tiny_encoder().double(), random_pixels(3).double()
    with torch.no_grad():
        score = squared_distance(encoder.encode_image(clean))

    def found(n_steps: int, n_averaged: int) -> Tensor:
        attack = PGD(8.0, n_steps, step_255=1.0, n_averaged=n_averaged)
        return attack(encoder, clean, score, generator=generator(2))

    points = [found(n, 1) for n in (3, 4, 5)]
    assert torch.allclose(found(5, 3), torch.stack(points).mean(0))
    assert torch.equal(found(2, 9), torch.stack([found(1, 1), found(2, 1)]).mean(0))
    assert float((found(5, 3) - clean).abs().max()) <= 8 / 255 + 1e-12
