from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from matlib.commands.user_data import check_readable, file_hashes, identity, read_user_data, sized
from matlib.data.karpathy import write_karpathy
from matlib.scenes.world import World
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
    assert identity(pairs, file_hashes(pairs)) == identity(again, file_hashes(again))


def _identity(toy: Toy, *rows: int) -> str:
    pairs = read_user_data(toy.images, toy.captions)
    return identity(pairs, file_hashes(pairs), torch.tensor(rows) if rows else None)


def test_the_identity_follows_pixels_and_captions_of_the_rows_that_count(toy: Toy) -> None:
    before, others = _identity(toy), _identity(toy, 1, 2)
    (toy.images / "i0.png").write_bytes((toy.images / "i1.png").read_bytes())
    after = _identity(toy)
    toy.captions.write_text(toy.captions.read_text().replace("near", "far", 1))  # of i0.png
    assert len({before, after, _identity(toy)}) == 3
    assert _identity(toy, 1, 2) == others


def test_the_identity_follows_which_images_a_caption_is_true_of(toy: Toy) -> None:
    pairs = read_user_data(toy.images, toy.captions)
    files, more = file_hashes(pairs), pairs.relevance().clone()
    plain = identity(replace(pairs, relevant=more.clone()), files)
    more[0, 3] = True
    assert plain != identity(replace(pairs, relevant=more), files)


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
        ({"i0.png": None}, "expected a list of captions"),
        ({"../secret.png": ["a dog"]}, "below the folder"),
        ({"a/../../secret.png": ["a dog"]}, "below the folder"),
        ({"a\\..\\..\\secret.png": ["a dog"]}, "below the folder"),
        ({"/etc/secret.png": ["a dog"]}, "below the folder"),
        ({"C:\\secret.png": ["a dog"]}, "below the folder"),
        ({"i0.png\0": ["a dog"]}, "below the folder"),
        ({"": ["a dog"]}, "below the folder"),
        ({"i0.png": ["a"], "./i0.png": ["b"]}, r"'i0\.png' and '\./i0\.png' name the same image"),
        ({"i0.png": ["a"], "a/../i0.png": ["b"]}, "name the same image"),
        ({"i0.png": ["a"], ".\\i0.png": ["b"]}, "name the same image"),
        ({"i0.png": ["a"], ".//i0.png": ["b"]}, "name the same image"),
        ({"\u00e9.png": ["a"], "e\u0301.png": ["b"]}, "name the same image"),
        ({"i0.png": ["fine", "a dog \ud83d"]}, r"image 'i0\.png'.*half a surrogate pair"),
        ({"i\ud83d.png": ["a dog"]}, "half a surrogate pair"),
        ({"i0.png": ["a dog", " "], "i1.png": [""]}, "without a word, of 'i0.png' and 1 further"),
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


def test_two_entries_of_one_image_are_refused(toy: Toy) -> None:
    toy.captions.write_text('{"i0.png": ["a"], "i1.png": ["b"], "i0.png": ["c"]}')
    with pytest.raises(ValueError, match=r"the key 'i0\.png' is there twice"):
        read_user_data(toy.images, toy.captions)


def test_names_are_found_whatever_their_spelling(toy: Toy) -> None:
    composed, apart = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    (toy.images / "deep").mkdir()
    (toy.images / "i0.png").rename(toy.images / "deep" / apart)
    captions = {f"deep\\{composed}": ["a"], "./i1.png": ["b"], "deep/../i2.png": ["c"]}
    toy.captions.write_text(json.dumps(captions))
    pairs = read_user_data(toy.images, toy.captions)
    assert pairs.image_ids == (f"deep/{composed}", "i1.png", "i2.png")
    assert pairs.captions == ("a", "b", "c") and len(file_hashes(pairs)) == 3
    assert pairs.notes == ("2 images of the folder have no captions and are left out",)


def test_one_file_under_two_capitals_is_refused(toy: Toy) -> None:
    (toy.images / "I0.png").hardlink_to(toy.images / "i0.png")  # as where capitals do not count
    toy.captions.write_text(json.dumps({"I0.png": ["a"], "i0.png": ["b"]}))
    with pytest.raises(ValueError, match="name the same image"):
        read_user_data(toy.images, toy.captions)


def test_a_name_that_no_disk_takes_is_missing(toy: Toy) -> None:
    toy.captions.write_text(json.dumps({"x" * 300 + ".png": ["a"]}))
    with pytest.raises(FileNotFoundError, match="1 of 1 images"):
        read_user_data(toy.images, toy.captions)


def test_published_tables_are_read(toy: Toy) -> None:
    content = json.loads(toy.captions.read_text())
    wanted = read_user_data(toy.images, toy.captions)
    lines = [f"{name}| {i}| {text}" for name, own in content.items() for i, text in enumerate(own)]
    table = toy.captions.with_name("results.csv")
    table.write_text("\n".join(["image_name| comment_number| comment", *reversed(lines)]))
    found = read_user_data(toy.images, table)
    assert (found.captions, found.image_ids) == (wanted.captions, wanted.image_ids)
    table.write_text(f"image,caption\n./i0.png,a\ni0.png,b\n{lines[0].split('|')[0]},c\n")
    with pytest.raises(ValueError, match="name the same image"):
        read_user_data(toy.images, table)


def test_every_bad_image_is_counted(toy: Toy) -> None:
    pairs = sized(read_user_data(toy.images, toy.captions), 16)
    check_readable(pairs, range(5))
    for name in ("i1.png", "i4.png"):
        path = toy.images / name
        path.write_bytes(path.read_bytes()[:60])
    check_readable(pairs, [0, 2, 3])
    with pytest.raises(
        ValueError, match=r"2 of 5 images cannot be used(?s:.*)i1\.png(?s:.*)i4\.png"
    ):
        check_readable(pairs, range(5))
