from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from matlib.commands.user_data import identity, read_user_data, sized
from matlib.data.karpathy_json import write_karpathy
from matlib.data.scenes import World
from tests.commands.toy_data import COUNTS, Toy, make_toy


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def test_a_mapping_is_read_in_the_order_of_its_names(toy: Toy) -> None:
    pairs = sized(read_user_data(toy.images, toy.captions), 16)
    content = json.loads(toy.captions.read_text())
    toy.captions.write_text(json.dumps(dict(reversed(content.items()))))
    again = read_user_data(toy.images, toy.captions)
    assert pairs.image_ids == again.image_ids == tuple(f"i{i}.png" for i in range(5))
    assert pairs.captions == again.captions and pairs.captions[0] == content["i0.png"][0]
    assert pairs.image_of.bincount().tolist() == list(COUNTS)
    assert pairs.pixels([0, 3]).shape == (2, 3, 16, 16)
    assert identity(pairs) == identity(again)


def test_the_identity_follows_pixels_and_captions(toy: Toy) -> None:
    before = identity(read_user_data(toy.images, toy.captions))
    (toy.images / "i0.png").write_bytes((toy.images / "i1.png").read_bytes())
    after = identity(read_user_data(toy.images, toy.captions))
    toy.captions.write_text(toy.captions.read_text().replace("near", "far"))
    assert len({before, after, identity(read_user_data(toy.images, toy.captions))}) == 3


def test_a_karpathy_file_is_read_with_the_images_that_its_captions_are_true_of(
    tmp_path: Path,
) -> None:
    pairs = World(0, image_size=16, n_train=1, n_val=1, n_test=6, captions_per_image=2).test.pairs
    path = write_karpathy(tmp_path / "world", "scenes", {"test": pairs, "val": pairs})
    read = sized(read_user_data(tmp_path / "world" / "images", path, "test"), 16)
    assert read.captions == pairs.captions
    assert read.relevance().equal(pairs.relevance())
    assert read.pixels().equal(pairs.pixels())
    assert len(read_user_data(tmp_path / "world" / "images", path, "all")) == 12
    with pytest.raises(ValueError, match="no train images; --split is one of: test, val, all"):
        read_user_data(tmp_path / "world" / "images", path, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no captions"),
        ([], "expected a mapping"),
        ({"i0.png": []}, "1 images without captions, e.g. i0.png"),
        ({"i0.png": "a dog"}, "expected a list of captions"),
        ({"i0.png": [3]}, "expected a list of captions"),
        ({"../secret.png": ["a dog"]}, "below the folder"),
    ],
)
def test_captions_that_cannot_be_used_are_refused(toy: Toy, content: Any, message: str) -> None:
    toy.captions.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_user_data(toy.images, toy.captions)


def test_missing_files_are_named(toy: Toy, tmp_path: Path) -> None:
    (toy.images / "i2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 images .* e\.g\. i2\.png"):
        read_user_data(toy.images, toy.captions)
    with pytest.raises(FileNotFoundError, match="no folder of images"):
        read_user_data(tmp_path / "gone", toy.captions)
    with pytest.raises(FileNotFoundError, match="no captions file"):
        read_user_data(toy.images, tmp_path / "gone.json")
    toy.captions.write_text("{cut off")
    with pytest.raises(ValueError, match="not readable as JSON"):
        read_user_data(toy.images, toy.captions)


def test_images_without_an_entry_are_left_out_and_said_to_be(toy: Toy) -> None:
    content = json.loads(toy.captions.read_text())
    del content["i4.png"]
    toy.captions.write_text(json.dumps(content))
    pairs = read_user_data(toy.images, toy.captions)
    assert len(pairs) == 4
    assert pairs.notes == ("1 images of the folder have no captions and are left out",)
