"""Further right answers of COCO's captions, and how many right answers come first."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from matlib.cli import main
from matlib.data.eccv import Positives, eccv_positives, with_positives
from matlib.data.karpathy import KarpathyFormatError, read_entries, relevance_of
from matlib.evaluation.r_precision import precision_at_r
from matlib.study.profile.parts import Dataset
from matlib.study.sources.karpathy import KarpathySource
from tests.commands.toy_data import make_toy

needs_package = pytest.mark.skipif(
    not importlib.util.find_spec("eccv_caption"), reason="eccv-caption is not installed"
)
POSITIVES = Positives({100: frozenset({11, 12}), 120: frozenset({12, 99})}, {11: frozenset({120})})


def write_coco(folder: Path, *, numbered: bool = True) -> Path:
    """Three images, numbered 10, 11 and 12 by COCO, with two captions each: 100, 101, 110, ..."""
    (folder / "images").mkdir(parents=True)
    images = []
    for i in range(3):
        Image.new("RGB", (16, 16), (80 * i, 40, 120)).save(folder / "images" / f"{i}.png")
        sentences: list[dict[str, Any]] = [
            {"raw": f"picture {i} seen by {who}", "imgid": i} for who in ("me", "you")
        ]
        entry = {"filename": f"{i}.png", "split": "test", "imgid": i, "sentences": sentences}
        if numbered:
            entry["cocoid"] = 10 + i
            for j, sentence in enumerate(sentences):
                sentence["sentid"] = 100 + 10 * i + j
        images.append(entry)
    path = folder / "dataset_coco.json"
    path.write_text(json.dumps({"images": images}))
    return path


@pytest.fixture
def annotated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for place in ("matlib.study.sources.karpathy", "matlib.commands.user_data"):
        monkeypatch.setattr(f"{place}.eccv_positives", lambda: POSITIVES)
    yield


def test_captions_are_true_of_what_either_side_says(tmp_path: Path) -> None:
    entries = with_positives(read_entries(write_coco(tmp_path)), POSITIVES)
    relevant = relevance_of(entries)
    assert relevant is not None
    assert relevant.int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 1, 1, 0],  # image 11: caption 100, its own two, and 120 by its own list
        [1, 0, 0, 0, 1, 1],
    ]


def test_a_study_and_a_folder_take_them_where_they_are_asked_for(
    tmp_path: Path, annotated: None, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path / "coco")
    sizes: dict[str, Any] = {"image_size": 16, "n_train": 3, "n_val": 3, "n_test": 3}
    config = Dataset(name="coco", relevance="eccv", **sizes)
    assert KarpathySource(config, tmp_path / "coco").pairs("test").relevance().sum() == 9
    plain = Dataset(name="coco", **sizes)
    assert KarpathySource(plain, tmp_path / "coco").pairs("test").relevance().sum() == 6
    assert "relevance" not in plain.model_dump() and config.model_dump()["relevance"] == "eccv"
    with pytest.raises(ValueError, match="about coco's test gallery, not flickr8k"):
        Dataset(name="flickr8k", relevance="eccv", **sizes)
    toy = make_toy(tmp_path / "toy")
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"picture": ["photograph"]}))
    typed = ["evaluate", "--model", "small", "--pretrained", str(toy.weights), "--steps", "1",
             "--images", str(tmp_path / "coco" / "images"), "--synonyms", str(words),
             "--captions", str(tmp_path / "coco" / "dataset_coco.json")]  # fmt: skip
    assert main([*typed, "--relevance", "eccv"]) == 0
    said = capsys.readouterr().out
    assert "over 2 images that look for captions" in said
    assert "over 2 captions that look for images" in said
    assert main(typed) == 0 and "R-precision" not in capsys.readouterr().out


def test_files_without_coco_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KarpathyFormatError, match="whose images have a 'cocoid'"):
        with_positives(read_entries(write_coco(tmp_path, numbered=False)), POSITIVES)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    eccv_positives.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"pip install -e '\.\[eccv\]'"):
        eccv_positives()


def test_precision_by_hand() -> None:
    query, gallery = (
        torch.eye(4)[:2],
        torch.tensor([[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0], [0.7, 0.3, 0, 0], [0.6, 0.4, 0, 0]]),
    )
    right = torch.tensor([[True, False, True, False], [False, False, True, True]])
    found = precision_at_r(query, gallery, right)  # orders 0 1 2 3 and 3 2 1 0
    assert found.r_precision.tolist() == [0.5, 1.0] and found.map_at_r.tolist() == [0.5, 1.0]
    same = torch.ones(3, 1)
    assert precision_at_r(same[:1], same, torch.tensor([[True, False, False]]))[0].tolist() == [0]
    with pytest.raises(ValueError, match="a right answer in every row"):
        precision_at_r(query, gallery, torch.zeros(2, 4, dtype=torch.bool))


@needs_package
@pytest.mark.filterwarnings("ignore:failed to import `ujson`")
@pytest.mark.parametrize("direction", ["images_of", "captions_of"])
def test_numbers_on_the_bundled_annotations_are_the_packages_own(direction: str) -> None:
    from eccv_caption._metrics import compute_eccv_metrics  # type: ignore[import-not-found]

    eccv_positives.cache_clear()
    answers: dict[int, frozenset[int]] = getattr(eccv_positives(), direction)
    assert len(answers) == {"images_of": 1332, "captions_of": 1261}[direction]
    asked = sorted(answers)[:150]
    gallery = sorted(set().union(*(answers[each] for each in asked)))
    generator = torch.Generator().manual_seed(0)
    right = torch.tensor([[g in answers[q] for g in gallery] for q in asked])
    units = torch.nn.functional.normalize
    others = units(torch.randn(len(gallery), 32, generator=generator))
    queries = units(torch.randn(len(asked), 32, generator=generator) + 2 * right.float() @ others)
    order = (queries @ others.T).argsort(dim=1, descending=True)
    ranked = {q: [gallery[i] for i in row] for q, row in zip(asked, order.tolist(), strict=True)}
    theirs = compute_eccv_metrics(ranked, {q: sorted(answers[q]) for q in asked})
    ours = precision_at_r(queries, others, right, chunk=64)
    assert 0.01 < theirs["eccv_map_at_r"] < theirs["eccv_rprecision"] < 1
    assert float(ours.map_at_r.mean()) == pytest.approx(theirs["eccv_map_at_r"])
    assert float(ours.r_precision.mean()) == pytest.approx(theirs["eccv_rprecision"])
