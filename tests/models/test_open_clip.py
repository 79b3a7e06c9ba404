from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from matlib import models
from matlib.models.dual_encoder import DualEncoder, check_pixels, frozen
from matlib.models.open_clip import PatchProjection
from matlib.models.small import build_small, load_small, save_small
from matlib.models.tokens import ClipTokenizer
from tests.toys import TINY, random_pixels, tiny_encoder

CAPTIONS = [
    "a red circle above a small star",
    "",
    "circle",
    "zirkel größer als der stern",
    "красный круг 圆",
    "word " * 500,
    "it's a dog , running .",
]


def test_small_model_honours_the_contract() -> None:
    encoder = tiny_encoder()
    assert isinstance(encoder, DualEncoder)
    image, text = encoder.encode_image(random_pixels(3)), encoder.encode_text(CAPTIONS)
    assert image.shape == (3, 16) and text.shape == (len(CAPTIONS), 16)
    assert torch.allclose(image.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(text.norm(dim=1), torch.ones(len(CAPTIONS)), atol=1e-5)


def test_token_ids_equal_open_clips_tokenizer_for_any_string() -> None:
    ours, theirs = ClipTokenizer(16), SimpleTokenizer(context_length=16)
    tokens, expected = ours(CAPTIONS), theirs(CAPTIONS)
    # theirs keeps the end token when it cuts; ours does too; the rest is padding
    assert torch.equal(tokens, expected[:, : tokens.shape[1]])
    assert not expected[:, tokens.shape[1] :].any()


def test_trimmed_tokens_give_the_embeddings_of_padded_tokens() -> None:
    encoder = tiny_encoder()
    short = CAPTIONS[:3]
    padded = SimpleTokenizer(context_length=16)(short)
    expected = encoder.clip.encode_text(padded, normalize=True)
    assert torch.allclose(encoder.encode_text(short), expected, atol=1e-6)


def test_patch_product_equals_open_clips_convolution() -> None:
    encoder, pixels = tiny_encoder().double(), random_pixels(3).double()
    projection = encoder.clip.visual.conv1
    assert isinstance(projection, PatchProjection)
    plain = torch.nn.functional.conv2d(pixels, projection.weight, stride=projection.stride)
    assert torch.allclose(projection(pixels), plain, atol=1e-12)


def test_embedding_does_not_depend_on_the_rest_of_the_batch() -> None:
    encoder = tiny_encoder()
    together = encoder.encode_text(CAPTIONS)
    alone = torch.cat([encoder.encode_text([caption]) for caption in CAPTIONS])
    assert torch.allclose(together, alone, atol=1e-6)


def test_same_seed_same_weights_and_global_generator_untouched() -> None:
    before = torch.get_rng_state()
    a, b, c = build_small(TINY, 1), build_small(TINY, 1), build_small(TINY, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.clip.visual.proj, c.clip.visual.proj)


def test_saved_model_is_the_loaded_model(tmp_path: Path) -> None:
    encoder = tiny_encoder(3)
    save_small(encoder, TINY, tmp_path)
    loaded = load_small(tmp_path / "model.safetensors")
    pixels = random_pixels(2)
    assert torch.equal(loaded.encode_image(pixels), encoder.encode_image(pixels))


def test_named_model_loads_a_local_checkpoint_of_open_clip(tmp_path: Path) -> None:
    # a checkpoint as released ones are: the flat layout, without a text tower of its own
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flat = open_clip.create_model("ViT-S-32", pretrained=None)
    torch.save(flat.state_dict(), tmp_path / "released.pt")
    encoder = models.open("ViT-S-32", str(tmp_path / "released.pt"))
    text = open_clip.get_tokenizer("ViT-S-32")(["a dog", "two cats on a sofa"])
    with torch.no_grad():
        expected = flat.eval().encode_text(text, normalize=True)
        got = encoder.encode_text(["a dog", "two cats on a sofa"])
    assert torch.allclose(got, expected, atol=1e-5)
    assert encoder.image_size == 224


def test_unknown_model_and_missing_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model 'ViT-Z'"):
        models.open("ViT-Z", "openai")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file at .*gone\.pt"):
        models.open("ViT-B-16", str(tmp_path / "gone.pt"))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "float pixels"),
        (torch.full((1, 3, 16, 16), 1.5), r"in \[0, 1\]"),
        (torch.full((1, 3, 16, 16), float("nan")), r"in \[0, 1\]"),
        (torch.zeros(3, 16, 16), "float pixels"),
        (torch.zeros(0, 3, 16, 16), "at least one image"),
    ],
)
def test_pixels_in_the_wrong_form_are_refused(pixels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_pixels(pixels)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected images \(3, 16, 16\)"):
        tiny_encoder().encode_image(torch.zeros(1, 3, 32, 32))


def test_frozen_restores_mode_and_gradients_even_after_an_error() -> None:
    encoder = tiny_encoder().train()
    encoder.clip.visual.proj.requires_grad_(False)
    with pytest.raises(RuntimeError), frozen(encoder):
        assert not encoder.training
        assert not any(p.requires_grad for p in encoder.parameters())
        raise RuntimeError
    assert encoder.training
    assert not encoder.clip.visual.proj.requires_grad
    assert encoder.clip.logit_scale.requires_grad
