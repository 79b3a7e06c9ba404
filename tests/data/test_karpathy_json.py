"""Damaged caption files are refused by entry and key; what is exported reads back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from matlib.data.karpathy import KarpathyFormatError, read_karpathy, write_karpathy
from matlib.data.pairs import ImageFiles, ImageTensor, ImageTextPairs
from tests.data.test_karpathy import flickr_entry, save_json, write_image

GOOD = flickr_entry(0, "a.png", "train", ["a dog"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({k: v for k, v in GOOD.items() if k != "filename"}, "entry 1: missing key 'filename'"),
        ({k: v for k, v in GOOD.items() if k != "split"}, r"entry 1 \(a\.png\): .*'split'"),
        ({k: v for k, v in GOOD.items() if k != "sentences"}, r"entry 1 \(a\.png\): .*'sentences'"),
        ({**GOOD, "sentences": []}, "'sentences' is empty"),
        ({**GOOD, "sentences": [{"tokens": []}]}, r"sentence 0: missing key 'raw'.*tokens"),
        ({**GOOD, "sentences": [{"raw": None}]}, "'raw' must be str, got NoneType"),
        ({**GOOD, "sentences": ["a dog"]}, "sentence 0: expected an object"),
        ({**GOOD, "imgid": "7"}, "'imgid' must be int, got str"),
        ({**GOOD, "filename": "../../etc/passwd"}, "below the data set's folder"),
        ({**GOOD, "filepath": "/etc"}, "below the data set's folder"),
        ({**GOOD, "filepath": "train2014/../.."}, "below the data set's folder"),
        ({**GOOD, "filename": ""}, "below the data set's folder"),
        ({**GOOD, "filename": "b\x00.png"}, "below the data set's folder"),
        ({**GOOD, "filename": "first.png"}, "entries 0 and 1 are both"),
        ({**GOOD, "sentences": [{"raw": "", "also_true_of": [[]]}]}, "must list image numbers"),
        ([1], "expected an object, got list"),
    ],
)
def test_bad_entry_is_named_with_its_key(tmp_path: Path, entry: Any, message: str) -> None:
    save_json(tmp_path, "x", [{**GOOD, "filename": "first.png"}, entry])
    with pytest.raises(KarpathyFormatError, match=message):
        read_karpathy(tmp_path, "x", "train", 8)


@pytest.mark.parametrize(
    "content", ["", '{"images": [', "[]", "{}", '{"images": []}', '{"images": 3}', "[" * 100_000]
)
def test_file_that_is_no_caption_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset_x.json").write_text(content)
    with pytest.raises(KarpathyFormatError, match=r"dataset_x\.json"):
        read_karpathy(tmp_path, "x", "train", 8)


def test_changed_json_is_read_again(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", 0)
    save_json(tmp_path, "x", [flickr_entry(0, "a.png", "train", ["before"])])
    assert read_karpathy(tmp_path, "x", "train", 8).captions == ("before",)
    save_json(tmp_path, "x", [flickr_entry(0, "a.png", "train", ["and after"])])
    assert read_karpathy(tmp_path, "x", "train", 8).captions == ("and after",)


def world(split: str, seed: int) -> ImageTextPairs:
    """Four images with 2, 1, 3 and 1 captions; caption 1 is true of image 3 as well."""
    image_of = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    relevant = torch.zeros(4, 7, dtype=torch.bool)
    relevant[image_of, torch.arange(7)] = True
    relevant[3, 1] = True
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (4, 3, 12, 12), generator=generator, dtype=torch.uint8)
    return ImageTextPairs(
        name="scenes",
        split=split,
        images=ImageTensor(data),
        captions=tuple(f"{split} caption {m} – «ü»" for m in range(7)),
        image_of=image_of,
        image_ids=tuple(f"scene/{i:04d}" for i in range(4)),
        relevant=relevant,
    )


def assert_same(ours: ImageTextPairs, back: ImageTextPairs) -> None:
    assert (ours.captions, ours.image_ids) == (back.captions, back.image_ids)
    assert torch.equal(ours.image_of, back.image_of)
    assert torch.equal(ours.images.load(range(len(ours))), back.images.load(range(len(back))))
    assert torch.equal(ours.relevance(), back.relevance())


def test_round_trip_keeps_pixels_captions_identifiers_and_relevance(tmp_path: Path) -> None:
    splits = {"train": world("train", 1), "val": world("val", 2), "test": world("test", 3)}
    path = write_karpathy(tmp_path / "out/scenes", "scenes", splits)
    assert path == tmp_path / "out/scenes/dataset_scenes.json"
    for split, pairs in splits.items():
        assert_same(pairs, read_karpathy(tmp_path / "out/scenes", "scenes", split, 12))


def test_round_trip_without_relevance_reads_back_without(tmp_path: Path) -> None:
    plain = replace(world("train", 1), relevant=None)
    write_karpathy(tmp_path / "x", "scenes", {"train": plain})
    back = read_karpathy(tmp_path / "x", "scenes", "train", 12)
    assert back.relevant is None
    assert_same(plain, back)


def test_round_trip_groups_captions_that_were_interleaved(tmp_path: Path) -> None:
    pairs = world("train", 1)
    shuffled = replace(
        pairs,
        image_of=torch.tensor([3, 0, 2, 1, 0, 2, 3]),
        relevant=None,
    )
    write_karpathy(tmp_path / "x", "scenes", {"train": shuffled})
    back = read_karpathy(tmp_path / "x", "scenes", "train", 12)
    for i in range(4):
        own = [c for c, n in zip(shuffled.captions, shuffled.image_of, strict=True) if n == i]
        assert own == [c for c, n in zip(back.captions, back.image_of, strict=True) if n == i]


def test_limit_drops_relevance_to_images_that_are_left_out(tmp_path: Path) -> None:
    write_karpathy(tmp_path / "x", "scenes", {"train": world("train", 1)})
    first = read_karpathy(tmp_path / "x", "scenes", "train", 12, limit=2)
    assert first.relevance().tolist() == [[True, True, False], [False, False, True]]


def test_export_has_only_what_other_readers_of_the_format_expect(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path / "x", "scenes", {"train": world("train", 1)})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == {"dataset", "images"} and content["dataset"] == "scenes"
    for i, entry in enumerate(content["images"]):
        assert {"filename", "imgid", "split", "sentences"} <= set(entry) and entry["imgid"] == i
        with Image.open(tmp_path / "x/images" / entry["filename"]) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (12, 12), "RGB")


def test_export_never_overwrites_and_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_karpathy(tmp_path / "full", "scenes", {"train": world("train", 1)})
    broken = world("train", 1)
    object.__setattr__(broken, "images", ImageFiles((tmp_path / "none.png",) * 4, Path.open))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        write_karpathy(tmp_path / "new", "scenes", {"train": broken})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]
    assert (tmp_path / "full/precious.txt").read_text() == "mine"
