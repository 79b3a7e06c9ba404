"""Whatever is attacked or embedded gives on an accelerator what it gives on the CPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.factory import _MODEL_CONFIGS
from safetensors.torch import load_file

from matlib import models
from matlib.attacks.gallery import Gallery
from matlib.cli import main
from matlib.commands.options import ATTACK_NAMES
from matlib.models.dual_encoder import frozen
from matlib.models.masked_lm import train_masked_lm
from matlib.models.masked_lm_training import MaskedLMConfig
from matlib.models.sentence_encoder import SentenceEncoder
from matlib.models.small import build_small
from tests.commands.toy_data import Toy, make_toy
from tests.models.text_towers import CAPTIONS, placed, structures
from tests.pretend_accelerator import ACCELERATOR, Remote, pretended
from tests.toys import TINY, random_pixels, toy_gallery

TOWERS = structures()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


def weights_of(config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of open_clip's model `tiny`, which has this configuration."""
    monkeypatch.setitem(_MODEL_CONFIGS, "tiny", config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = open_clip.create_model("tiny", pretrained_text=False)
    # CoCa's decoder holds a weight that nothing initialises: it may be any number, or none
    state = {name: torch.nan_to_num(value, 0, 0, 0) for name, value in clip.state_dict().items()}
    torch.save(state, folder / "weights.pt")
    return folder / "weights.pt"


def attacked(
    toy: Toy, weights: Path, attack: str, out: Path, device: str, *more: str
) -> tuple[Any, torch.Tensor]:
    """What the command line writes: the pairs, and the images as computed."""
    budget = ["--eps", "8", "--steps", "2", "--batch", "5", "--format", "float"]
    asked = ["attack", "--model", "tiny", "--pretrained", str(weights), "--attack", attack,
             "--images", str(toy.images), "--captions", str(toy.captions), "--out", str(out),
             "--device", device, *budget, *(more or ("--synonyms", str(toy.synonyms)))]  # fmt: skip
    assert main(asked) == 0
    pairs = json.loads((out / "pairs.json").read_text())["pairs"]
    places = [pair["adversarial_image"] for pair in pairs]
    pixels = [load_file(str(out / place["file"]))["pixels"][place["row"]] for place in places]
    return pairs, torch.stack(pixels)


@pytest.mark.parametrize("attack", ATTACK_NAMES)
def test_every_attack_on_a_model_by_name_gives_the_cpus_pairs(
    attack: str, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(TOWERS["RN50-quickgelu"], tmp_path, monkeypatch)
    pairs, pixels = attacked(toy, weights, attack, tmp_path / "here", "cpu")
    with pretended():
        found, moved = attacked(toy, weights, attack, tmp_path / "there", ACCELERATOR.type)
    for there, here in zip(found, pairs, strict=True):
        assert there["captions"] == here["captions"] and there["tr_rank"] == here["tr_rank"]
    # where a gradient is next to nothing, rounding decides its sign
    assert float((moved - pixels).abs().le(1e-6).float().mean()) > 0.99


def test_words_of_a_masked_lm_are_asked_for_on_the_accelerator(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [c for own in json.loads(toy.captions.read_text()).values() for c in own]
    shape = MaskedLMConfig(width=16, layers=1, heads=2, vocab_size=90, n_steps=5, batch_size=4)
    train_masked_lm(captions, shape, seed=0).save(tmp_path / "lm")
    weights = weights_of(TOWERS["RN50-quickgelu"], tmp_path, monkeypatch)
    for conventions in ("matlib", "released"):
        words = ("--masked-lm", str(tmp_path / "lm"), "--conventions", conventions)
        here, _ = attacked(toy, weights, "bert", tmp_path / f"here-{conventions}", "cpu", *words)
        with pretended():
            out = tmp_path / f"there-{conventions}"
            there, _ = attacked(toy, weights, "bert", out, ACCELERATOR.type, *words)
        assert [p["captions"] for p in there] == [p["captions"] for p in here]


@pytest.mark.parametrize("name", ["RN50-quickgelu", "MobileCLIP2-L-14", "coca_ViT-B-32",
                                  "ViT-B-16-SigLIP", "roberta-ViT-B-32"])  # fmt: skip
def test_every_kind_of_text_tower_embeds_on_the_accelerator(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(placed(TOWERS[name], tmp_path), tmp_path, monkeypatch)
    here, pixels = models.open("tiny", str(weights)), random_pixels(2)
    with pretended():
        there = models.open("tiny", str(weights), ACCELERATOR.type)
        assert {*map(type, [there.mean, there.std])} == {Remote}
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                text = there.encode_text(CAPTIONS)
                image = there.encode_image(pixels)
            for found, own in ((text, here.encode_text(CAPTIONS)),
                               (image, here.encode_image(pixels))):  # fmt: skip
                torch.testing.assert_close(found.detach().cpu(), own.detach(), atol=1e-5, rtol=0)


def test_word_saliency_and_another_image_tower_work_on_the_accelerator() -> None:
    shape = replace(TINY, image_tower="convnet", image_size=32)
    here, texts = build_small(shape, 0), ["a red star", "a star"]
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    direction = here.encode_image(pixels).detach()
    expected = here.word_saliency(texts, lambda x: (x * direction).sum(1))
    with pretended():
        there = build_small(shape, 0).to(ACCELERATOR)
        with torch.no_grad(), frozen(there):
            seen = there.encode_image(pixels.to(ACCELERATOR))
        found = there.word_saliency(texts, lambda x: (x * seen).sum(1))
    torch.testing.assert_close(seen.cpu(), direction, atol=1e-5, rtol=0)
    for row, own in zip(found, expected, strict=True):
        assert row == pytest.approx(own, rel=1e-4)


def test_masks_of_a_gallery_lie_where_the_gallery_does() -> None:
    here = toy_gallery([2, 1, 3])
    with pretended():
        there = Gallery(
            here.pixels.to(ACCELERATOR), here.captions, here.relevant.to(ACCELERATOR),
            here.own.to(ACCELERATOR),
        )  # fmt: skip
        for mask, expected in (
            (there.own_mask, here.own_mask), (there.last_mask, here.last_mask)
        ):  # fmt: skip
            assert isinstance(mask, Remote) and torch.equal(mask.cpu(), expected)


def test_sentences_are_embedded_on_the_accelerator() -> None:
    shape = MaskedLMConfig(width=16, layers=1, heads=2, vocab_size=60, n_steps=1, batch_size=2)
    lm = train_masked_lm(["a red star", "a blue circle"], shape, seed=0)
    encoder = SentenceEncoder(lm.model.bert, lm.tokenizer)
    expected = encoder.encode_text(["a red star", "blue"])
    with pretended():
        encoder.model.to(ACCELERATOR)
        found = encoder.encode_text(["a red star", "blue"])
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=0)


def test_the_pretended_accelerator_refuses_what_a_real_one_does() -> None:
    here = torch.ones(3)
    with pretended():
        there = here.to(ACCELERATOR)
        assert isinstance(there, Remote) and there.device == ACCELERATOR
        assert torch.equal((there * 2 + torch.tensor(1.0)).cpu(), here * 3)
        assert isinstance(torch.tensor([1.0, 2.0], device=ACCELERATOR), Remote)
        assert isinstance(there[torch.tensor([0, 2])], Remote) and there.sum().item() == 3
        with pytest.raises(RuntimeError, match=r"on the CPU those of shape \(3,\)"):
            there + here
        with pytest.raises(RuntimeError, match="one device"):
            here[there.long()]
        with pytest.raises(TypeError, match=r"move it with \.cpu\(\)"):
            there.numpy()
        with pytest.raises(RuntimeError, match="no generator of the CPU"):
            torch.rand(3, generator=torch.Generator(), device=ACCELERATOR)
        with torch.enable_grad():
            weight = there.clone().requires_grad_()
            (weight**2).sum().backward()
        assert isinstance(weight.grad, Remote) and torch.equal(weight.grad.cpu(), here * 2)
