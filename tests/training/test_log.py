from __future__ import annotations

import csv
import math
import platform
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from matlib.defences.batch import Batch
from matlib.defences.processes import ONE_PROCESS
from matlib.defences.table import defence
from matlib.training.log import LOG_COLUMNS, Bookkeeping, History, StepLog, describe, scalars
from matlib.training.loop import train
from matlib.training.schedule import Schedule
from matlib.training.seen import SeenEncoder
from tests.toys import random_pixels, tiny_encoder
from tests.training.toy_runs import INNER, toy_candidates, toy_data

ROW = {
    "step": 3, "loss": 1.5, "lr": 1e-3, "seconds": 2.0, "attack_seconds": 1.25,
    "text_attack_seconds": 0.5, "image_attack_seconds": 0.5, "clean_recall": math.nan,
    "robust_recall": 0.25,
}  # fmt: skip


def run(name: str, folder: Path | None = None, **more) -> History:  # type: ignore[no-untyped-def]
    data, encoder = toy_data(), more.pop("encoder", None) or tiny_encoder()
    return train(
        encoder, data, defence(name), Schedule(4, 4, 1e-3), seed=0, inner=INNER,
        candidates=toy_candidates(data), books=Bookkeeping(log_in=folder, **more),
    )  # fmt: skip


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "steps.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_is_told_in_rates_and_shares() -> None:
    found = scalars(ROW, 64)
    assert tuple(found) == LOG_COLUMNS
    assert found["samples_per_second"] == 32
    shares = [found[f"{part}_share"] for part in ("text_attack", "image_attack", "rest")]
    assert shares == [0.25, 0.25, 0.5]
    assert describe(ROW, 64) == "loss 1.50, recall 0.25 attacked, 32 pairs/s"


def test_the_csv_has_a_row_per_step_and_says_what_the_history_says(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    history = run("mat", tmp_path, on_row=rows.append)
    assert rows == history.rows
    found = read(tmp_path)
    assert [int(row["step"]) for row in found] == [0, 1, 2, 3]
    for row, told in zip(history.rows, found, strict=True):
        assert float(told["loss"]) == row["loss"]
        parts = row["text_attack_seconds"], row["image_attack_seconds"]
        assert min(parts) > 0 and sum(parts) <= row["attack_seconds"] <= row["seconds"]


def test_a_resumed_runs_csv_has_every_step_once(tmp_path: Path) -> None:
    def stop(row: Mapping[str, float]) -> None:
        if row["step"] == 2:
            raise KeyboardInterrupt

    keep_in, log_in = tmp_path / "kept", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        run("clean", log_in, keep_in=keep_in, on_row=stop)
    assert len(read(log_in)) == 3  # one of them is of step 0, after which a checkpoint was kept
    run("clean", log_in, keep_in=keep_in)
    assert [int(row["step"]) for row in read(log_in)] == [0, 1, 2, 3]


def test_nothing_is_written_without_a_folder(tmp_path: Path) -> None:
    with StepLog(None, 4, History()) as log:
        log.write(ROW)
        log.warn("nobody reads this")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "clean", "robust"),
    [("clean", True, False), ("mat", False, True), ("mmcoa", True, True), ("fare", False, False)],
)
def test_recall_is_known_where_the_loss_embedded_both_halves_of_the_pairs(
    name: str, clean: bool, robust: bool
) -> None:
    for row in run(name).rows:
        assert math.isnan(row["clean_recall"]) != clean
        assert math.isnan(row["robust_recall"]) != robust


@pytest.mark.parametrize("name", ["mat", "fare", "leaf"])
def test_clean_recall_may_be_measured_every_so_often_without_moving_the_weights(name: str) -> None:
    models = tiny_encoder(), tiny_encoder()
    often = run(name, encoder=models[0], clean_recall_every=2)
    never = run(name, encoder=models[1])
    known = [not math.isnan(row["clean_recall"]) for row in often.rows]
    assert known == [True, False, True, False]
    assert [row["loss"] for row in often.rows] == [row["loss"] for row in never.rows]
    weights = [model.state_dict() for model in models]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_batch_recall_is_that_of_its_similarity_matrix() -> None:
    encoder, pixels = tiny_encoder(), random_pixels(4)
    captions = ["red circle", "blue star", "small cross", "large square"]
    batch = Batch(pixels, captions, torch.arange(4))
    seen = SeenEncoder(encoder, lambda: torch.autocast("cpu", enabled=False), batch, batch)
    similarity = seen.encode_image(pixels) @ seen.encode_text(captions).T
    hits = [similarity[i].argmax() == i for i in range(4)]
    hits += [similarity[:, i].argmax() == i for i in range(4)]
    found = seen.measures(ONE_PROCESS, is_attacked=False)
    assert found.keys() == {"clean_recall", "spread"}
    assert float(found["clean_recall"]) == sum(map(int, hits)) / 8
    assert float(found["spread"]) == pytest.approx(
        float((similarity.max() - similarity.min()).detach())
    )


def test_event_files_name_no_machine(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    history = History()
    with StepLog(tmp_path, 8, history) as log:
        history.add(**ROW)
        log.write(ROW)
    [events] = tmp_path.glob("*tfevents*")
    assert events.name == "events-to-1.tfevents" and platform.node() not in events.name
