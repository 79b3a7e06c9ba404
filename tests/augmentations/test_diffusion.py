"""Images by diffusion: the real pipelines with tiny random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from matlib.augmentations.diffusion import Diffusion, drawn_by_diffusion, restyled_by_diffusion
from matlib.augmentations.generators import MissingExtraError, optional
from tests.augmentations.pairs import CAPTIONS, toy_pairs, without_weight
from tests.toys import generator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def tokenizer() -> PreTrainedTokenizerFast:
    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<unk>", "<end>", *words])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", eos_token="<end>",
        model_max_length=16,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    diffusers = optional("diffusers", "this test")
    words, target = tokenizer(), tmp_path_factory.mktemp("diffusion")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=(8, 8), layers_per_block=1, sample_size=8, in_channels=4,
            out_channels=4, norm_num_groups=4, cross_attention_dim=16, attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=16, eos_token_id=2,
            )
        )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet,
        scheduler=diffusers.DDIMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(target, safe_serialization=True)
    return target


def loaded(folder: Path, what: str) -> Diffusion:
    found = Diffusion.load(str(folder), what, size=16, batch_size=3)
    return Diffusion(found.pipeline, found.size, found.batch_size, n_steps=3)


def test_captions_are_drawn_at_the_size_of_the_data(folder: Path) -> None:
    pairs, model = toy_pairs(), loaded(folder, "text_to_image")
    one, other = (drawn_by_diffusion(pairs, 2, generator(1), model) for _ in range(2))
    images = one.all_images()
    assert images.shape == (5, 3, 3, 16, 16) and images.dtype == torch.uint8
    assert torch.equal(images, other.all_images()) and one.technique == "generated"
    assert torch.equal(images[:, 0], pairs.images.load(range(5)))
    assert not torch.equal(images[:, 1], images[:, 2])


def test_images_are_redrawn_from_where_they_are(folder: Path) -> None:
    pairs, model = toy_pairs(), loaded(folder, "image_to_image")
    found = restyled_by_diffusion(pairs, 1, generator(1), model, strength=0.7)
    assert found.all_images().shape == (5, 2, 3, 16, 16) and found.technique == "restyled"
    with pytest.raises(ValueError, match=r"strength is in \(0, 1\]"):
        restyled_by_diffusion(pairs, 1, generator(), model, strength=0)


@pytest.mark.parametrize(
    ("part", "weights", "name"),
    [
        ("unet", "diffusion_pytorch_model.safetensors", "conv_in.weight"),
        ("text_encoder", "model.safetensors", "final_layer_norm.weight"),
    ],
)
def test_a_pipeline_without_a_part_of_a_network_is_refused(
    folder: Path, tmp_path: Path, part: str, weights: str, name: str
) -> None:
    names = load_file(str(folder / part / weights))
    [lacking] = [each for each in names if each.endswith(name)]
    half = without_weight(folder, tmp_path / "half", f"{part}/{weights}", lacking)
    with pytest.raises(ValueError, match=rf"diffusion model's {part} .*{name}"):
        Diffusion.load(str(half), "text_to_image")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="no diffusion model at"):
        Diffusion.load(str(tmp_path / "nowhere"), "text_to_image")
    with pytest.raises(ValueError, match="is none of image_to_image, text_to_image"):
        Diffusion.load("any", "video")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match="diffusion needs the package diffusers"):
        Diffusion.load("any", "text_to_image")
