"""A ResNet's batch statistics in training: moved by the update's own passes and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matlib.data.pairs import OneToMany
from matlib.defences.table import defence
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.small import build_small
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from tests.toys import TINY
from tests.training.toy_runs import INNER, toy_candidates, toy_data

CONVNET = replace(TINY, image_tower="convnet", image_width=4, image_size=32)
N_STEPS = 3


def resnet_data() -> OneToMany:
    data = toy_data()
    larger = data.images.repeat_interleave(2, 3).repeat_interleave(2, 4)
    return replace(data, images=larger)


def trained(name: str, keep_in: Path | None = None, stop_after: int = 99) -> OpenClipEncoder:
    encoder, data = build_small(CONVNET, 1), resnet_data()

    def on_row(row: Mapping[str, float]) -> None:
        if row["step"] == stop_after:
            raise KeyboardInterrupt

    train(
        encoder, data, defence(name), Schedule(N_STEPS, 8, 1e-3, checkpoint_every=1), seed=0,
        inner=INNER, candidates=toy_candidates(data), books=Bookkeeping(keep_in, on_row=on_row),
    )  # fmt: skip
    return encoder


@pytest.mark.parametrize(
    ("name", "n_passes"), [("clean", 1), ("image-at", 1), ("tecoa", 1), ("mat", 1), ("leaf", 0)]
)
def test_only_passes_of_the_update_move_batch_statistics(name: str, n_passes: int) -> None:
    before, after = build_small(CONVNET, 1), trained(name)
    assert not any(module.training for module in after.modules())
    assert int(after.clip.visual.bn1.num_batches_tracked) == n_passes * N_STEPS  # type: ignore[union-attr]
    same = torch.equal(before.clip.visual.bn1.running_mean, after.clip.visual.bn1.running_mean)  # type: ignore[union-attr,arg-type]
    assert same == (n_passes == 0)


def test_a_stopped_run_goes_on_with_its_batch_statistics(tmp_path: Path) -> None:
    whole = trained("mat")
    with pytest.raises(KeyboardInterrupt):
        trained("mat", tmp_path, stop_after=1)
    resumed = trained("mat", tmp_path)
    theirs = resumed.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in whole.state_dict().items())
