"""A folder that transformers wrote gives transformers' own embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPVisionModel

from matlib import models
from matlib.models.settings import Settings
from tests.models.named import (
    CAPTIONS,
    NAME,
    PIXELS,
    activations,
    flat,
    image_features,
    registered,
    same,
    tagged,
    text_features,
)

PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2,
    "size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16},
}  # fmt: skip
CLIP = Settings()


@pytest.fixture(scope="module", autouse=True)
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("named")
    with registered(), tagged({}):
        torch.save(flat(9, quick=True).state_dict(), folder / "other.pt")
        yield folder / "other.pt"


def config(act: str = "quick_gelu", heads: int = 2) -> CLIPConfig:
    common = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1,
              "num_attention_heads": heads, "projection_dim": 16, "hidden_act": act}  # fmt: skip
    text = {**common, "max_position_embeddings": 16, "vocab_size": 49408, "eos_token_id": 49407}
    vision = {**common, "image_size": 16, "patch_size": 8}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)


def clip(act: str = "quick_gelu", heads: int = 2) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = CLIPModel(config(act, heads)).eval()
        for parameter in model.parameters():  # its own start is all zeros in places
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def theirs(model: Any, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    tokens = SimpleTokenizer(context_length=16)(CAPTIONS)
    with torch.no_grad():
        found = model(input_ids=tokens, pixel_values=(PIXELS - mean) / std)
    return F.normalize(found.image_embeds, dim=1), F.normalize(found.text_embeds, dim=1)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_a_whole_folder_embeds_as_transformers_does(act: str, tmp_path: Path) -> None:
    model = clip(act)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    expected = Settings(act == "quick_gelu", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "crop", "bilinear")
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        encoder = models.open(NAME, str(weights))
        assert encoder.settings == expected
        assert activations(encoder) == {"QuickGELU" if act == "quick_gelu" else "GELU"}
        images, texts = theirs(model, expected)
        assert same(encoder.encode_image(PIXELS), images)
        assert same(encoder.encode_text(CAPTIONS), texts)


def test_a_folder_in_several_files_without_a_processor(tmp_path: Path) -> None:
    model = clip()
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    encoder = models.open(NAME, str(tmp_path))
    assert encoder.settings == Settings(quick_gelu=True)
    assert same(encoder.encode_image(PIXELS), theirs(model, encoder.settings)[0])
    next(tmp_path.glob("model-00001-*")).unlink()
    with pytest.raises(FileNotFoundError, match="names files that are not there: model-00001"):
        models.open(NAME, str(tmp_path))


def test_a_text_tower_alone_is_completed(other: Path, tmp_path: Path) -> None:
    model = clip()
    text = CLIPTextModelWithProjection(config().text_config)
    text.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith("text_")})
    text.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a text tower only"):
        models.open(NAME, str(tmp_path))
    with tagged({"openai": {"quick_gelu": True, "file": str(other)}}):
        encoder = models.open(NAME, str(tmp_path), rest="openai")
    assert encoder.settings == Settings(quick_gelu=True)
    assert same(encoder.encode_text(CAPTIONS), theirs(model, CLIP)[1])
    expected = image_features(flat(9, quick=True), CLIP.mean, CLIP.std)
    assert same(encoder.encode_image(PIXELS), expected)
    with tagged({"gelu": {"file": str(other)}}), pytest.raises(ValueError, match="not stem from"):
        models.open(NAME, str(tmp_path), rest="gelu")


def test_an_image_tower_without_projection_takes_that_of_the_rest(
    other: Path, tmp_path: Path
) -> None:
    model, whole = clip(), flat(9, quick=True)
    vision = CLIPVisionModel(config().vision_config)
    vision.load_state_dict(model.vision_model.state_dict())
    vision.eval().save_pretrained(tmp_path)
    with tagged({"openai": {"quick_gelu": True, "file": str(other)}}):
        encoder = models.open(NAME, str(tmp_path), rest="openai")
    assert same(encoder.encode_text(CAPTIONS), text_features(whole))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP.mean, CLIP.std))
    with torch.no_grad():
        pooled = vision(pixel_values=(PIXELS - mean) / std).pooler_output
        expected = F.normalize(pooled @ whole.visual.proj, dim=1)
    assert same(encoder.encode_image(PIXELS), expected)


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    clip(heads=4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has 4 attention heads"):
        models.open(NAME, str(tmp_path))
    path = tmp_path / "config.json"
    read = json.loads(path.read_text())
    for changes, message in (
        ({"text_config": {**read["text_config"], "hidden_act": "relu"}}, "hidden_act 'relu'"),
        ({"text_config": {**read["text_config"], "hidden_act": "gelu"}}, "one tower has QuickG"),
    ):
        path.write_text(json.dumps({**read, **changes}))
        with pytest.raises(ValueError, match=message):
            models.open(NAME, str(tmp_path))
    path.write_text('{"model_type": "clip", ')
    with pytest.raises(ValueError, match=r"config\.json: not readable as JSON"):
        models.open(NAME, str(tmp_path))
    path.write_text(json.dumps(read))
    for changed in ({"resample": 0}, {"do_center_crop": False}, {"image_mean": [0.5]}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **changed}))
        with pytest.raises(ValueError, match=r"preprocessor_config\.json: "):
            models.open(NAME, str(tmp_path))
