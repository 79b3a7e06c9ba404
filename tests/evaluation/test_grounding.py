"""Heat maps judged and attacked, on maps made by hand and on a small encoder."""

from __future__ import annotations

import pytest
import torch

from matlib.attacks.edits import Edit
from matlib.attacks.pgd import PGD
from matlib.data.referring import Referring
from matlib.evaluation.grounding import (
    cells_in,
    ground_under_attack,
    grounding_scores,
    outside_margin,
)
from matlib.models.positions import heat_of_tower
from matlib.models.small import SmallModel, build_small

LEFT, RIGHT = [0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5]
TWO = torch.tensor([LEFT, RIGHT])
ASKED = Referring(("a red star", "a blue ring"), torch.tensor([0, 0]), TWO, (TWO,))


def hot(at: tuple[int, int]) -> torch.Tensor:
    heat = torch.zeros(4, 4)
    heat[at] = 1
    return heat


def test_a_map_that_is_hot_in_the_box_scores_and_one_beside_it_does_not() -> None:
    right = grounding_scores(torch.stack([hot((1, 1)), hot((1, 2))]), ASKED)
    assert right["pointing"].tolist() == [1, 1] and right["choice"].tolist() == [1, 1]
    wrong = grounding_scores(torch.stack([hot((1, 2)), hot((3, 3))]), ASKED)
    assert wrong["pointing"].tolist() == [0, 0] and wrong["choice"].tolist()[0] == 0
    assert (right["overlap"] > 0.15).all() and wrong["overlap"].tolist()[1] == 0


def test_a_box_that_fills_the_hot_region_overlaps_wholly() -> None:
    heat = torch.zeros(1, 64, 64)
    heat[0, :32, :32], heat[0, 60, 60] = 1, 0.9  # not connected with the hottest
    one = Referring(("a",), torch.tensor([0]), TWO[:1], (TWO,))
    assert grounding_scores(heat, one)["overlap"].item() == pytest.approx(1)


def test_however_small_a_box_is_one_cell_belongs_to_it() -> None:
    small = torch.tensor([[0.26, 0.51, 0.27, 0.52]])
    assert cells_in(small, 4, 4).nonzero().tolist() == [[0, 2, 1]]
    assert torch.equal(cells_in(TWO[:1], 4, 4)[0].nonzero().sum(1), torch.tensor([0, 1, 1, 2]))
    assert outside_margin(hot((2, 1))[None], small).item() == -1


def test_boxes_in_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="fractions of the image's sides"):
        Referring(("a",), torch.tensor([0]), torch.tensor([[3.0, 4.0, 20.0, 30.0]]), (TWO,))
    with pytest.raises(ValueError, match=r"1 phrases need boxes \(1, 4\)"):
        Referring(("a",), torch.tensor([0]), TWO, (TWO,))


def test_attacks_keep_their_budget_and_make_the_map_more_wrong() -> None:
    shape = SmallModel(image_size=32, patch_size=8, image_width=32, image_layers=2, text_width=32,
                       text_layers=1, embed_dim=16)  # fmt: skip
    encoder = build_small(shape, 0)
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    words = [[Edit(1, "scarlet"), Edit(2, "sun")], []]
    found = ground_under_attack(encoder, pixels, ASKED, PGD(8, 5), words)
    assert list(found.scores) == ["clean", "embeddings", "image", "phrase", "both"]
    margin = {name: outside_margin(heat, TWO) for name, heat in found.heat.items()}
    assert (margin["image"] > margin["clean"]).all() and (margin["image"] > 0).all()
    assert (margin["phrase"] >= margin["clean"]).all()
    for name in ("embeddings", "image", "both"):
        assert (found.pixels[name] - pixels).abs().max() <= 8 / 255 + 1e-6
    every = ["a red star", "a scarlet star", "a red sun"]
    tried = [outside_margin(heat_of_tower(encoder, pixels, [t]), TWO[:1]) for t in every]
    assert found.phrases["phrase"] == [every[int(torch.cat(tried).argmax())], "a blue ring"]
    again = ground_under_attack(encoder, pixels, ASKED, PGD(8, 5))
    assert list(again.scores) == ["clean", "embeddings", "image"]
    assert torch.equal(again.heat["image"], found.heat["image"])
