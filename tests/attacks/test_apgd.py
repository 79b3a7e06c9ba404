from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from matlib.attacks.apgd import APGD, checkpoints
from matlib.attacks.ascent import AttackReport, ScaleViews
from matlib.attacks.objectives import ImageObjective, away_from_captions, contrastive
from matlib.attacks.pgd import PGD
from matlib.models.open_clip import OpenClipEncoder
from tests.attacks.test_pgd_oracle import CAPTIONS, drawn_starts, into_the_ball, unit
from tests.toys import generator, random_pixels, tiny_encoder


def objective(encoder: OpenClipEncoder, n: int) -> ImageObjective:
    text = encoder.encode_text(CAPTIONS).detach()
    return contrastive(text, torch.eye(n, len(CAPTIONS), dtype=torch.bool), 10.0)


def scores(encoder: OpenClipEncoder, pixels: Tensor, score: ImageObjective) -> Tensor:
    with torch.no_grad():
        return score(encoder.encode_image(pixels))


def plain_apgd(  # type: ignore[no-untyped-def]
    encoder: OpenClipEncoder, image: Tensor, start: Tensor, loss, attack: APGD
) -> tuple[Tensor, float]:
    """Algorithm 1 of the paper for one image, all iterates and losses kept in lists."""
    eps, n, is_paper = attack.eps_255 / 255, attack.n_steps, attack.rule == "paper"

    def f(x: Tensor) -> float:
        return float(loss(x).detach())

    def project(x: Tensor) -> Tensor:
        return into_the_ball(x, image, eps, attack.norm)

    def direction(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(x), x)
        return unit(gradient, attack.norm)

    p = [0.0, 0.22]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = [math.ceil(round(share * n, 9)) for share in p if share <= 1]
    if not is_paper:  # periods in whole steps
        w, period = [0], max(int(0.22 * n), 1)
        while w[-1] + period <= n:
            w.append(w[-1] + period)
            period = max(period - max(int(0.03 * n), 1), max(int(0.06 * n), 1))

    xs = [project(image + start)]
    eta = [2 * eps]  # eta[k]: the step size that was in force at iteration k
    best, best_f = xs[0], f(xs[0])
    best_at = {0: best_f}
    rises: list[bool] = []
    compared = f(xs[0])  # the paper: the loss at x_k; the code: at x_k before it was moved
    size = 2 * eps
    for k in range(n):
        z = project(xs[k] + size * direction(xs[k]))
        new = z if k == 0 else project(xs[k] + 0.75 * (z - xs[k]) + 0.25 * (xs[k] - xs[k - 1]))
        value = f(new)
        rises.append(value > compared or (k == 0 and not is_paper))
        compared = value
        if value > best_f:
            best, best_f = new, value
        xs.append(new)
        eta.append(size)
        best_at[k + 1] = best_f
        if k + 1 in w[1:]:
            j = max(i for i, step in enumerate(w) if step == k + 1)
            last = max(step for step in w[:j] if step < k + 1)
            share = sum(rises[last : k + 1]) / (k + 1 - last)
            first = share < attack.rho if is_paper else share <= attack.rho
            second = eta[last] == eta[k + 1] and best_at[last] == best_at[k + 1]
            if first or (second and (is_paper or last > 0)):
                size /= 2
                xs[k + 1] = best
                compared = best_f if is_paper else compared
    return best, best_f


def plain_batch(encoder: OpenClipEncoder, pixels: Tensor, attack: APGD, seed: int) -> Tensor:
    """Every image and every restart on its own."""
    text = encoder.encode_text(CAPTIONS).detach()
    runs = drawn_starts(
        pixels,
        PGD(attack.eps_255, start=attack.start, norm=attack.norm, n_restarts=attack.n_restarts),
        seed,
    )
    found = []
    for i, image in enumerate(pixels):

        def loss(x: Tensor, i: int = i) -> Tensor:
            logits = 10.0 * text @ encoder.encode_image(x[None])[0]
            others = torch.cat([logits[:i], logits[i + 1 :]])
            return torch.log(others.exp().sum()) - logits[i]

        results = [plain_apgd(encoder, image, start[i], loss, attack) for start in runs]
        found.append(max(results, key=lambda result: result[1])[0])
    return torch.stack(found)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("n_steps", [1, 4, 25])
@pytest.mark.parametrize("rule", ["paper", "released"])
def test_equals_algorithm_1_image_by_image(rule: str, n_steps: int, norm: str) -> None:
    encoder, pixels = tiny_encoder().double(), random_pixels(3).double()
    eps = 6.0 if norm == "linf" else 150.0
    attack = APGD(eps, n_steps, norm=norm, rule=rule)  # type: ignore[arg-type]
    batched = attack(encoder, pixels, objective(encoder, 3), generator=generator(5))
    assert torch.allclose(batched, plain_batch(encoder, pixels, attack, 5), atol=1e-6)


@pytest.mark.parametrize("rule", ["paper", "released"])
def test_a_best_score_that_stays_halves_the_step_too(rule: str) -> None:
    # with rho 0 too few rises never halve; in a ball of a quarter of the range long steps fall
    encoder, pixels = tiny_encoder(3).double(), random_pixels(4, 3).double()
    attack = APGD(64.0, 20, rho=0.0, rule=rule)  # type: ignore[arg-type]
    batched = attack(encoder, pixels, objective(encoder, 4), generator=generator(5))
    assert torch.allclose(batched, plain_batch(encoder, pixels, attack, 5), atol=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.5])
@pytest.mark.parametrize("rule", ["paper", "released"])
def test_a_start_that_is_already_good_is_returned_to_as_each_rule_says(
    rule: str, rho: float
) -> None:
    # every first step falls: the code takes it for a rise and halves nothing at its first
    # checkpoint, the paper halves
    encoder, pixels = tiny_encoder(3).double(), random_pixels(3, 3).double()
    score = objective(encoder, 3)
    good = APGD(40.0, 20)(encoder, pixels, score, generator=generator())
    attack = APGD(64.0, 12, start="none", rho=rho, rule=rule)  # type: ignore[arg-type]
    batched = attack(encoder, good, score, generator=generator(5))
    assert torch.allclose(batched, plain_batch(encoder, good, attack, 5), atol=1e-6)


@settings(max_examples=12)
@given(
    n=st.integers(1, 4),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.sampled_from([1.0, 8.0, 60.0]),
    n_steps=st.integers(1, 11),
    n_restarts=st.integers(1, 2),
    rule=st.sampled_from(["paper", "released"]),
    rho=st.sampled_from([0.75, 0.3, 0.0]),
    seed=st.integers(0, 5),
)
def test_equals_algorithm_1_for_any_batch_and_budget(
    n: int, norm: str, eps: float, n_steps: int, n_restarts: int, rule: str, rho: float, seed: int
) -> None:
    encoder, pixels = tiny_encoder().double(), random_pixels(n, seed).double()
    attack = APGD(eps, n_steps, norm=norm, n_restarts=n_restarts, rule=rule, rho=rho)  # type: ignore[arg-type]
    batched = attack(encoder, pixels, objective(encoder, n), generator=generator(seed))
    assert torch.allclose(batched, plain_batch(encoder, pixels, attack, seed), atol=1e-6)


@settings(max_examples=25)
@given(
    n=st.integers(1, 4),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.sampled_from([0.0, 0.5, 8.0, 64.0]),
    n_steps=st.integers(0, 6),
    rule=st.sampled_from(["paper", "released"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_result_is_in_the_ball_and_scores_at_least_what_its_start_did(
    n: int, norm: str, eps: float, n_steps: int, rule: str, dtype: torch.dtype
) -> None:
    encoder, pixels = tiny_encoder().to(dtype), random_pixels(n).to(dtype).round(decimals=1)
    score = objective(encoder, n)
    attack = APGD(eps, n_steps, norm=norm, rule=rule)  # type: ignore[arg-type]
    moved = attack(encoder, pixels, score, generator=generator(2))
    offset = (moved - pixels).flatten(1)
    size = offset.abs().amax() if norm == "linf" else offset.norm(dim=1).max()
    assert moved.dtype == dtype and float(size) <= eps / 255 + 1e-6
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    start = pixels
    if eps and n_steps:
        drawn = attack.ball.draw(pixels, "uniform", generator(2))
        start = attack.ball.project(pixels + drawn, pixels)
    assert (scores(encoder, moved, score) >= scores(encoder, start, score)).all()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8.0), ("l2", 300.0)])
@pytest.mark.parametrize("rule", ["paper", "released"])
def test_not_weaker_than_pgd_at_equal_steps(norm: str, eps: float, rule: str) -> None:
    encoder, pixels = tiny_encoder(), random_pixels(5)
    score = objective(encoder, 5)
    auto, plain = (
        torch.stack(
            [
                scores(encoder, attack(encoder, pixels, score, generator=generator(s)), score)
                for s in range(8)
            ]
        ).mean()
        for attack in (APGD(eps, 20, norm=norm, rule=rule), PGD(eps, 20, norm=norm))  # type: ignore[arg-type]
    )
    assert auto >= plain - 1e-4


def test_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]
    assert checkpoints(100, "released") == checkpoints(100)
    assert checkpoints(10, "released") == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert checkpoints(1) == [1]


def test_more_restarts_never_score_less() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(4)
    score = objective(encoder, 4)
    one, three = (
        scores(
            encoder,
            APGD(4.0, 5, n_restarts=runs)(encoder, pixels, score, generator=generator()),
            score,
        )
        for runs in (1, 3)
    )
    assert (three >= one).all()


def test_the_image_alone_counts_not_its_neighbours_in_the_batch() -> None:
    encoder, pixels = tiny_encoder().double(), random_pixels(4).double()
    attack, text = APGD(8.0, 12, start="none"), encoder.encode_text(CAPTIONS).detach()
    mask = torch.eye(4, len(CAPTIONS), dtype=torch.bool)
    batch = attack(encoder, pixels, away_from_captions(text, mask), generator=generator())
    for i in range(4):
        rows = slice(i, i + 1)
        alone = away_from_captions(text, mask[rows])
        single = attack(encoder, pixels[rows], alone, generator=generator())
        assert torch.allclose(batch[rows], single, atol=1e-9)


def test_views_and_same_generator_give_the_same_bytes() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(2)
    runs = [
        APGD(4.0, 4)(
            encoder, pixels, objective(encoder, 2), generator=generator(s), views=ScaleViews((0.5,))
        )
        for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_gradients_that_vanish_are_counted_and_the_best_point_is_finite() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(3)
    weight = torch.tensor([[1.0], [0.0], [math.nan]])
    report = AttackReport()
    moved = APGD(8.0, 6)(
        encoder, pixels, lambda image: (image * weight).sum(1), generator=generator(), report=report
    )
    assert (report.n_gradients, report.n_zero, report.n_non_finite) == (18, 6, 6)
    assert moved.isfinite().all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"eps_255": 100.0}, "0 to 64"),
        ({"eps_255": 4 / 255}, "divided by 255"),
        ({"eps_255": 4.0, "n_steps": -1}, "n_steps"),
        ({"eps_255": 4.0, "momentum": 0.0}, "momentum"),
        ({"eps_255": 4.0, "rho": 2.0}, "rho"),
        ({"eps_255": 4.0, "rule": "mine"}, "rule"),
        ({"eps_255": 4.0, "norm": "l2", "start": "positive"}, "box"),
        ({"eps_255": 4.0, "start": "none", "n_restarts": 2}, "the same"),
    ],
)
def test_settings_that_make_no_sense_are_refused(how: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        APGD(**how)
