from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matlib.commands.batches import Batch, BatchFolder

SETTINGS = {"eps_255": 2.0, "attack": "sga"}


def _batch() -> Batch:
    tensors = {"text": torch.rand(3, 4), "pixels": torch.rand(2, 3, 4, 4)}
    return Batch(("a", "b", "c"), tensors, {"n_zero": 0}, ("images/x.png", "images/y.png"))


def _save(folder: BatchFolder, number: int, batch: Batch) -> None:
    folder.save_images(batch.images, torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    folder.save(number, batch)


def test_a_saved_batch_is_found_again(tmp_path: Path) -> None:
    batch = _batch()
    _save(BatchFolder(tmp_path / "out", SETTINGS), 7, batch)
    found = BatchFolder(tmp_path / "out", SETTINGS).load(7)
    assert found is not None
    assert (found.captions, found.counts, found.images) == (
        batch.captions, batch.counts, batch.images
    )  # fmt: skip
    assert all(found.tensors[name].equal(value) for name, value in batch.tensors.items())
    assert BatchFolder(tmp_path / "out", SETTINGS).load(8) is None


@pytest.mark.parametrize("gone", ["batches/0000.json", "batches/0000.safetensors", "images/y.png"])
def test_half_a_batch_is_no_batch(tmp_path: Path, gone: str) -> None:
    folder = BatchFolder(tmp_path, SETTINGS)
    _save(folder, 0, _batch())
    (tmp_path / gone).unlink()
    assert folder.load(0) is None


@pytest.mark.parametrize("damaged", ["batches/0000.json", "batches/0000.safetensors"])
def test_a_damaged_batch_is_no_batch(tmp_path: Path, damaged: str) -> None:
    folder = BatchFolder(tmp_path, SETTINGS)
    _save(folder, 0, _batch())
    (tmp_path / damaged).write_bytes((tmp_path / damaged).read_bytes()[:20])
    assert folder.load(0) is None


def test_a_folder_of_other_settings_is_refused_and_named_what_differs(tmp_path: Path) -> None:
    _save(BatchFolder(tmp_path, SETTINGS), 0, _batch())
    with pytest.raises(ValueError, match=r"other settings \(eps_255: 2\.0 there, 4\.0 now\)"):
        BatchFolder(tmp_path, {**SETTINGS, "eps_255": 4.0})


def test_a_folder_in_which_nothing_was_finished_may_be_used_again(tmp_path: Path) -> None:
    BatchFolder(tmp_path, SETTINGS)
    BatchFolder(tmp_path, {**SETTINGS, "eps_255": 4.0})


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        BatchFolder(tmp_path, SETTINGS)
