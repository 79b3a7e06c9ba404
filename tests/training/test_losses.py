from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from matlib.defences.defence import contrastive_loss, distance_loss, divergence_loss
from tests.toys import generator


def features(seed: int, n: int = 4) -> Tensor:
    return torch.randn(n, 8, generator=generator(seed), dtype=torch.float64)


def test_contrastive_loss_equals_cross_entropy_written_out() -> None:
    image, text = F.normalize(features(0)), F.normalize(features(1))
    to_text, to_image = [], []
    for i in range(4):
        to_text.append(-math.log(_share([3.0 * float(image[i] @ t) for t in text], i)))
        to_image.append(-math.log(_share([3.0 * float(text[i] @ v) for v in image], i)))
    scale = torch.tensor(3.0)
    half, whole = sum(to_text) / 4, (sum(to_text) + sum(to_image)) / 8
    assert float(contrastive_loss(image, text, scale, "image_to_text")) == pytest.approx(half)
    assert float(contrastive_loss(image, text, scale)) == pytest.approx(whole)


def test_contrastive_loss_equals_open_clips_on_one_process() -> None:
    image, text = F.normalize(features(2)), F.normalize(features(3))
    scale, theirs = torch.tensor(14.0, dtype=torch.float64), ClipLoss()
    sides = [side.clone().requires_grad_(True) for side in (image, text, image, text)]
    ours, other = contrastive_loss(*sides[:2], scale), theirs(*sides[2:], scale)
    assert ours.item() == pytest.approx(other.item(), rel=1e-12)
    (ours + other).backward()
    for own, its in zip(sides[:2], sides[2:], strict=True):
        assert own.grad is not None and its.grad is not None
        assert torch.allclose(own.grad, its.grad, rtol=1e-12)


def _share(logits: list[float], own: int) -> float:
    return math.exp(logits[own]) / sum(map(math.exp, logits))


def test_distance_is_summed_over_dimensions_and_averaged_over_rows() -> None:
    moved, target = features(0).requires_grad_(True), features(1).requires_grad_(True)
    apart = (moved - target).tolist()
    expected = sum(d**2 for row in apart for d in row)
    loss = distance_loss(moved, target)
    assert loss.item() == pytest.approx(expected / 4)
    loss.backward()
    assert moved.grad is not None and target.grad is None


def test_divergence_is_the_mean_of_kl_from_the_target_which_gets_no_gradient() -> None:
    logits, target = features(0).requires_grad_(True), features(1).requires_grad_(True)
    q, p = logits.softmax(1).tolist(), target.softmax(1).tolist()
    expected = sum(
        p[i][c] * (math.log(p[i][c]) - math.log(q[i][c])) for i in range(4) for c in range(8)
    )
    loss = divergence_loss(logits, target)
    assert loss.item() == pytest.approx(expected / 4)
    loss.backward()
    assert logits.grad is not None and target.grad is None
    assert divergence_loss(target, target).item() == pytest.approx(0, abs=1e-12)


def test_without_a_logit_scale_no_cross_entropy_of_200_captions_falls_below_3_3() -> None:
    """The arithmetic beside `Guided`: cosines of 1 and -1 are as far apart as they can be."""
    best = torch.full((1, 200), -1.0)
    best[0, 0] = 1.0
    assert float(best.softmax(1)[0, 0]) == pytest.approx(0.036, abs=5e-4)
    assert float(F.cross_entropy(best, torch.tensor([0]))) > 3.3
