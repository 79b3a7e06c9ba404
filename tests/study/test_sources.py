"""A data set on disk as a study reads it, with and without room in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image
from torch import Tensor

from matlib.data.karpathy import write_karpathy
from matlib.data.pairs import BUDGET_VARIABLE, ImageTensor, ImageTextPairs
from matlib.data.wordnet import open_wordnet
from matlib.study.made.pairs import about_pairs
from matlib.study.profile.parts import Dataset
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Augmentation
from matlib.study.recipes import as_run
from matlib.study.sources import open_source
from matlib.study.sources.karpathy import KarpathySource
from tests.data.tiny_wordnet import write_wordnet
from tests.toys import generator

CONFIG = Dataset(name="flickr8k", image_size=16, n_train=4, n_val=2, n_test=2)


def pairs(split: str, n: int) -> ImageTextPairs:
    pixels = torch.randint(256, (n, 3, 16, 16), generator=generator(n)).byte()
    captions = tuple(f"{split} picture {i} seen by {who}" for i in range(n) for who in "abc")
    own = torch.arange(n).repeat_interleave(3)
    return ImageTextPairs(
        split, split, ImageTensor(pixels), captions, own, tuple(map(str, range(n)))
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "flickr8k"
    sizes = {"train": 4, "val": 2, "test": 2}
    write_karpathy(place, "flickr8k", {split: pairs(split, n) for split, n in sizes.items()})
    return place


def opened(folder: Path) -> KarpathySource:
    source = open_source(CONFIG, folder)
    assert isinstance(source, KarpathySource)
    return source


@pytest.mark.parametrize(
    "augmentation",
    ["none", "captions", "randaugment", "captions+renderings", "drop-swap", "mismatched"],
)
def test_variants_are_the_same_whether_images_fit_into_memory_or_not(
    folder: Path, augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUDGET_VARIABLE, "1")
    held = opened(folder).variants(as_run(augmentation), 3, seed=5)
    monkeypatch.setenv(BUDGET_VARIABLE, "0")
    lazy = opened(folder).variants(as_run(augmentation), 3, seed=5)
    assert isinstance(held.images, Tensor) and not isinstance(lazy.images, Tensor)
    assert torch.equal(held.images, lazy.all_images())
    assert (held.captions, held.technique) == (lazy.captions, lazy.technique)
    assert held.origin == lazy.origin  # a run may go on where less memory is free
    n_images = 3 if augmentation in ("randaugment", "captions+renderings") else 1
    assert held.images.shape == (4, n_images, 3, 16, 16)


def test_another_seed_augments_otherwise_and_the_originals_stay(folder: Path) -> None:
    one, other = (opened(folder).variants(as_run("randaugment"), 4, seed) for seed in (0, 1))
    a, b = one.all_images(), other.all_images()
    assert torch.equal(a[:, 0], b[:, 0]) and not torch.equal(a[:, 1:], b[:, 1:])
    assert one.origin != other.origin


def test_captions_of_people_stand_behind_the_drawn_one(folder: Path) -> None:
    source = opened(folder)
    found = source.variants(as_run("captions"), 2, seed=0)
    drawn = source.pairs("train").captions
    for i, (own, first) in enumerate(zip(found.captions, drawn, strict=True)):
        assert own[0] == first and len(own) == 2 and own[1] != first
        assert own[1].startswith(f"train picture {i} ")


def black(folder: Path) -> None:
    for path in (folder / "images").glob("*.png"):
        Image.new("RGB", (16, 16)).save(path)


def one_black(folder: Path) -> None:
    """One photograph of the validation split."""
    (path,) = list((folder / "images").glob("val*"))[:1]
    Image.new("RGB", (16, 16)).save(path)


def other_captions(folder: Path) -> None:
    path = folder / "dataset_flickr8k.json"
    path.write_text(path.read_text().replace("picture", "drawing"))


def swapped(folder: Path) -> None:
    """Two photographs change places: the same files, other pairs."""
    one, other = sorted((folder / "images").glob("test*"))[:2]
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


@pytest.mark.parametrize("change", [black, one_black, other_captions, swapped])
def test_other_data_are_another_identity(
    folder: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    copy, kept = tmp_path / "copy", tmp_path / "kept"
    shutil.copytree(folder, copy)
    (copy / "dataset_coco.json").write_text("{}")  # is not what is read
    (copy / "aaa").mkdir()
    (copy / "aaa" / "dataset_flickr8k.json").write_text("{}")
    before = KarpathySource(CONFIG, copy, kept).identity()
    assert before == opened(folder).identity(), "a copy elsewhere is the same data"
    change(copy)
    assert KarpathySource(CONFIG, copy, kept).identity() != before
    assert str(tmp_path) not in json.dumps(before)


def test_images_that_a_study_will_miss_are_said_before_it(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    for path in (tmp_path / "copy" / "images").glob("train*"):
        path.unlink()
    source = KarpathySource(CONFIG, tmp_path / "copy")
    assert source.identity()["images"]["train"] == "missing"
    with pytest.raises(FileNotFoundError, match="4 of 4 image files are missing"):
        source.require_files()
    opened(folder).require_files()


def test_eda_on_photographs_depends_on_the_wordnet_that_is_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_wordnet(tmp_path / "wordnet")
    monkeypatch.setenv("WNSEARCHDIR", str(place))

    def about() -> object:
        open_wordnet.cache_clear()
        on_disk = SimpleNamespace(profile=load_profile("flickr30k"))
        return about_pairs(cast(Any, on_disk), as_run("eda"))

    before = about()
    assert about() == before
    assert opened(folder).synonyms("sea") == ("ocean",)
    (place / "noun.exc").write_text("mice mouse\n")
    assert about() != before
    open_wordnet.cache_clear()
    drawn = SimpleNamespace(profile=load_profile("smoke"))
    assert "wordnet" not in about_pairs(cast(Any, drawn), as_run("eda"))
