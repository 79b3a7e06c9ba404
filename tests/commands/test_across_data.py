"""A model that was defended on one data set, judged on another, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from matlib import models
from matlib.cli import main
from matlib.evaluation.threat import ROWS
from matlib.training.checkpoint import save_weights
from tests.commands.toy_data import make_toy
from tests.models.packaged_weights import (
    NAME,
    installed,
    reference_state,
    write_image_package,
    write_text_package,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of packaged towers with their heads, as a study of photographs keeps them."""
    root = tmp_path_factory.mktemp("packages")
    write_text_package(root)
    write_image_package(root, reference_state())
    with installed(root):
        path = root / "model.safetensors"
        save_weights(models.open(NAME, "packaged"), path)
        yield path


def judged(out: Path, *typed: str) -> dict[str, object]:
    assert main(["evaluate", "--steps", "1", "--out", str(out), *typed]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [row["attack"] for row in found["rows"]] == [*ROWS, "worst"]
    data: dict[str, object] = found["data"]
    return data


def test_a_model_of_photographs_is_judged_on_the_embedded_world(
    weights: Path, tmp_path: Path
) -> None:
    assert main(["data", "export", str(tmp_path / "world"), "--n-test", "3"]) == 0
    (captions,) = (tmp_path / "world").glob("dataset_*.json")
    words = tmp_path / "words.json"
    said = {word.lower().strip(".,") for entry in json.loads(captions.read_text())["images"]
            for sentence in entry["sentences"] for word in sentence["raw"].split()}  # fmt: skip
    words.write_text(json.dumps({word: ["thing"] for word in said}))
    data = judged(
        tmp_path / "out.json", "--model", NAME, "--pretrained", str(weights),
        "--images", str(captions.parent / "images"), "--captions", str(captions),
        "--synonyms", str(words), "--eps", "1",
    )  # fmt: skip
    assert (data["name"], data["n_images"]) == (captions.stem, 3)


def test_a_model_of_the_world_is_judged_on_a_folder_with_the_shape_of_its_profile(
    tmp_path: Path,
) -> None:
    """A study keeps no model.json beside weights: the profile has the shape."""
    from matlib.models.small import build_small
    from matlib.study.profile.profile import load_profile

    toy, profile = make_toy(tmp_path), load_profile("smoke")
    own = tmp_path / "study" / "model.safetensors"
    own.parent.mkdir()
    save_weights(build_small(profile.model.shape(profile.dataset.image_size), 0), own)
    data = judged(
        tmp_path / "out.json", "--model", "small", "--pretrained", str(own),
        "--profile", "smoke", "--images", str(toy.images), "--captions", str(toy.captions),
        "--synonyms", str(toy.synonyms),
    )  # fmt: skip
    assert data["n_images"] == 5
