from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from matlib import models
from matlib.cli import main
from matlib.commands.models import open_any
from matlib.data.images import decode_image
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.settings import Settings
from matlib.models.small import save_small
from matlib.study.store.provenance import named_weights
from matlib.training.checkpoint import save_weights
from tests.commands.toy_data import Toy, make_toy
from tests.models import named
from tests.toys import TINY, random_pixels, tiny_encoder

NAME = "matlib-test-tiny"


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """A tiny model that open_clip knows by name, for the time of these tests."""
    with named.registered(name=NAME):
        yield


@pytest.fixture
def flat() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model: torch.nn.Module = open_clip.create_model(NAME, pretrained=None).eval()
    return model


def _embeds_alike(encoder: OpenClipEncoder, flat: Any, *, text: bool = True) -> bool:
    pixels, captions = random_pixels(3), ["a red star", "blue"]
    with torch.no_grad():
        images = flat.encode_image((pixels - encoder.mean) / encoder.std, normalize=True)
        texts = flat.encode_text(open_clip.get_tokenizer(NAME)(captions), normalize=True)
        same = torch.allclose(encoder.encode_image(pixels), images, atol=1e-5)
        return same and torch.allclose(encoder.encode_text(captions), texts, atol=1e-5) == text


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("wrapper", ["", "state_dict"])
def test_a_whole_checkpoint_is_loaded(
    flat: torch.nn.Module, tmp_path: Path, suffix: str, wrapper: str
) -> None:
    path, state = tmp_path / f"robust.{suffix}", flat.state_dict()
    if suffix == "pt":
        torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    else:
        save_file(dict(state), str(path))
    encoder = open_any(NAME, str(path), "cpu")
    assert not encoder.training and _embeds_alike(encoder, flat)


@pytest.mark.parametrize("prefix", ["", "visual.", "module."])
@pytest.mark.parametrize("wrapper", ["", "vision_encoder_state_dict"])
def test_an_image_tower_alone_is_completed_from_other_weights(
    flat: Any, tmp_path: Path, prefix: str, wrapper: str
) -> None:
    other = models.open(NAME, None)
    torch.save(flat.state_dict(), tmp_path / "whole.pt")
    tower = {prefix + key: value for key, value in flat.visual.state_dict().items()}
    torch.save({wrapper: tower} if wrapper else tower, tmp_path / "fare.pt")
    torch.save(other.clip.state_dict(), tmp_path / "other.pt")
    whole = str(tmp_path / "whole.pt")
    fare = str(tmp_path / "fare.pt")
    assert _embeds_alike(open_any(NAME, fare, "cpu", rest=whole), flat)
    mixed = open_any(NAME, fare, "cpu", rest=str(tmp_path / "other.pt"))
    assert _embeds_alike(mixed, flat, text=False)
    with pytest.raises(ValueError, match="holds an image tower only"):
        open_any(NAME, fare, "cpu")


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "was-run",)  # type: ignore[return-value]

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        open_any(NAME, str(tmp_path / "evil.pt"), "cpu")
    assert not (tmp_path / "was-run").exists()


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "tower.pt")
    torch.save(models.open(NAME, None).clip.state_dict(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="does not hold the image tower"):
        open_any(NAME, str(tmp_path / "tower.pt"), "cpu", rest=str(tmp_path / "whole.pt"))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="names to tensors"):
        open_any(NAME, str(tmp_path / "list.pt"), "cpu")
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        open_any(NAME, str(tmp_path / "gone.pt"), "cpu")
    with pytest.raises(ValueError, match="no model"):
        open_any("ViT-Z", "openai", "cpu")


def test_a_small_model_has_the_shape_beside_it_or_its_profiles(tmp_path: Path) -> None:
    save_small(tiny_encoder(3), TINY, tmp_path)
    weights = str(tmp_path / "model.safetensors")
    assert open_any("small", weights, "cpu").image_size == TINY.image_size
    alone = tmp_path / "alone" / "model.safetensors"
    alone.parent.mkdir()
    save_weights(tiny_encoder(3), alone)
    with pytest.raises(ValueError, match="--profile"):
        open_any("small", str(alone), "cpu")
    with pytest.raises(ValueError, match="tensors do not fit"):
        open_any("small", str(alone), "cpu", profile="smoke")


def test_weights_are_known_by_their_content_or_their_tag(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"1")
    (tmp_path / "b.pt").write_bytes(b"1")
    assert named_weights(str(tmp_path / "a.pt")) == named_weights(str(tmp_path / "b.pt"))
    assert named_weights("openai") == "openai"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


def attack(toy: Toy, weights: Path | str, out: Path, *more: str, model: str = NAME) -> int:
    return main(["attack", "--model", model, "--pretrained", str(weights), "--images",
                 str(toy.images), "--captions", str(toy.captions), "--attack", "pgd", "--steps",
                 "1", "--format", "float", "--batch", "5", "--out", str(out), *more])  # fmt: skip


def test_the_studys_weights_are_attacked_with_images_made_as_they_want(
    toy: Toy, tmp_path: Path
) -> None:
    settings = Settings(True, image_mode="squash", interpolation="bilinear")
    encoder = models.open(NAME, None, settings=settings)
    save_weights(encoder, tmp_path / "model.safetensors")
    assert attack(toy, tmp_path / "model.safetensors", tmp_path / "out") == 0
    files = [load_file(path) for path in (tmp_path / "out").rglob("*.safetensors")]
    found = next(file["image_clean"] for file in files if "image_clean" in file)
    names = sorted(path for path in toy.images.iterdir())
    for mode, is_same in (("squash", True), ("crop", False)):
        pixels = torch.stack([decode_image(p, 16, mode, "bilinear") for p in names]) / 255  # type: ignore[arg-type]
        with torch.no_grad():
            assert torch.allclose(encoder.encode_image(pixels), found, atol=1e-5) == is_same
    said = [path.read_text() for path in (tmp_path / "out").rglob("*.json")]
    assert any("trained_with" in text and "squash" in text for text in said)


def test_a_small_model_is_attacked_with_images_made_as_its_study_made_them(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    encoder.settings = Settings(image_mode="squash")
    (tmp_path / "model.json").write_text(json.dumps(vars(TINY)))
    save_weights(encoder, tmp_path / "model.safetensors")
    opened = open_any("small", str(tmp_path / "model.safetensors"), "cpu")
    assert opened.settings == Settings(image_mode="squash")
    save_file(encoder.state_dict(), str(tmp_path / "model.safetensors"))
    opened = open_any("small", str(tmp_path / "model.safetensors"), "cpu", profile="flickr8k")
    assert opened.settings == Settings(image_mode="squash")  # the profile's
    assert open_any("small", str(tmp_path / "model.safetensors"), "cpu").settings == Settings()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("logit_scale", torch.inf, "logit_scale holds infinite values"),
        ("logit_scale", torch.nan, "logit_scale holds infinite values or NaN"),
        ("logit_scale", 500.0, "logit_scale is 500, whose exponential is inf"),
        ("visual.proj", torch.nan, r"visual.proj holds infinite values or NaN"),
    ],
)
def test_numbers_that_are_not_finite_end_an_attack_before_it_starts(
    flat: Any, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    key: str, value: float, message: str,
) -> None:  # fmt: skip
    state = dict(flat.state_dict())
    torch.save({**state, key: torch.full_like(state[key], value)}, tmp_path / "w.pt")
    assert attack(toy, tmp_path / "w.pt", tmp_path / "out") == 1
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said and not (tmp_path / "out").exists()
    encoder = tiny_encoder()
    encoder.clip.logit_scale.data.fill_(value)
    save_small(encoder, TINY, tmp_path)
    assert attack(toy, tmp_path / "model.safetensors", tmp_path / "out", model="small") == 1
    assert "logit_scale" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_here_is_said_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    gone = str(tmp_path / "gone")
    assert main(["attack", "--model", NAME, "--pretrained", gone, "--images", gone, "--captions",
                 gone, "--attack", "pgd", "--out", gone, "--device", device]) == 1  # fmt: skip
    said = capsys.readouterr().err.strip()
    assert f"device '{device}' cannot be used on this machine" in said and "\n" not in said


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"1")
    before = named_weights(str(tmp_path))
    (tmp_path / "a.bin").write_bytes(b"2")
    assert named_weights(str(tmp_path)) != before
    (tmp_path / "weights").write_bytes(b"1")  # no suffix, no folder
    assert named_weights(str(tmp_path / "weights")) != str(tmp_path / "weights")
