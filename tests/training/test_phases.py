"""Pretrained towers under fresh heads: phases, learning rates and a budget that grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from matlib.attacks.pgd import PGD
from matlib.defences.table import defence
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Schedule, make_optimiser
from tests.toys import tiny_encoder
from tests.training.toy_runs import INNER, toy_candidates, toy_data

HEADS = {"clip.visual.proj", "clip.text.text_projection", "clip.logit_scale"}


def trained(schedule: Schedule, **more: Any) -> tuple[OpenClipEncoder, set[str]]:
    """The encoder, and the names of the weights that moved."""
    encoder, data = tiny_encoder(), toy_data()
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    train(encoder, data, defence("mat"), schedule, seed=0, inner=INNER,
          candidates=toy_candidates(data), **more)  # fmt: skip
    moved = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
    return encoder, moved


def test_heads_alone_learn_first_and_then_all_weights() -> None:
    assert trained(Schedule(3, 4, 1e-3, heads_first=3))[1] == HEADS
    encoder, moved = trained(Schedule(6, 4, 1e-3, heads_first=3))
    assert {n for n, p in encoder.named_parameters() if p.ndim >= 2 and "token" not in n} <= moved
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_killed_run_ends_with_the_same_weights_in_either_phase(tmp_path: Path) -> None:
    schedule = Schedule(6, 4, 1e-3, heads_first=3, head_lr=5e-3, checkpoint_every=1)
    whole, _ = trained(schedule)
    for killed_after in (2, 4):

        def stop(row: dict[str, float], last: int = killed_after) -> None:
            if row["step"] == last:
                raise KeyboardInterrupt

        folder = tmp_path / str(killed_after)
        with pytest.raises(KeyboardInterrupt):
            trained(schedule, books=Bookkeeping(folder, on_row=stop))
        again, _ = trained(schedule, books=Bookkeeping(folder))
        assert all(map(torch.equal, again.parameters(), whole.parameters()))


def test_heads_have_a_learning_rate_of_their_own() -> None:
    encoder = tiny_encoder()
    schedule, heads = Schedule(5, 4, 2e-4, head_lr=1e-3), encoder.heads()
    optimiser = make_optimiser(list(encoder.parameters()), schedule, heads)
    rates = {id(p): g["times"] * 2e-4 for g in optimiser.param_groups for p in g["params"]}
    assert len(rates) == len(list(encoder.parameters()))
    for name, parameter in encoder.named_parameters():
        assert rates[id(parameter)] == pytest.approx(1e-3 if name in HEADS else 2e-4), name


def test_one_rate_for_all_is_what_no_rate_of_their_own_means() -> None:
    same, _ = trained(Schedule(4, 4, 1e-3, head_lr=1e-3))
    plain, _ = trained(Schedule(4, 4, 1e-3))
    faster, _ = trained(Schedule(4, 4, 1e-3, head_lr=1e-2))
    for a, b in zip(same.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(faster.clip.visual.proj, plain.clip.visual.proj, atol=1e-4)


def test_the_image_budget_grows_in_a_straight_line() -> None:
    inner = replace(INNER, image=PGD(4.0, 2, 1.0), ramp=0.5)
    grown = [inner.at(done).image for done in (0.125, 0.25, 0.5, 1.0)]
    assert [(each.eps_255, each.step_255) for each in grown] == [
        (1.0, 0.25), (2.0, 0.5), (4.0, 1.0), (4.0, 1.0)
    ]  # fmt: skip
    assert inner.at(0.1).text == inner.text and replace(inner, ramp=0.0).at(0.01).image.eps_255 == 4
    with pytest.raises(ValueError, match=r"ramp is a share of the steps in \[0, 1\]; got 1\.5"):
        replace(INNER, ramp=1.5)


def test_training_attacks_within_the_budget_that_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    attack = PGD.__call__

    def noted(self: PGD, *arguments: Any, **more: Any) -> torch.Tensor:
        seen.append(self.eps_255)
        return attack(self, *arguments, **more)

    monkeypatch.setattr(PGD, "__call__", noted)
    data = toy_data()
    train(
        tiny_encoder(), data, defence("image-at"), Schedule(4, 4, 1e-3), seed=0,
        inner=replace(INNER, ramp=0.5),
    )  # fmt: skip
    assert seen == [2.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_lr": 0.0}, r"head_lr in \(0, 1\], or none; got 0\.0"),
        ({"heads_first": 4}, "heads_first is a number of the 3 steps; got 4"),
        ({"heads_first": -1}, "got -1"),
    ],
)
def test_impossible_phases_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**{"n_steps": 3, "batch_size": 4, "lr": 1e-3, **settings})


def test_a_model_without_heads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenClipEncoder, "heads", lambda self: [])
    with pytest.raises(ValueError, match="about heads, and this model has none"):
        trained(Schedule(3, 4, 1e-3, heads_first=1))
