"""One door: every kind of model opens with its own settings, or is refused with what to pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionModel

from matlib import models
from matlib.attacks import PGD, WordSubstitution
from matlib.defences import DEFENCES, InnerAttack
from matlib.evaluation import Threat, benchmark
from matlib.models.dual_encoder import TrainableEncoder
from matlib.models.settings import Settings
from matlib.models.small import save_small
from matlib.training import Schedule, train
from tests.evaluation.test_benchmark import in_memory, toy_pairs
from tests.models import pretend_hub
from tests.models.named import CAPTIONS, NAME, PIXELS, PLAIN, SHAPE, flat, registered, same, tagged
from tests.toys import TINY, tiny_encoder
from tests.training.toy_runs import toy_data

TEXTS = ["a red star", "", "a dog runs on grass"]


def clip_in_memory() -> tuple[Any, Any]:
    return pretend_hub.clip_model(), pretend_hub.clip_processor()


def open_clip_in_memory() -> tuple[Any, Any]:
    return in_memory(), open_clip.get_tokenizer("ViT-B-32")


IN_MEMORY = {
    "open_clip": open_clip_in_memory,
    "CLIPModel": clip_in_memory,
    "SiglipModel": pretend_hub.siglip,
}


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_a_model_in_memory_attacks_trains_and_is_judged_alike(kind: str) -> None:
    encoder = models.open(*IN_MEMORY[kind]())
    assert isinstance(encoder, TrainableEncoder)
    threat = Threat(eps_255=8, n_steps=2, words={"red": ["blue"], "star": ["dog"]})
    table = benchmark(encoder, toy_pairs(), threat, n_boot=10)
    assert table.loc["worst", "mean"] <= table.loc["clean", "mean"]
    towers = {name: models.parameters_of(encoder, name) for name in encoder.towers()}
    assert set(towers) == {"image", "text", "scale"}
    ids = [id(p) for own in towers.values() for p in own]
    assert len(ids) == len(set(ids))
    assert len(ids) == len(list(encoder.parameters())) - (kind == "SiglipModel")  # its bias
    before = {name: [p.clone() for p in own] for name, own in towers.items()}
    inner = InnerAttack(PGD(8, 1), WordSubstitution())
    train(encoder, toy_data(), DEFENCES["tecoa"], Schedule(3, 4, 1e-2), seed=0, inner=inner)
    moved = {name: any(not torch.equal(*pair) for pair in zip(own, before[name], strict=True))
             for name, own in towers.items()}  # fmt: skip
    assert moved == {"image": True, "text": False, "scale": False}


def theirs(model: Any, processor: Any, settings: Settings) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    tokens = processor.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**tokens, pixel_values=(PIXELS - mean) / std)
    return F.normalize(found.image_embeds, dim=1), F.normalize(found.text_embeds, dim=1)


def test_a_folder_of_transformers_brings_its_own_configuration(tmp_path: Path) -> None:
    model, processor = clip_in_memory()
    model.save_pretrained(tmp_path / "own")
    processor.save_pretrained(tmp_path / "own")
    model.save_pretrained(tmp_path / "leaf")  # as LEAF releases them: without a processor
    expected = Settings(False, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "crop", "bilinear")
    images, texts = theirs(model, processor, expected)
    for folder, rest in (("own", ""), ("leaf", str(tmp_path / "own"))):
        encoder = models.open(f"local-dir:{tmp_path / folder}", rest=rest)
        assert encoder.settings == expected and not encoder.training
        assert same(encoder.encode_image(PIXELS), images)
        assert same(encoder.encode_text(TEXTS), texts)
    with pytest.raises(FileNotFoundError, match=r"no processor .* rest=openai/clip-vit-large"):
        models.open(tmp_path / "leaf")
    with pytest.raises(ValueError, match="brings its own weights"):
        models.open(f"local-dir:{tmp_path / 'own'}", "openai")


def test_weights_that_a_folder_of_transformers_lacks_are_never_drawn(tmp_path: Path) -> None:
    model, processor = clip_in_memory()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    state = {k: v for k, v in model.state_dict().items() if "text_projection" not in k}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lacks weights, which would be drawn at random: text_pro"
    ):
        models.open(tmp_path)
    CLIPVisionModel(model.config.vision_config).save_pretrained(tmp_path / "tower")
    with pytest.raises(
        ValueError, match=r"type 'clip_vision_model'; expected .*models\.open\(NAME"
    ):
        models.open(tmp_path / "tower")


def open_clip_folder(folder: Path, model: Any, shape: dict[str, Any]) -> Path:
    folder.mkdir()
    config = {"model_cfg": {**shape, "quick_gelu": True}, "preprocess_cfg": PLAIN}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_a_folder_of_open_clip_needs_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registered():
        model = flat(5, quick=True)
    folder = open_clip_folder(tmp_path / "fare", model, SHAPE)
    hub = pretend_hub.in_cache(folder, "somebody/fare", tmp_path / "cache", monkeypatch)
    for name in (f"local-dir:{folder}", hub):
        encoder = models.open(name)
        assert encoder.settings.quick_gelu and encoder.settings.mean == (0.5, 0.5, 0.5)
        mean, std = torch.tensor(0.5), torch.tensor(0.25)
        with torch.no_grad():
            assert same(
                encoder.encode_image(PIXELS), model.encode_image((PIXELS - mean) / std, True)
            )
            tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
            assert same(encoder.encode_text(CAPTIONS), model.encode_text(tokens, normalize=True))
    with pytest.raises(FileNotFoundError, match=r"somebody/other is neither .*local-dir:FOLDER"):
        models.open("hf-hub:somebody/other")
    foreign = open_clip_folder(
        tmp_path / "foreign", model, {**SHAPE, "text_cfg": {"vocab_path": 1}}
    )
    with pytest.raises(ValueError, match=r"open_clip cannot build .*vocab_path"):
        models.open(foreign)


def test_a_small_model_opens_by_its_folder(tmp_path: Path) -> None:
    encoder = tiny_encoder(3)
    save_small(encoder, TINY, tmp_path)
    assert same(models.open(tmp_path).encode_text(TEXTS), encoder.encode_text(TEXTS))


AdvFLYP = {"epoch": 1, "state_dict": {}, "add_prompter": {}, "best_acc1": torch.tensor(0.5),
           "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}}  # fmt: skip


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("layout", ["AdvFLYP", "AGFT", "half FARE"])
def test_released_image_towers_are_completed_by_what_they_stem_from(
    layout: str, tmp_path: Path
) -> None:
    with registered():
        torch.save(flat(9).state_dict(), tmp_path / "whole.pt")
        tower = flat(5).visual.state_dict()
        content: dict[str, Any] = {
            "AdvFLYP": {**AdvFLYP, "partial_state_dict": prefixed("visual.", tower)},
            "AGFT": {"modules": {"clip.visual": tower}, "params": {}},
            "half FARE": prefixed("module.", {k: v.half() for k, v in tower.items()}),
        }[layout]  # fmt: skip
        torch.save(content, tmp_path / "tower.pt")
        encoder = models.open(NAME, tmp_path / "tower.pt", rest=tmp_path / "whole.pt")
        stored = encoder.clip.visual.state_dict()  # type: ignore[union-attr]
        tolerance = 1e-3 if layout.startswith("half") else 0.0
        assert all(torch.allclose(stored[k], v, atol=tolerance) for k, v in tower.items())
        assert same(
            encoder.encode_text(CAPTIONS),
            models.open(NAME, tmp_path / "whole.pt").encode_text(CAPTIONS),
        )


def test_a_file_alone_is_told_what_it_is_and_what_to_pass(tmp_path: Path) -> None:
    with registered():
        model = flat(5)
    torch.save(model.visual.state_dict(), tmp_path / "fare.pt")
    with pytest.raises(ValueError, match=r"an image tower alone \(TeCoA.*rest=WEIGHTS.*Known"):
        models.open(tmp_path / "fare.pt")
    torch.save({"a.b": torch.ones(2)}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match=r"its layout is not known \(a\.b …\); known: ALBEF"):
        models.open(tmp_path / "foreign.pt")
    with registered(), tagged({"here": {}}), pytest.raises(ValueError, match=r"a tag \(here\)"):
        models.open(NAME)
    with registered(), pytest.raises(ValueError, match="none of its 1 tensors is the model's"):
        models.open(NAME, tmp_path / "foreign.pt")
    state = model.state_dict()
    state["surplus"] = state.pop("ln_final.bias")
    torch.save(state, tmp_path / "cut.pt")
    with registered(), pytest.raises(ValueError, match="1 missing, 1 that it has no place for"):
        models.open(NAME, tmp_path / "cut.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"no configuration \(nothing\); expected open_clip_config"
    ):
        models.open(tmp_path / "empty")


def test_what_belongs_to_another_model_is_refused() -> None:
    clip, processor = clip_in_memory()
    with pytest.raises(ValueError, match="makes images of 32 pixels, and the model takes 16"):
        models.open(clip, pretend_hub.clip_processor(32))
    with pytest.raises(
        ValueError, match=r"expected transformers' CLIPModel .* without a processor"
    ):
        models.open(clip)
    with pytest.raises(ValueError, match=r"SiglipModel .* got CLIPModel|an image_processor"):
        models.open(clip, processor.tokenizer)
    clip.config.text_config.eos_token_id = 50
    with pytest.raises(ValueError, match="reads a text at token 50, and CLIPProcessor ends it"):
        models.open(clip, processor)
    with pytest.raises(ValueError, match="reads 77 tokens, and the tokenizer gave 99"):
        models.open(in_memory(), open_clip.SimpleTokenizer(context_length=99))
