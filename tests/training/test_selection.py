from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from matlib.defences.table import defence
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from matlib.training.selection import HeldOutRecall, Validation
from tests.toys import tiny_encoder
from tests.training.toy_runs import toy_data

DATA = toy_data()
EVERY = 4


def weights(encoder: OpenClipEncoder) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in encoder.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def scripted(
    recalls: Sequence[float], seen: list[dict[str, torch.Tensor]], keep_best: bool = True
) -> Validation:
    """Measurements whose values are given; they are told apart by how often they were made."""

    def measure(encoder: OpenClipEncoder) -> HeldOutRecall:
        seen.append(weights(encoder))
        return HeldOutRecall(recalls[len(seen) - 1], 0.5)

    return Validation(measure, EVERY, keep_best)


def trained(validation: Validation | None, **more: object) -> OpenClipEncoder:
    encoder = tiny_encoder()
    schedule = Schedule(3 * EVERY, 8, 3e-3, checkpoint_every=1, **more.pop("schedule", {}))  # type: ignore[arg-type]
    train(encoder, DATA, defence("clean"), schedule, seed=0, validation=validation, **more)  # type: ignore[arg-type]
    return encoder


def test_training_ends_with_the_weights_that_measured_best() -> None:
    seen: list[dict[str, torch.Tensor]] = []
    encoder = trained(scripted([0.1, 0.7, 0.3], seen))
    assert same(weights(encoder), seen[1]) and not same(seen[1], seen[2])


def test_of_equals_the_first_is_kept() -> None:
    seen: list[dict[str, torch.Tensor]] = []
    assert same(weights(trained(scripted([0.2, 0.7, 0.7], seen))), seen[1])


def test_measuring_changes_nothing_unless_it_chooses() -> None:
    watched = trained(scripted([0.9, 0.1, 0.1], [], keep_best=False))
    assert same(weights(watched), weights(trained(None)))


def test_averaged_weights_are_measured_kept_and_training_goes_on_from_the_others() -> None:
    seen: list[dict[str, torch.Tensor]] = []
    averaging = {"ema_decay": 0.9}
    encoder = trained(scripted([0.1, 0.2, 0.3], seen), schedule=averaging)
    plain = trained(None, schedule=averaging)
    assert same(weights(encoder), weights(plain)), "the last was the best: nothing was disturbed"
    assert same(weights(encoder), seen[2])


def stopping(folder: Path, step: int) -> Bookkeeping:
    """Checkpoints in a folder, and a kill after a step."""

    def on_row(row: Mapping[str, float]) -> None:
        if row["step"] == step:
            raise InterruptedError

    return Bookkeeping(folder, on_row=on_row)


@pytest.mark.parametrize("step", [5, 8, 10])
def test_a_run_that_was_stopped_after_its_best_ends_with_it(tmp_path: Path, step: int) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    by_step = {EVERY: 0.7, 2 * EVERY: 0.2, 3 * EVERY: 0.3}
    whole = trained(scripted(list(by_step.values()), seen))

    again: list[dict[str, torch.Tensor]] = []
    with pytest.raises(InterruptedError):
        trained(scripted(list(by_step.values()), again), books=stopping(tmp_path, step))
    n_before = sum(measured <= step for measured in by_step)  # the step's checkpoint was written
    left = [recall for at, recall in by_step.items() if at > n_before * EVERY]
    resumed = trained(scripted(left, []), books=Bookkeeping(tmp_path))
    assert same(weights(resumed), weights(whole)) and same(weights(whole), seen[0])


def test_a_run_that_keeps_the_best_is_not_continued_as_one_that_keeps_the_last(
    tmp_path: Path,
) -> None:
    with pytest.raises(InterruptedError):
        trained(scripted([0.7], []), books=stopping(tmp_path, 5))
    with pytest.raises(ValueError, match="kept"):
        trained(None, books=Bookkeeping(tmp_path))


def test_a_measurement_every_zero_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="between measurements"):
        Validation(lambda encoder: HeldOutRecall(0.0), 0)
