"""Models by a short name: what the public zoo says, and a zoo of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import yaml

from matlib.cli import main
from matlib.commands.record import read_record
from matlib.files import file_hash
from matlib.models.small import save_small
from matlib.models.zoo import found_in_zoo, read_zoo
from tests.commands.toy_data import Toy, make_toy
from tests.models import pretend_hub
from tests.models.named import same
from tests.toys import TINY, random_pixels, tiny_encoder

ABOUT = {"layout": "a folder of this project", "sha256": None, "trained_for": "images, 4/255",
         "licence": "MIT", "citation": "nobody 2026", "source": "https://example.org"}  # fmt: skip


def own_zoo(folder: Path, **entry: Any) -> Path:
    path = folder / "zoo.yaml"
    path.write_text(
        yaml.safe_dump({"models": {"mine": {**ABOUT, "model": "local-dir:m", **entry}}})
    )
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    (tmp_path / "m").mkdir()
    save_small(tiny_encoder(5), TINY, tmp_path / "m")
    return make_toy(tmp_path / "toy")


def test_the_public_zoo_names_what_open_can_take() -> None:
    zoo = read_zoo()
    assert {"fare2-l14", "fare4-b16", "tecoa4-l14", "leaf-l14", "delta-l14", "simclip4-l14",
            "qt-aft-b16", "advflyp-b32", "openai-l14"} <= zoo.keys()  # fmt: skip
    for name, entry in zoo.items():
        if not entry.model.startswith("hf-hub:"):
            assert entry.model in open_clip.list_models(), name
            if entry.weights and not entry.weights.startswith("hf-hub:"):
                assert entry.weights in open_clip.list_pretrained_tags_by_model(entry.model), name
        assert entry.source.startswith("https://") and entry.citation


def test_a_model_of_ones_own_zoo_is_judged_by_its_name(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = file_hash(tmp_path / "m" / "model.safetensors")
    zoo, out = own_zoo(tmp_path, sha256=weights), tmp_path / "board"
    out.mkdir()
    given = ["evaluate", "--zoo", "mine", "--zoo-file", str(zoo), "--images", str(toy.images),
             "--captions", str(toy.captions), "--synonyms", str(toy.synonyms), "--steps", "1",
             "--out", str(out)]  # fmt: skip
    assert main(given) == 0
    record = read_record(out / "mine.captions.json")
    assert record is not None and record.model.about["trained for"] == "images, 4/255"
    assert record.model.model == "local-dir:m" and len(record.model.weights) == 64
    assert str(tmp_path) not in (out / "mine.captions.json").read_text(encoding="utf-8")
    assert main(["board", str(out)]) == 0
    assert "mine: trained for: images, 4/255; licence: MIT" in capsys.readouterr().out
    assert "images, 4/255" in (out / "board.csv").read_text(encoding="utf-8")
    assert main([*given, "--pretrained", "x"]) == 2
    assert main([*given, "--model", "small"]) == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: own_zoo(p, sha256="0" * 64), "the zoo says 0000"),
        (
            lambda p: own_zoo(p, weights=None, model="ViT-B-32"),
            "pass --model ViT-B-32 --pretrained FILE --rest",
        ),
        (lambda p: own_zoo(p, colour="red"), r"mine\.colour: Extra inputs"),
    ],
)
def test_what_cannot_be_had_is_said(
    damage: Callable[[Path], Path], message: str, toy: Toy, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        found_in_zoo("mine", damage(tmp_path))
    with pytest.raises(ValueError, match=r"has no model 'other'; it has mine"):
        found_in_zoo("other", own_zoo(tmp_path))


def test_names_of_the_hub_become_places_here(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m" / "config.json").write_text(json.dumps({}))
    hub = pretend_hub.in_cache(tmp_path / "m", "me/small", tmp_path / "cache", monkeypatch)
    found = found_in_zoo("mine", own_zoo(tmp_path, model=hub))
    pixels = random_pixels(2)
    assert same(found.open().encode_image(pixels), tiny_encoder(5).encode_image(pixels))
    with pytest.raises(FileNotFoundError, match="its configuration of me/other is neither"):
        found_in_zoo("mine", own_zoo(tmp_path, model="hf-hub:me/other"))


def test_a_studys_model_is_exported_and_opens_by_one_line(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    place = ["--profile", "smoke", "--results", str(tmp_path / "results")]
    assert main(["export", "base", str(out), *place]) == 0
    assert f"models.open('{out}/smoke.base.s0')" in capsys.readouterr().out
    found = found_in_zoo("smoke.base.s0", out / "zoo.yaml")
    assert found.entry.trained_for == "no attack" and found.open().image_size == 32
    assert main(["export", "nosuch", str(out), *place]) == 1
