"""RefCOCO from disk as REFER lays it out, and grounding judged on it from the command line."""

from __future__ import annotations

import json
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from matlib.cli import main
from matlib.data.referring import Referring, read_refcoco
from matlib.models.small import SmallModel, build_small, save_small

SIDES = [(40, 20), (30, 30), (20, 40)]


def sentence(text: str, number: int) -> dict[str, Any]:
    return {"tokens": text.split(), "raw": text.title(), "sent": text, "sent_id": number}


def made(folder: Path, form: str = "json") -> tuple[Path, Path]:
    """Three images of COCO's names, two of them in `val`: a folder of refs and one of images."""
    refs, images = folder / "refcoco+", folder / "images" / "train2014"
    refs.mkdir(parents=True)
    images.mkdir(parents=True)
    names = [f"COCO_train2014_{n:012}.jpg" for n in (9, 25, 61)]
    for name, sides in zip(names, SIDES, strict=True):
        Image.new("RGB", sides, "red").save(images / name)
    things = [(1, 9, [4, 2, 10, 10]), (2, 9, [20, 0, 20, 20]), (3, 25, [0, 15, 15, 15]),
              (4, 61, [0, 0, 20, 10]), (5, 9, [1, 1, 0, 3])]  # fmt: skip
    instances = {
        "info": {}, "licenses": [], "categories": [{"id": 1, "name": "thing"}],
        "images": [{"id": i, "file_name": name, "width": w, "height": h}
                   for i, name, (w, h) in zip((9, 25, 61), names, SIDES, strict=True)],
        "annotations": [{"id": n, "image_id": i, "bbox": box, "category_id": 1, "iscrowd": 0,
                         "area": 1.0, "segmentation": []} for n, i, box in things],
    }  # fmt: skip
    (refs / "instances.json").write_text(json.dumps(instances), encoding="utf-8")
    listed = [
        {"ref_id": n, "ann_id": thing, "image_id": image, "split": split, "category_id": 1,
         "file_name": f"COCO_train2014_{image:012}_{n}.jpg", "sent_ids": [n],
         "sentences": [sentence(text, n) for text in texts]}
        for n, (thing, image, split, texts) in enumerate([
            (1, 9, "val", ["red star", "the  left star"]), (4, 61, "train", ["top"]),
            (3, 25, "val", ["blue ring"]), (2, 9, "val", ["right thing"]),
        ])
    ]  # fmt: skip
    if form == "p":
        (refs / "refs(unc).p").write_bytes(pickle.dumps(listed, protocol=0))
    else:
        (refs / "refs(unc).json").write_text(json.dumps(listed), encoding="utf-8")
    return refs, folder / "images"


def test_phrases_have_their_boxes_in_fractions_of_the_sides(tmp_path: Path) -> None:
    found = read_refcoco(*made(tmp_path), "val", 16)
    asked = found.referring
    assert asked.phrases == ("red star", "the left star", "blue ring", "right thing")
    assert asked.image_of.tolist() == [0, 0, 1, 0]
    left, ring, right = [0.1, 0.1, 0.35, 0.6], [0.0, 0.5, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]
    torch.testing.assert_close(asked.boxes, torch.tensor([left, left, ring, right]))
    torch.testing.assert_close(asked.candidates[0], torch.tensor([left, right]))
    assert found.images.load([0, 1]).shape == (2, 3, 16, 16)
    assert found.names[1] == "COCO_train2014_000000000025.jpg"
    one = asked.of_images(torch.tensor([1]))
    assert one.phrases == ("blue ring",) and one.image_of.tolist() == [0]
    assert isinstance(one, Referring) and len(one.candidates) == 1
    assert len(read_refcoco(*tmp_parts(tmp_path), "val", 16, limit=1).referring.phrases) == 3


def tmp_parts(folder: Path) -> tuple[Path, Path]:
    return folder / "refcoco+", folder / "images"


def test_a_pickle_is_not_read_and_the_line_that_turns_it_into_json_works(tmp_path: Path) -> None:
    refs, images = made(tmp_path, "p")
    with pytest.raises(FileNotFoundError, match="could run anything") as error:
        read_refcoco(refs, images, "val", 16)
    asked = shlex.split(str(error.value).partition("JSON: ")[2])
    subprocess.run([sys.executable, *asked[1:]], check=True)  # as a user would run it
    assert len(read_refcoco(refs, images, "val", 16).referring.phrases) == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda refs, _: (refs / "refs(unc).json").rename(refs / "refs(umd).json"),
         r"no refs\(unc\)\.json in .*; it has refs\(umd\)\.json"),
        (lambda refs, _: (refs / "instances.json").unlink(), "no instances.json"),
        (lambda refs, _: (refs / "refs(unc).json").write_text("{}"), "a list of refs; got dict"),
        (lambda refs, _: (refs / "refs(unc).json").write_text('[{"image_id": 9}]'),
         "entry 0: expected image_id, ann_id, split and sentences"),
        (lambda refs, _: (refs / "instances.json").write_text('{"images": [], "annotations": []}'),
         "thing 1 of image 9 is not in instances.json"),
        (lambda refs, _: (refs / "instances.json").write_text("[]"), "expected COCO's images"),
        (lambda _, images: next(images.rglob("*25.jpg")).unlink(), "1 of 2 images"),
    ],
)  # fmt: skip
def test_what_is_missing_or_of_another_layout_is_named(
    damage: Any, message: str, tmp_path: Path
) -> None:
    refs, images = made(tmp_path)
    damage(refs, images)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_refcoco(refs, images, "val", 16)


def test_an_unknown_split_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no split 'testA'; it has: train, val"):
        read_refcoco(*made(tmp_path), "testA", 16)


@pytest.mark.parametrize("family", ["clip", "blip", "albef"])
def test_any_model_is_judged_on_it_from_the_command_line(
    family: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refs, images = made(tmp_path)
    shape = SmallModel(16, patch_size=8, image_width=32, image_layers=1, text_width=16,
                       text_layers=1, context_length=16, head_width=16, embed_dim=16,
                       family=family)  # fmt: skip
    (tmp_path / "model").mkdir()
    save_small(build_small(shape, 1), shape, tmp_path / "model")
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"red": ["blue"], "star": ["dog"]}), encoding="utf-8")
    asked = ["ground", "--model", str(tmp_path / "model"), "--refs", str(refs), "--images",
             str(images), "--eps", "8", "--steps", "1", "--out",
             str(tmp_path / "table.csv")]  # fmt: skip
    assert main([*asked, "--synonyms", str(words)]) == 0
    assert "2 images, 4 phrases" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["attack"].unique()) == [
        "clean", "embeddings", "image", "phrase", "both", "worst"
    ]  # fmt: skip
    cell = table.set_index(["measure", "attack"])["value"].sort_index()
    for measure in ("pointing", "choice", "overlap"):
        assert 0 <= cell[measure, "worst"] <= cell[measure].min() + 1e-6
    assert main(asked) == 0
    assert list(pd.read_csv(tmp_path / "table.csv")["attack"].unique()) == [
        "clean", "embeddings", "image", "worst"
    ]  # fmt: skip
