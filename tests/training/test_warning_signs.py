from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matlib.attacks.pgd import PGD
from matlib.defences.table import defence
from matlib.models.open_clip import OpenClipEncoder
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from matlib.training.seen import HeldOut, collapse, overfitting, recall_at_1, spread
from matlib.training.selection import HeldOutRecall, Validation
from tests.toys import tiny_encoder
from tests.training.toy_runs import INNER, toy_data


def measured(*pairs: tuple[float, float]) -> list[HeldOut]:
    return [HeldOut(10 * i, held_out, train) for i, (held_out, train) in enumerate(pairs)]


def test_a_collapsed_embedding_recalls_nothing_and_has_no_spread() -> None:
    same, apart = torch.ones(4, 4), torch.eye(4)
    assert float(recall_at_1(same)) == 0 and float(spread(same)) == 0
    assert float(recall_at_1(apart)) == 1 and float(spread(apart)) == 1
    assert float(recall_at_1(apart[[1, 0, 2, 3]])) == 0.5


def test_collapse_is_told_once_and_never_of_an_unknown_spread() -> None:
    told = collapse(7, 1e-6, [])
    assert told is not None and "step 7" in told
    assert collapse(8, 1e-6, [told]) is None
    assert collapse(7, 0.1, []) is None and collapse(7, math.nan, []) is None


def test_overfitting_is_training_that_gains_what_held_out_pairs_lose() -> None:
    told = overfitting(measured((0.3, 0.3), (0.4, 0.4), (0.2, 0.6)), [])
    assert told is not None and "since step 10" in told and "0.40 to 0.20" in told
    assert overfitting(measured((0.3, 0.3), (0.4, 0.4), (0.2, 0.6)), [told]) is None
    assert overfitting(measured((0.3, 0.3), (0.4, 0.4), (0.37, 0.6)), []) is None  # noise
    assert overfitting(measured((0.3, 0.3), (0.4, 0.4), (0.2, 0.2)), []) is None  # both fall
    assert overfitting(measured((0.3, math.nan), (0.1, math.nan)), []) is None
    assert overfitting(measured((0.3, 0.3)), []) is None


def test_a_run_reports_collapse_in_its_history_and_its_log(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    with torch.no_grad():  # every image and every caption becomes one vector
        for tower in (encoder.clip.visual.ln_post, encoder.clip.text.ln_final):
            tower.weight.zero_()
            tower.bias.fill_(1)
    schedule = Schedule(2, 4, 1e-6)
    history = train(
        encoder, toy_data(), defence("clean"), schedule, seed=0, books=Bookkeeping(log_in=tmp_path)
    )
    (warning,) = history.warnings
    assert "collapsed" in warning
    assert (tmp_path / "warnings.txt").read_text() == f"{warning}\n"


def test_held_out_recall_is_measured_on_the_frozen_encoder_and_judged() -> None:
    recalls = iter([0.9, 0.1])
    frozen: list[bool] = []

    def held_out(encoder: OpenClipEncoder) -> HeldOutRecall:
        frozen.append(
            not encoder.training and not any(p.requires_grad for p in encoder.parameters())
        )
        return HeldOutRecall(next(recalls))

    schedule = Schedule(40, 8, 3e-3)
    history = train(
        tiny_encoder(), toy_data(), defence("image-at"), schedule, seed=0,
        inner=replace(INNER, image=PGD(0.5, 1)), validation=Validation(held_out, 20),
    )  # fmt: skip
    assert frozen == [True, True]
    first, second = history.held_out
    assert (first["step"], second["step"], second["held_out"]) == (19, 39, 0.1)
    late = [row["robust_recall"] for row in history.rows[20:]]
    assert second["train"] == pytest.approx(sum(late) / 20)
    (warning,) = history.warnings
    assert "over-fitting" in warning
