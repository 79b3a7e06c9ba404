from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from matlib.attacks.edits import Edit
from matlib.commands.batches import AttackedBatch, AttackFolder, check_folder, result_name

SETTINGS = {"eps_255": 2.0, "attack": "sga"}
NAMES = ("000000_x", "000001_y")


def _open(out: Path, **changes: Any) -> AttackFolder:
    return AttackFolder(out, {**SETTINGS, **changes}, 0, ())


def _batch(kind: torch.dtype = torch.uint8) -> tuple[AttackedBatch, Tensor]:
    batch = AttackedBatch(("a", "b", "ü 🐕"), {"text": torch.rand(3, 4)}, {"n_zero": 0})
    return batch, (torch.rand(2, 3, 4, 4) * 255).to(kind)


def _never() -> tuple[AttackedBatch, Tensor]:
    raise AssertionError("made again")


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_batch_is_made_once_and_found_by_its_content(tmp_path: Path, kind: torch.dtype) -> None:
    whole = _batch(kind)
    made, places = _open(tmp_path / "out").batch(7, "c1", NAMES, lambda: whole)
    again = _open(tmp_path / "out")
    assert again.has_batch(7, "c1")
    assert not again.has_batch(7, "c2") and not again.has_batch(8, "c1")
    found, same = again.batch(7, "c1", NAMES, _never)
    assert (found.captions, found.counts) == (whole[0].captions, whole[0].counts)
    assert found.tensors["text"].equal(made.tensors["text"]) and same == places
    for place in places:
        file = place if isinstance(place, str) else place["file"]
        assert (tmp_path / "out" / file).is_file()


def test_the_table_of_words_is_made_once_for_the_captions(tmp_path: Path) -> None:
    table = [[Edit(0, "wórd")], []]
    assert _open(tmp_path).table(["a b", "c"], lambda: table) == table
    assert _open(tmp_path).table(["a b", "c"], lambda: [[], []]) == table
    assert _open(tmp_path).table(["a b", "d"], lambda: [[], []]) == [[], []]


def test_what_only_other_data_needed_goes_when_the_new_result_is_whole(tmp_path: Path) -> None:
    first = _open(tmp_path)
    first.batch(0, "old", NAMES, _batch)
    first.finish({"pairs": 1})
    second = _open(tmp_path)
    second.batch(0, "new", ("000000_z", "000001_y"), _batch)
    assert len([*tmp_path.glob("runs/attacked-*")]) == 2  # until it is finished
    (tmp_path / "images" / "mine.txt").write_text("kept", encoding="utf-8")
    second.finish({"pairs": 2})
    assert len([*tmp_path.glob("runs/attacked-*")]) == 1
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == ["000000_z.png", "000001_y.png", "mine.txt"]


def test_a_folder_of_other_settings_is_refused_and_named_what_differs(tmp_path: Path) -> None:
    _open(tmp_path).batch(0, "c", NAMES, _batch)
    with pytest.raises(ValueError, match=r"other settings \(eps_255: 2\.0 there, 4\.0 now\)"):
        _open(tmp_path, eps_255=4.0)


def test_a_folder_in_which_nothing_was_finished_may_be_used_again(tmp_path: Path) -> None:
    _open(tmp_path)
    _open(tmp_path, eps_255=4.0)


@pytest.mark.parametrize("name", ["thesis.tex", "runs/model-base-s0-123", "robustness.csv"])
def test_a_folder_with_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="not empty"):
        _open(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(PermissionError, match="cannot be written"):
        check_folder(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="is a file; choose another --out"):
        check_folder(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("image_id", "name"),
    [
        ("a/b/i0.png", "000012_i0"),
        ("x" * 300 + ".png", "000012_" + "x" * 80),
        ("é" * 100 + ".png", "000012_" + "é" * 40),
        ("two words: what?\n.jpg", "000012_two_words__what__"),
    ],
)
def test_names_of_results_fit_every_disk(image_id: str, name: str) -> None:
    assert result_name(12, image_id) == name
