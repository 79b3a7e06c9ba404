"""Pretrained towers under fresh heads: phases, learning rates and a budget that grows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from matlib.attacks.pgd import PGD
from matlib.defences.table import defence
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.heads import features, train_heads
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


class Headed(nn.Module):
    """A tower of a tiny encoder with a linear head that is a module of its own."""

    def __init__(self, tower: nn.Module, width: int, name: str) -> None:
        super().__init__()
        self.tower = tower
        setattr(self, name, nn.Linear(width, width, bias=False))
        self._name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        head: nn.Linear = getattr(self, self._name)
        return head(self.tower(x))


def headed() -> OpenClipEncoder:
    torch.manual_seed(5)
    encoder = tiny_encoder()
    clip: Any = encoder.clip
    width = clip.visual.proj.shape[1]
    clip.visual, clip.text = Headed(clip.visual, width, "head"), Headed(clip.text, width, "proj")
    encoder._shares_prefixes = False
    return encoder


def test_heads_learn_alone_and_every_input_passes_the_towers_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder, data, losses = headed(), toy_data(), list[float]()
    seen: list[int] = []
    encode = OpenClipEncoder.image_features

    def counted(self: OpenClipEncoder, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(OpenClipEncoder, "image_features", counted)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    train_heads(encoder, data, Schedule(120, 4, 2e-2), seed=0,
                on_step=lambda _, loss: losses.append(loss))  # fmt: skip
    moved = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"clip.visual.head.weight", "clip.text.proj.weight", "clip.logit_scale"}
    assert sum(losses[-10:]) < sum(losses[:10]) - 0.5
    assert sum(seen) == data.images.shape[0] * data.images.shape[1]
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())


def test_features_are_what_the_heads_are_given_by_pair_and_caption() -> None:
    encoder, data = headed().eval(), toy_data()
    images, texts = features(encoder, data)
    captions = [c for own in data.captions for c in own]
    last = data.images.shape[1] - 1
    with torch.no_grad():
        pixels = data.take(torch.tensor([2]), torch.tensor([last])).float() / 255
        torch.testing.assert_close(
            encoder.clip.visual.head(images[2, last][None]), encoder.image_features(pixels)
        )
        torch.testing.assert_close(
            encoder.clip.text.proj(texts), encoder.text_features(captions), rtol=1e-4, atol=1e-6
        )


def test_the_same_seed_gives_the_same_heads_and_another_one_others() -> None:
    found = []
    for seed in (0, 0, 1):
        encoder = headed()
        train_heads(encoder, toy_data(), Schedule(3, 4, 1e-2), seed=seed)
        found.append(encoder.clip.visual.head.weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_heads_that_are_a_part_of_their_tower_are_refused() -> None:
    with pytest.raises(ValueError, match="only where each is a module of its own"):
        train_heads(tiny_encoder(), toy_data(), Schedule(3, 4, 1e-2), seed=0)


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
    slow = replace(INNER, image=PGD(1.0, 2), ramp=0.5)
    assert slow.at(1 / 400).image.eps_255 == 0.05 and slow.at(0.25).image.eps_255 == 0.5
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
    ],
)
def test_impossible_phases_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**{"n_steps": 3, "batch_size": 4, "lr": 1e-3, **settings})


def test_a_model_without_heads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenClipEncoder, "heads", lambda self: [])
    with pytest.raises(ValueError, match="about heads, and this model has none"):
        trained(Schedule(3, 4, 1e-3, head_lr=1e-3))
