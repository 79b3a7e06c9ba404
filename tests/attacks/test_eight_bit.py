from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, strategies as st

from matlib.attacks.balls import to_8bit
from tests.toys import generator


@given(
    eps=st.just(0.0) | st.integers(30, 6400).map(lambda hundredths: hundredths / 100),
    norm=st.sampled_from(["linf", "l2"]),
    seed=st.integers(0, 99),
    is_double=st.booleans(),
)
def test_8_bit_stays_in_the_ball(eps: float, norm: Any, seed: int, is_double: bool) -> None:
    clean = torch.randint(256, (2, 3, 4, 4), generator=generator(seed)).double() / 255
    change = torch.rand(clean.shape, generator=generator(seed + 1)).double() * 2 - 1
    unit = 1.0 if norm == "linf" else change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    moved = (clean + change / unit * eps / 255).clamp(0, 1)
    moved = moved if is_double else moved.float()
    rounded = to_8bit(moved, clean, eps, norm)
    steps = (rounded.double() - clean) * 255
    length = steps.abs().max() if norm == "linf" else steps.flatten(1).norm(dim=1).max()
    assert float(length) <= eps + 1e-3
    assert torch.allclose(steps, steps.round(), atol=1e-3) and rounded.dtype == moved.dtype
    assert torch.equal(rounded, rounded.clamp(0, 1))


def test_linf_changes_go_to_the_nearest_step_within_the_budget() -> None:
    clean = torch.tensor([0.0, 100.0, 100.0, 100.0, 255.0]) / 255
    moved = torch.tensor([0.4, 101.5, 98.6, 102.4, 254.4]) / 255
    found = to_8bit(moved, clean, 1.5) * 255
    assert torch.allclose(found, torch.tensor([0.0, 101.0, 99.0, 101.0, 254.0]), atol=1e-4)


def test_l2_changes_are_never_lengthened() -> None:
    clean = torch.full((1, 3, 4, 4), 100 / 255)
    moved = clean + 1.6 / 255  # rounding each to 2 would lengthen the change by a quarter
    assert torch.allclose(to_8bit(moved, clean, 1.6 * 48**0.5, "l2"), clean + 1 / 255, atol=1e-6)
