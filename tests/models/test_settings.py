"""Activation, statistics and resizing are those of the weights, however these are opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg
from safetensors.torch import save_file

from matlib import models
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.opening import built, image_size_of, settings_of
from matlib.models.settings import CLIP_MEAN, CLIP_STD, Settings, settings_of_tag
from matlib.models.small import build_small
from matlib.study.profile.model_checks import check_images, check_models
from matlib.study.profile.profile import load_profile, profile_names
from matlib.training.checkpoint import save_weights
from tests.models.named import NAME, PLAIN, QUICK, SHAPE, activations, flat, registered, tagged
from tests.toys import TINY

PAIRS = open_clip.list_pretrained()
AS_QUICK = Settings(True, (0.0,) * 3, (1.0,) * 3, "squash", "bilinear")
AS_PLAIN = Settings(False, (0.5,) * 3, (0.25,) * 3, "crop", "bicubic")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two tags of one model with different settings, and their weights in files."""
    folder = tmp_path_factory.mktemp("named")
    with registered():
        for seed, tag in ((1, "quick"), (2, "plain")):
            torch.save(flat(seed).state_dict(), folder / f"{tag}.pt")
        tags = {"quick": {**QUICK, "file": str(folder / "quick.pt")},
                "plain": {**PLAIN, "file": str(folder / "plain.pt")}}  # fmt: skip
        with tagged(tags):
            yield folder


def has(encoder: OpenClipEncoder, settings: Settings) -> bool:
    """Whether towers, statistics and what open_clip itself reads are all of these settings."""
    wanted = {"QuickGELU"} if settings.quick_gelu else {"GELU"}
    towers = [activations(encoder.clip.visual), activations(encoder.clip.text)]
    cfg: Any = encoder.clip.visual.preprocess_cfg
    return (
        encoder.settings == settings
        and towers == [wanted, wanted]
        and torch.equal(encoder.mean.flatten(), torch.tensor(settings.mean))
        and torch.equal(encoder.std.flatten(), torch.tensor(settings.std))
        and (cfg["mean"], cfg["std"]) == (settings.mean, settings.std)
        and cfg["resize_mode"] == {"crop": "shortest", "squash": "squash"}[settings.image_mode]
        and cfg["interpolation"] == settings.interpolation
    )


def test_every_tag_of_open_clip_has_settings_of_its_own() -> None:
    differ = []
    for name, tag in PAIRS:
        found, said = settings_of_tag(name, tag), get_pretrained_cfg(name, tag)
        own = bool(open_clip.get_model_config(name).get("quick_gelu"))
        assert found.quick_gelu == (own or bool(said.get("quick_gelu"))), (name, tag)
        assert (found.mean, found.std) == (tuple(said["mean"]), tuple(said["std"]))
        assert found.interpolation == said["interpolation"]
        assert (found.image_mode == "squash") == (said["resize_mode"] == "squash")
        differ += [(name, tag)] * (found.quick_gelu != own)
    assert {("ViT-B-16", "openai"), ("ViT-B-32", "laion400m_e32"), ("RN50", "cc12m")} <= set(differ)


def test_towers_are_built_with_the_tags_activation_and_not_the_names() -> None:
    with torch.device("meta"):
        for name in ("ViT-B-16", "ViT-B-32", "RN50", "ViT-L-14-336"):
            quick = built(name, settings_of_tag(name, "openai"))
            assert activations(quick.text) == {"QuickGELU"}
            assert activations(quick.visual) <= {"QuickGELU"}  # a ResNet has neither
        plain = built("ViT-B-32", settings_of_tag("ViT-B-32", "laion2b_s34b_b79k"))
        assert activations(plain) == {"GELU"}


def test_a_tag_opens_with_its_settings(weights: Path) -> None:
    assert has(models.open(NAME, "quick"), AS_QUICK)
    assert has(models.open(NAME, "plain"), AS_PLAIN)
    assert has(models.open(NAME, None), Settings())


def test_a_file_has_the_settings_of_what_it_stems_from_or_is_refused(weights: Path) -> None:
    file = str(weights / "quick.pt")
    with pytest.raises(ValueError, match=r"its activation and .*quick: QuickGELU.*--rest"):
        models.open(NAME, file)
    assert has(models.open(NAME, file, rest="quick"), AS_QUICK)
    assert has(models.open(NAME, file, rest="plain"), AS_PLAIN)
    chosen = Settings(True, image_mode="squash")
    assert has(models.open(NAME, file, settings=chosen), chosen)


def test_an_image_towers_settings_are_those_of_the_rest(weights: Path, tmp_path: Path) -> None:
    torch.save(flat(3).visual.state_dict(), tmp_path / "fare.pt")
    for rest, settings in (("quick", AS_QUICK), ("plain", AS_PLAIN)):
        assert has(models.open(NAME, str(tmp_path / "fare.pt"), rest=rest), settings)


def test_a_file_has_the_settings_on_which_all_its_names_weights_agree(weights: Path) -> None:
    with tagged({"one": PLAIN, "two": PLAIN}):
        assert has(models.open(NAME, str(weights / "plain.pt")), AS_PLAIN)
    with tagged({}):
        assert has(models.open(NAME, str(weights / "plain.pt")), Settings())
    # all known weights have QuickGELU, whoever trained this name's configuration has not
    with tagged({"one": QUICK}), pytest.raises(ValueError, match="own training: GELU"):
        models.open(NAME, str(weights / "plain.pt"))


@pytest.mark.parametrize(
    ("name", "tag"), [("PE-Core-T-16-384", "meta"), ("MobileCLIP-S1", "datacompdr")]
)
def test_by_file_as_by_tag_where_the_name_has_one_way(name: str, tag: str, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"not read")
    assert settings_of(name, str(tmp_path / "w.pt")) == settings_of_tag(name, tag)
    assert settings_of(name, str(tmp_path / "w.pt")) != Settings()


def test_names_whose_weights_differ_ask_for_more_than_a_file(tmp_path: Path) -> None:
    file = str(tmp_path / "w.pt")
    Path(file).write_bytes(b"not read")
    for name in ("ViT-B-16", "ViT-B-32", "ViT-L-14", "RN50", "ViT-H-14-quickgelu"):
        with pytest.raises(ValueError, match="--rest"):
            settings_of(name, file)
    assert settings_of("ViT-B-16", file, rest="openai").quick_gelu
    assert not settings_of("ViT-B-16", file, rest="laion2b_s34b_b88k").quick_gelu
    assert settings_of("ViT-B-16-quickgelu", file).quick_gelu
    assert settings_of("ViT-L-14", file, rest="laion2b_s32b_b82k").mean == (0.5, 0.5, 0.5)


def test_own_weights_know_their_settings(weights: Path, tmp_path: Path) -> None:
    for tag, settings in (("quick", AS_QUICK), ("plain", AS_PLAIN)):
        trained = models.open(NAME, tag)
        save_weights(trained, tmp_path / "model.safetensors")
        again = models.open(NAME, str(tmp_path / "model.safetensors"))
        assert has(again, settings)
        theirs, ours = trained.state_dict(), again.state_dict()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    with pytest.raises(ValueError, match="do not stem from one model"):
        models.open(NAME, str(tmp_path / "model.safetensors"), rest="quick")


def test_a_folder_of_open_clip_has_the_settings_in_it(weights: Path, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in flat(1).state_dict().items()}
    save_file(state, str(tmp_path / "open_clip_model.safetensors"))
    config = {"model_cfg": {**SHAPE, "quick_gelu": True}, "preprocess_cfg": QUICK}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert has(models.open(NAME, str(tmp_path)), AS_QUICK)
    assert has(models.open(NAME, str(tmp_path / "open_clip_model.safetensors")), AS_QUICK)
    config["preprocess_cfg"] = {**QUICK, "resize_mode": "longest"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="resize_mode 'longest' is not one of shortest, squash"):
        models.open(NAME, str(tmp_path))


def test_a_small_model_has_gelu_and_clips_statistics() -> None:
    encoder = build_small(TINY, 0)
    assert activations(encoder) == {"GELU"} and encoder.settings == Settings()
    assert encoder.mean.flatten().tolist() == pytest.approx(CLIP_MEAN)
    assert encoder.std.flatten().tolist() == pytest.approx(CLIP_STD)


def test_profiles_of_named_models_run_with_their_weights_settings() -> None:
    named = [load_profile(name) for name in profile_names()]
    named = [profile for profile in named if profile.model.kind == "open_clip"]
    assert len(named) >= 4
    for profile in named:
        check_models(profile)
        settings = settings_of(profile.model.name, profile.model.pretrained, profile.model.rest)
        if profile.model.pretrained == "packaged":
            assert settings.mean == (0.5,) * 3 and profile.base is not None
            continue
        assert settings.quick_gelu and profile.model.pretrained == "openai"
        assert open_clip.get_model_config(profile.model.name).get("quick_gelu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "ViT-SO400M-14-SigLIP", "pretrained": "webli"}, "dataset.image_mode squash"),
        ({"name": "MobileCLIP-S1", "pretrained": "datacompdr"}, "dataset.image_size 256"),
        ({"name": "ViT-L-14-336", "pretrained": "openai"}, "dataset.image_size 336"),
    ],
)
def test_a_study_whose_images_are_made_otherwise_is_refused(
    changes: dict[str, str], message: str
) -> None:
    profile = load_profile("flickr30k-check")
    model = profile.model.model_copy(update=changes)
    with pytest.raises(ValueError, match=message):
        check_models(profile.model_copy(update={"model": model}))
    further = profile.model_copy(update={"architectures": {"other": model}})
    with pytest.raises(ValueError, match=message):
        check_models(further)


def test_a_study_with_the_weights_interpolation_is_accepted() -> None:
    data = load_profile("flickr30k-check").dataset
    with pytest.raises(ValueError, match=r"dataset\.interpolation bilinear"):
        check_images(data, Settings(interpolation="bilinear"), "w")
    bilinear = data.model_copy(update={"interpolation": "bilinear"})
    check_images(bilinear, Settings(interpolation="bilinear"), "w")
    check_images(load_profile("smoke").dataset, AS_QUICK, "w")  # drawn, never resized


def test_a_model_that_is_not_square_is_refused_in_one_line() -> None:
    shape = {**SHAPE, "vision_cfg": {**SHAPE["vision_cfg"], "image_size": [32, 16]}}
    expected = pytest.raises(ValueError, match="images of 32 x 16 pixels; only square")
    with registered(shape, "matlib-test-oblong") as name, expected:
        models.open(name, None)
    shape["vision_cfg"]["image_size"] = [16, 16]
    with registered(shape, "matlib-test-square") as name:
        assert image_size_of(name) == 16 == models.open(name, None).image_size
