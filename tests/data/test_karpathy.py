"""The reader on the exact on-disk layouts of the three data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from matlib.data import karpathy
from matlib.data.images import CorruptImageError, decode_image
from matlib.data.karpathy import KarpathyFormatError, read_karpathy
from matlib.data.pairs import ImageFiles, ImageTensor


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def flickr_entry(imgid: int, filename: str, split: str, captions: list[str]) -> dict[str, Any]:
    """Every key that the published JSON has, in its order."""
    sentids = list(range(5 * imgid, 5 * imgid + len(captions)))
    sentences = [
        {"tokens": raw.split(), "raw": raw, "imgid": imgid, "sentid": sentid}
        for raw, sentid in zip(captions, sentids, strict=True)
    ]
    return {
        "sentids": sentids,
        "imgid": imgid,
        "sentences": sentences,
        "split": split,
        "filename": filename,
    }


def save_json(folder: Path, name: str, entries: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"dataset_{name}.json"
    path.write_text(json.dumps({"images": entries, "dataset": name}), encoding="utf-8")
    return path


def five(i: int) -> list[str]:
    return [f"caption {j} of image {i} ." for j in range(5)]


def flickr_folder(
    root: Path, name: str = "flickr30k", images: str = "flickr30k-images", splits: str = "tttvve"
) -> Path:
    full = {"t": "train", "v": "val", "e": "test"}
    entries = []
    for i, letter in enumerate(splits):
        filename = f"{1000 + i}.jpg"
        entries.append(flickr_entry(i, filename, full[letter], five(i)))
        write_image(root / images / filename, i)
    save_json(root, name, entries)
    return root


def coco_folder(root: Path, images: str = "") -> Path:
    """Two train, one restval, one val and one test image; restval's has six captions."""
    entries = []
    rows = [
        ("train2014", 9, "train", 5),
        ("train2014", 25, "train", 5),
        ("val2014", 522418, "restval", 6),
        ("val2014", 184613, "val", 5),
        ("val2014", 391895, "test", 7),
    ]
    for imgid, (filepath, cocoid, split, n_captions) in enumerate(rows):
        filename = f"COCO_{filepath}_{cocoid:012d}.jpg"
        captions = [f"caption {j} of {cocoid}" for j in range(n_captions)]
        entry = flickr_entry(imgid, filename, split, captions)
        entries.append({"filepath": filepath, **entry, "cocoid": cocoid})
        write_image(root / images / filepath / filename, imgid)
    save_json(root, "coco", entries)
    return root


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("flickr30k", "flickr30k-images"),
        ("flickr30k", "flickr30k_images/flickr30k_images"),
        ("flickr8k", "Flicker8k_Dataset"),
        ("flickr8k", "images"),
        ("flickr8k", "."),
    ],
)
def test_flickr_layouts_are_read(tmp_path: Path, name: str, images: str) -> None:
    folder = flickr_folder(tmp_path, name, images)
    pairs = read_karpathy(folder, name, "test", 16)
    assert (pairs.name, pairs.split, len(pairs), pairs.n_captions) == (name, "test", 1, 5)
    assert pairs.image_ids == ("1005.jpg",) and pairs.captions == tuple(five(5))
    assert torch.equal(
        pairs.images.load([0])[0], decode_image(folder / images / "1005.jpg", 16, "crop")
    )
    assert pairs.relevant is None and pairs.notes == ()


@pytest.mark.parametrize("images", ["", "images", "coco"])
def test_coco_layout_keeps_all_six_or_seven_captions(tmp_path: Path, images: str) -> None:
    pairs = read_karpathy(coco_folder(tmp_path, images), "coco", "train", 16)
    assert pairs.image_of.tolist() == [0] * 5 + [1] * 5 + [2] * 6
    assert pairs.image_ids[2] == "val2014/COCO_val2014_000000522418.jpg"
    assert pairs.captions[-1] == "caption 5 of 522418"
    assert read_karpathy(tmp_path, "coco", "test", 16).n_captions == 7


def test_restval_counts_as_train_only_if_asked(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    with_restval = read_karpathy(folder, "coco", "train", 16)
    without = read_karpathy(folder, "coco", "train", 16, restval_is_train=False)
    assert (len(with_restval), len(without)) == (3, 2)
    assert with_restval.notes == ("train includes the 1 restval images",) and not without.notes
    assert len(read_karpathy(folder, "coco", "restval", 16)) == 1


def test_json_in_a_sub_folder_is_found(tmp_path: Path) -> None:
    flickr_folder(tmp_path)
    (tmp_path / "karpathy").mkdir()
    (tmp_path / "dataset_flickr30k.json").rename(tmp_path / "karpathy/dataset_flickr30k.json")
    assert len(read_karpathy(tmp_path, "flickr30k", "train", 8)) == 3


def test_val_is_halved_by_parity_of_rank_of_imgid_where_there_is_no_test(tmp_path: Path) -> None:
    imgids = [70, 10, 40, 20, 90]  # ranks 3 0 2 1 4
    entries = [flickr_entry(i, f"{i}.png", "val", five(i)) for i in imgids]
    for i in imgids:
        write_image(tmp_path / "images" / f"{i}.png", i)
    save_json(tmp_path, "flickr8k", entries)
    val = read_karpathy(tmp_path, "flickr8k", "val", 8)
    test = read_karpathy(tmp_path, "flickr8k", "test", 8)
    assert val.image_ids == ("10.png", "40.png", "90.png")
    assert test.image_ids == ("20.png", "70.png")
    for pairs in (val, test):
        assert "no test split" in pairs.notes[0] and "odd ranks are test" in pairs.notes[0]


def test_val_is_whole_where_there_is_a_test_split(tmp_path: Path) -> None:
    pairs = read_karpathy(flickr_folder(tmp_path), "flickr30k", "val", 8)
    assert len(pairs) == 2 and pairs.notes == ()


def test_halving_needs_an_imgid_of_every_val_image(tmp_path: Path) -> None:
    entries = [flickr_entry(3, f"{i}.png", "val", five(i)) for i in range(2)]
    save_json(tmp_path, "flickr8k", entries)
    with pytest.raises(KarpathyFormatError, match=r"halved by `imgid`.*of its own"):
        read_karpathy(tmp_path, "flickr8k", "test", 8)


def test_limit_keeps_the_first_images_and_says_so(tmp_path: Path) -> None:
    folder = flickr_folder(tmp_path)
    (folder / "flickr30k-images/1002.jpg").unlink()  # not needed, so not missed
    pairs = read_karpathy(folder, "flickr30k", "train", 8, limit=2)
    assert pairs.image_ids == ("1000.jpg", "1001.jpg") and pairs.n_captions == 10
    assert pairs.notes == ("partial: the first 2 of the 3 train images",)
    with pytest.raises(ValueError, match="at least 1 image, got 0"):
        read_karpathy(folder, "flickr30k", "train", 8, limit=0)


def test_missing_images_are_all_named_before_any_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = flickr_folder(tmp_path, splits="tttttt")
    for i in (1, 2, 4):
        (folder / f"flickr30k-images/{1000 + i}.jpg").unlink()
    (folder / "flickr30k-images/1005.jpg").write_bytes(b"")
    monkeypatch.setattr(karpathy, "decode_image", None)  # calling it would be a TypeError
    with pytest.raises(FileNotFoundError) as caught:
        read_karpathy(folder, "flickr30k", "train", 8)
    message = str(caught.value)
    assert "4 of 6 image files are missing or empty" in message
    assert "1001.jpg, 1002.jpg, 1004.jpg" in message and "flickr30k-images" in message
    assert "python -m matlib data fetch flickr30k" in message


def test_no_folder_and_no_json_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_karpathy(tmp_path / "none", "coco", "val", 8)
    flickr_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no dataset_coco\.json.*dataset_flickr30k\.json"):
        read_karpathy(tmp_path, "coco", "val", 8)


def test_corrupt_image_is_named(tmp_path: Path) -> None:
    folder = flickr_folder(tmp_path)
    path = folder / "flickr30k-images/1001.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CorruptImageError, match=r"1001\.jpg"):
        read_karpathy(folder, "flickr30k", "train", 8)


def test_odd_captions_are_accepted(tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(500))
    raws = [
        "",
        "dog",
        long,
        "一只狗在雪地里跑",
        "собака  бежит\n",
        "أمسك الكلب 🐕",
        "half \ud83d pair",
    ]
    save_json(tmp_path, "odd", [flickr_entry(0, "a.png", "train", raws)])
    write_image(tmp_path / "images/a.png", 0)
    captions = read_karpathy(tmp_path, "odd", "train", 8).captions
    assert captions[:4] == tuple(raws[:4]) and captions[5] == raws[5]
    assert captions[4] == "собака бежит"  # runs of white space are one space
    assert captions[6] == "half ? pair"  # encodable, whatever a tokenizer does
    assert all(word for caption in captions if caption for word in caption.split(" "))


def test_images_over_the_budget_stay_on_disk_and_are_the_same(tmp_path: Path) -> None:
    folder = flickr_folder(tmp_path)
    n_bytes = 3 * 3 * 16 * 16
    kept = read_karpathy(folder, "flickr30k", "train", 16, budget_bytes=n_bytes)
    left = read_karpathy(folder, "flickr30k", "train", 16, budget_bytes=n_bytes - 1)
    assert isinstance(kept.images, ImageTensor) and isinstance(left.images, ImageFiles)
    assert torch.equal(kept.pixels([2, 0]), left.pixels([2, 0]))


def test_threads_keep_the_order_and_progress_counts_to_the_end(tmp_path: Path) -> None:
    folder = flickr_folder(tmp_path, splits="t" * 12)
    calls: list[tuple[int, int]] = []
    many = read_karpathy(
        folder, "flickr30k", "train", 8, n_threads=8, progress=lambda *c: calls.append(c)
    )
    one = read_karpathy(folder, "flickr30k", "train", 8, n_threads=1)
    assert torch.equal(many.pixels(), one.pixels())
    assert calls == [(i, 12) for i in range(1, 13)]


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be one of train, val, test, restval; got 'dev'"):
        read_karpathy(tmp_path, "coco", "dev", 8)
    save_json(tmp_path, "x", [flickr_entry(0, "a.png", "train", ["a"])])
    with pytest.raises(KarpathyFormatError, match="no val images; its splits are train"):
        read_karpathy(tmp_path, "x", "val", 8)
