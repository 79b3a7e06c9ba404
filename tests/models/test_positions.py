"""Heat maps against what can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from matlib.models.dual_encoder import Fused
from matlib.models.positions import cut, heat_of_fusion, heat_of_tower, seen
from matlib.models.small import SmallModel, build_small

VIT = SmallModel(image_size=32, patch_size=8, image_width=32, image_layers=2, text_width=32,
                 text_layers=1, embed_dim=16)  # fmt: skip
PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PHRASES = ["a red star", "a blue ring", "a star"]


def test_a_position_counts_as_much_as_scaling_its_features_changes_the_score() -> None:
    encoder = build_small(VIT, 0)
    heat = heat_of_tower(encoder, PIXELS, PHRASES)
    assert heat.shape == (3, 4, 4) and not heat.requires_grad
    block, step = encoder.clip.visual.transformer.resblocks[-1], 1e-2  # type: ignore[union-attr]
    text = encoder.encode_text(PHRASES)
    for at in (0, 5, 15):
        scores = []
        for factor in (1 - step, 1 + step):

            def scaled(
                _: nn.Module, args: tuple[Tensor, ...], by: float = factor, i: int = at
            ) -> Tensor:
                moved = args[0].clone()
                moved[:, 1 + i] *= by
                return moved

            hook = block.register_forward_pre_hook(scaled)  # type: ignore[operator]
            scores.append((encoder.encode_image(PIXELS) * text).sum(1))
            hook.remove()
        slope = (scores[1] - scores[0]) / (2 * step)
        assert torch.allclose(heat.flatten(1)[:, at], slope.detach(), rtol=0.02, atol=1e-4)


def test_a_map_can_be_attacked_and_leaves_no_trace() -> None:
    encoder = build_small(VIT, 0)
    pixels = PIXELS.clone().requires_grad_()
    heat = heat_of_tower(encoder, pixels, PHRASES, differentiable=True)
    assert torch.allclose(heat, heat_of_tower(encoder, PIXELS, PHRASES), atol=1e-5)
    (slope,) = torch.autograd.grad(heat[:, 0, 0].sum(), pixels)
    assert slope.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())


def test_a_resnet_is_read_at_its_last_map() -> None:
    shape = SmallModel(image_size=64, image_tower="convnet", image_width=8, image_layers=1,
                       text_width=32, text_layers=1, head_width=16, embed_dim=16)  # fmt: skip
    encoder = build_small(shape, 0)
    pixels = torch.rand(2, 3, 64, 64)
    found = seen(encoder, pixels)
    assert torch.equal(found.embeddings, encoder.encode_image(pixels))
    assert found.at.shape == (2, 4, 8 * 32)  # stride 32: 2 x 2
    assert heat_of_tower(encoder, pixels, PHRASES[:2]).shape == (2, 2, 2)


def test_class_token_and_registers_are_no_positions() -> None:
    assert cut(torch.zeros(2, 1 + 49, 8)).shape == (2, 49, 8)
    assert cut(torch.zeros(2, 5 + 196, 8)).shape == (2, 196, 8)
    grid = torch.arange(6.0).view(1, 1, 2, 3)
    assert cut(grid).flatten().tolist() == [0, 1, 2, 3, 4, 5]


class Blind(nn.Module):
    image_size = 32


def test_a_tower_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Blind has no image tower .* visual\.layer4"):
        seen(Blind(), PIXELS)  # type: ignore[arg-type]


class Looking(nn.Module):
    """A fusion model that attends to bright patches; each word but the framing ones looks alike."""

    device = torch.device("cpu")

    def fused(self, images: Tensor, texts: Sequence[str]) -> Fused:
        bright = nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8).flatten(1)  # (B, 16)
        tokens = torch.cat([torch.zeros(len(bright), 1), 9 * bright], 1).softmax(1)
        looks = tokens[:, None, None].repeat(1, 2, 4, 1)  # (B, heads, T, 1 + P)
        score = (looks[..., 1:].mean((1, 2)) * bright).sum(1)
        is_word = torch.tensor([[False, True, True, False]]).repeat(len(bright), 1)
        return Fused(score, bright, (looks,), is_word)


def test_a_fusion_model_is_hottest_where_its_attention_serves_the_match() -> None:
    pixels = torch.full((2, 3, 32, 32), 0.1)
    pixels[0, :, 8:16, 24:32], pixels[1, :, 24:32, 0:8] = 1.0, 1.0
    heat = heat_of_fusion(Looking(), pixels, ["a", "b"])  # type: ignore[arg-type]
    assert heat.shape == (2, 4, 4) and heat.min() >= 0
    assert heat.flatten(1).argmax(1).tolist() == [1 * 4 + 3, 3 * 4 + 0]
