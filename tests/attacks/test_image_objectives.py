from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch import Tensor

from matlib.attacks.objectives import (
    ImageObjective,
    away_from_captions,
    contrastive,
    kl_from_image,
    kl_from_image_and_captions,
    squared_distance,
    symmetric_contrastive,
)
from matlib.attacks.pgd import PGD
from tests.toys import generator, random_pixels, tiny_encoder


def unit_rows(n: int, seed: int, dim: int = 8, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(n, dim, generator=generator(seed), dtype=dtype), dim=1)


def uneven_mask(counts: list[int]) -> Tensor:
    own = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return own[None, :] == torch.arange(len(counts))[:, None]


def divergence(p: list[float], q: list[float]) -> float:
    """KL of the softmaxes of two vectors, coordinate by coordinate."""
    zp, zq = sum(map(math.exp, p)), sum(map(math.exp, q))
    return sum(
        math.exp(a) / zp * math.log((math.exp(a) / zp) / (math.exp(b) / zq))
        for a, b in zip(p, q, strict=True)
    )


@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    alpha=st.sampled_from([0.0, 1.0, 3.0]),
    captions=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 50),
)
def test_co_attacks_divergences_equal_the_sum_over_coordinates(
    counts: list[int], alpha: float, captions: str, seed: int
) -> None:
    clean, moved = unit_rows(len(counts), seed), unit_rows(len(counts), seed + 1)
    text, mask = unit_rows(sum(counts), seed + 2), uneven_mask(counts)
    expected = []
    for i, n in enumerate(counts):
        own = [c for c in range(sum(counts)) if mask[i, c]]
        parts = [divergence(text[c].tolist(), moved[i].tolist()) for c in own]
        total = sum(parts) / (n if captions == "mean" else 1)
        expected.append(divergence(clean[i].tolist(), moved[i].tolist()) + alpha * total)
    score = kl_from_image_and_captions(
        clean,
        text,
        mask,
        alpha=alpha,
        captions=captions,  # type: ignore[arg-type]
    )
    assert torch.allclose(score(moved), torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    alone = [divergence(a, b) for a, b in zip(clean.tolist(), moved.tolist(), strict=True)]
    assert torch.allclose(kl_from_image(clean)(moved), torch.tensor(alone).double(), atol=1e-7)


def test_alpha_is_three_and_captions_are_averaged_by_default() -> None:
    clean, moved, text = unit_rows(2, 0), unit_rows(2, 1), unit_rows(3, 2)
    mask = uneven_mask([1, 2])
    default = kl_from_image_and_captions(clean, text, mask)(moved)
    explicit = kl_from_image_and_captions(clean, text, mask, alpha=3.0, captions="mean")(moved)
    summed = kl_from_image_and_captions(clean, text, mask, captions="sum")(moved)
    assert torch.equal(default, explicit)
    assert torch.allclose(default[0], summed[0]) and not torch.allclose(default[1], summed[1])


@given(n=st.integers(1, 6), seed=st.integers(0, 50))
def test_squared_distance_of_unit_vectors_is_two_minus_twice_the_cosine(n: int, seed: int) -> None:
    clean, moved = unit_rows(n, seed), unit_rows(n, seed + 1)
    cosine = (clean * moved).sum(1)
    assert torch.allclose(squared_distance(clean)(moved), 2 - 2 * cosine, atol=1e-12)


def test_confident_models_still_give_a_gradient() -> None:
    # plain cross-entropy underflows here: exp(-180) is 0 in float32
    image = torch.tensor([[1.0, 0.0]], requires_grad=True)
    text = torch.tensor([[1.0, 0.0], [-0.8, 0.6]])
    mask = torch.tensor([[True, False]])
    (gradient,) = torch.autograd.grad(contrastive(text, mask, 100.0)(image).sum(), image)
    assert (gradient.abs() > 1).all()


@given(n=st.integers(2, 6), seed=st.integers(0, 50))
def test_contrastive_with_one_true_caption_is_cross_entropy(n: int, seed: int) -> None:
    image, text = unit_rows(n, seed), unit_rows(n, seed + 1)
    expected = F.cross_entropy(3.0 * image @ text.T, torch.arange(n), reduction="none")
    margin = contrastive(text, torch.eye(n, dtype=torch.bool), 3.0)(image)
    assert torch.allclose(F.softplus(margin), expected, atol=1e-6)


def test_an_image_without_false_captions_does_not_disturb_its_neighbours() -> None:
    image, text = unit_rows(2, 0).requires_grad_(True), unit_rows(3, 1)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    both = contrastive(text, mask, 5.0)(image)
    (gradient,) = torch.autograd.grad(both.sum(), image)
    logits = 5.0 * image @ text.T
    assert torch.allclose(both[0], -logits[0].logsumexp(0))
    assert torch.allclose(both[1], logits[1, 1:].logsumexp(0) - logits[1, 0])
    assert gradient.isfinite().all() and gradient[0].any() and gradient[1].any()


def test_symmetric_contrastive_is_clips_loss() -> None:
    image, text = unit_rows(5, 0), unit_rows(5, 1)
    logits, target = 2.0 * image @ text.T, torch.arange(5)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    assert torch.allclose(symmetric_contrastive(text, 2.0)(image).mean(), expected)


def test_away_from_captions_counts_every_own_caption() -> None:
    image, text = torch.eye(2, 4), torch.tensor([[1.0, 0, 0, 0], [0.5, 0, 0, 0], [0, 1, 0, 0]])
    mask = torch.tensor([[True, True, False], [False, False, True]])
    assert away_from_captions(text, mask)(image).tolist() == [-1.5, -1.0]


def every_objective(clean: Tensor, text: Tensor, mask: Tensor) -> dict[str, ImageObjective]:
    return {
        "away_from_captions": away_from_captions(text, mask),
        "contrastive": contrastive(text, mask, 10.0),
        "squared_distance": squared_distance(clean),
        "kl_from_image": kl_from_image(clean),
        "kl_from_image_and_captions": kl_from_image_and_captions(clean, text, mask),
    }


@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=5), seed=st.integers(0, 20))
def test_the_score_of_an_image_depends_on_that_image_alone(counts: list[int], seed: int) -> None:
    n, mask = len(counts), uneven_mask(counts)
    clean, moved, text = unit_rows(n, seed), unit_rows(n, seed + 1), unit_rows(sum(counts), seed)
    whole = every_objective(clean, text, mask)
    for i in range(n):
        row = slice(i, i + 1)
        for name, score in every_objective(clean[row], text, mask[row]).items():
            assert torch.allclose(score(moved[row]), whole[name](moved)[row], atol=1e-12), name


@pytest.mark.parametrize("name", list(every_objective(*(torch.eye(2),) * 2, torch.eye(2).bool())))
def test_pgd_raises_every_objective_above_its_value_at_the_start(name: str) -> None:
    encoder, pixels = tiny_encoder(), random_pixels(3)
    with torch.no_grad():
        clean = encoder.encode_image(pixels)
        text = encoder.encode_text(["red circle", "blue star", "large square"])
    score = every_objective(clean, text, torch.eye(3, dtype=torch.bool))[name]
    ends = [PGD(8.0, n_steps)(encoder, pixels, score, generator=generator()) for n_steps in (0, 5)]
    with torch.no_grad():
        start, end = (score(encoder.encode_image(x)) for x in ends)
    assert (end > start).all()


def test_distances_to_the_clean_embedding_need_a_start_away_from_it() -> None:
    clean = unit_rows(3, 0)
    for score in (squared_distance(clean), kl_from_image(clean)):
        here = clean.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(here).sum(), here)
        assert float(gradient.abs().max()) < 1e-12


def test_wrong_weights_and_images_without_captions_are_refused() -> None:
    clean, text = unit_rows(2, 0), unit_rows(2, 1)
    mask = torch.eye(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least one caption"):
        kl_from_image_and_captions(clean, text, torch.tensor([[True, True], [False, False]]))
    with pytest.raises(ValueError, match="'mean' or 'sum'"):
        kl_from_image_and_captions(clean, text, mask, captions="last")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="alpha"):
        kl_from_image_and_captions(clean, text, mask, alpha=-1.0)
